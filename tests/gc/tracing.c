/* tracing.c - the execution trace while threads work: start, stop, read and fork against a storm of events.
 *
 *     tracing storm [threads=4] [rounds=40]   threads that allocate, mark and free while traces start and stop
 *     tracing assists                         allocating threads that have to mark
 *     tracing torn [threads=4] [ms=300]       a ring so small that it is overwritten all the time: no torn event
 */
#include "gc_test.h"

#include <sys/wait.h>

enum { SMALL_BYTES = 8192, EVENTS_MAX = 1 << 16 };

static atomic_bool stop_working;
static pa_trace_event events[EVENTS_MAX];

static void *work(void *argument)
{
    uint64_t random = (uintptr_t)argument + 1;
    void *slots[1];
    pa_frame frame;
    enter();
    pa_frame_push(&frame, slots, 1);
    while (!atomic_load_explicit(&stop_working, memory_order_relaxed)) {
        void **p = must(pa_new_pointers(1 + random_below(&random, 300)));
        pa_store(p, random_below(&random, 200) ? slots[0] : NULL);
        slots[0] = p;
        pa_free(must(pa_malloc(40000 + random_below(&random, 100000))));
    }
    pa_frame_pop(&frame);
    pa_leave();
    return NULL;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Sorted, of this time, of known kinds; what one event says fits together. */
static size_t must_be_right(uint64_t from_ns, uint64_t *lost)
{
    size_t count = pa_trace_read(events, EVENTS_MAX, lost);
    uint64_t until_ns = now_ns();
    for (size_t i = 0; i < count; i++) {
        const pa_trace_event *e = &events[i];
        REQUIRE(e->kind < PA_TRACE_KINDS && e->thread > 0, "kind %u thread %u", e->kind, e->thread);
        REQUIRE(i == 0 || events[i - 1].time_ns <= e->time_ns, "event %zu", i);
        REQUIRE(e->time_ns + e->duration_ns <= until_ns, "kind %u ends in the future", e->kind);
        /* Cycles begin before the trace does, if they were under way. */
        REQUIRE(e->duration_ns || e->time_ns >= from_ns || e->kind <= PA_TRACE_STOP, "kind %u", e->kind);
        if (e->kind == PA_TRACE_SPAN_ALLOC || e->kind == PA_TRACE_SPAN_FREE)
            REQUIRE(e->args[0] % 8192 == 0 && e->args[0] && e->args[1] % 8192 == 0 && e->args[1] && !e->args[2],
                    "torn: %#" PRIx64 " %" PRIu64 " %" PRIu64, e->args[0], e->args[1], e->args[2]);
        if (e->kind == PA_TRACE_STOP)
            REQUIRE(e->args[0] <= e->duration_ns && !e->args[1] && !e->args[2]);
    }
    return count;
}

static void *start_and_stop(void *argument)
{
    long rounds = *(long *)argument, started = 0;
    for (long i = 0; i < rounds; i++) {
        int error = pa_trace_start(SMALL_BYTES << i % 5);
        REQUIRE(error == 0 || error == EBUSY, "%s", strerror(error));
        started += error == 0;
        sched_yield();
        if (i % 3 == 0)
            pa_gc();
        pa_trace_stop();
        if (i % 2)
            pa_trace_discard();
    }
    REQUIRE(started > 0);
    return NULL;
}

static void child_must_be_quiet(void)
{
    uint64_t lost = 1;
    REQUIRE(!pa_trace_stop() && pa_trace_capacity_events() == 0);
    REQUIRE(pa_trace_read(events, EVENTS_MAX, &lost) == 0 && lost == 0);
    REQUIRE(pa_trace_start(SMALL_BYTES) == 0);
    pa_free(must(pa_malloc(1 << 20)));
    if (!PA_TSAN && !PA_ASAN) /* which allow a child of several threads none of its own, or deadlock in it */
        pa_gc();
    REQUIRE(pa_trace_stop() && pa_trace_read(events, EVENTS_MAX, NULL) > 0);
    _exit(0);
}

static void storm(int argc, char **argv)
{
    long threads = option(argc, argv, "threads", 4), rounds = option(argc, argv, "rounds", 40);
    pthread_t ids[64], racers[2];
    uint64_t lost;
    enter(); /* the fork handlers are there from here on */
    pa_leave();
    for (long i = 0; i < threads; i++)
        ids[i] = start(work, (void *)i);
    for (int i = 0; i < 2; i++)
        racers[i] = start(start_and_stop, &rounds);
    for (long i = 0; i < rounds; i++) {
        must_be_right(0, &lost);
        if (i % 16 == 0) {
            pid_t child = fork();
            REQUIRE(child >= 0);
            if (child == 0)
                child_must_be_quiet();
            int status;
            REQUIRE(waitpid(child, &status, 0) == child && status == 0, "status %#x", status);
        }
    }
    for (int i = 0; i < 2; i++)
        join(racers[i]);
    atomic_store(&stop_working, true);
    for (long i = 0; i < threads; i++)
        join(ids[i]);
    pa_trace_stop();
    /* Off means off: nothing is added. */
    size_t before = must_be_right(0, &lost);
    pa_gc();
    REQUIRE(must_be_right(0, &lost) == before);
    pa_trace_discard();
    REQUIRE(pa_trace_capacity_events() == 0 && pa_trace_read(events, EVENTS_MAX, &lost) == 0 && lost == 0);
    check_heap();
    printf("storm ok\n");
}

static void torn(int argc, char **argv)
{
    long threads = option(argc, argv, "threads", 4), ms = option(argc, argv, "ms", 300);
    pthread_t ids[64];
    uint64_t lost = 0, from_ns = now_ns(), reads = 0, seen = 0;
    REQUIRE(pa_trace_start(SMALL_BYTES) == 0);
    for (long i = 0; i < threads; i++)
        ids[i] = start(work, (void *)i);
    while (now_ns() - from_ns < (uint64_t)ms * 1000000 || lost < 1000) {
        size_t count = must_be_right(from_ns, &lost);
        REQUIRE(count <= pa_trace_capacity_events()); /* nobody starts another one here */
        seen += count;
        reads++;
    }
    atomic_store(&stop_working, true);
    for (long i = 0; i < threads; i++)
        join(ids[i]);
    REQUIRE(pa_trace_stop() && !pa_trace_stop());
    REQUIRE(must_be_right(from_ns, &lost) > 0 && lost >= 1000 && seen > 0 && reads > 0);
    printf("torn ok\n");
}

/* Events by kind, and what assists scanned. */
static uint64_t count_kinds(uint64_t kinds[PA_TRACE_KINDS])
{
    uint64_t scanned = 0, lost;
    size_t count = pa_trace_read(events, EVENTS_MAX, &lost);
    memset(kinds, 0, PA_TRACE_KINDS * sizeof *kinds);
    for (size_t i = 0; i < count; i++) {
        kinds[events[i].kind]++;
        scanned += events[i].kind == PA_TRACE_ASSIST ? events[i].args[0] : 0;
    }
    return scanned;
}

/* An assist may find nothing to mark: until one has. */
static void assists(void)
{
    pthread_t ids[4];
    uint64_t kinds[PA_TRACE_KINDS], from_ns = now_ns();
    pa_set_gc_percent(20);
    REQUIRE(pa_trace_start((size_t)64 << 20) == 0);
    for (long i = 0; i < 4; i++)
        ids[i] = start(work, (void *)i);
    while (count_kinds(kinds) == 0 || gc_stats().cycles < 3)
        REQUIRE(now_ns() - from_ns < 60u * 1000000000u, "no assist in a minute");
    atomic_store(&stop_working, true);
    for (long i = 0; i < 4; i++)
        join(ids[i]);
    REQUIRE(pa_trace_stop());
    REQUIRE(count_kinds(kinds) > 0 && kinds[PA_TRACE_CYCLE] >= 1 && kinds[PA_TRACE_STOP] >= 2,
            "%" PRIu64 " assists, %" PRIu64 " cycles", kinds[PA_TRACE_ASSIST], kinds[PA_TRACE_CYCLE]);
    printf("assists ok\n");
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "storm") == 0)
        storm(argc, argv);
    else if (strcmp(what, "torn") == 0)
        torn(argc, argv);
    else if (strcmp(what, "assists") == 0)
        assists();
    else
        REQUIRE(false, "storm, torn or assists");
    return 0;
}
