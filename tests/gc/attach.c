/* attach.c - threads come and go, sleep and fork, whatever the collector is doing.
 *
 *     attach case=storm [threads=2000] [at_once=16] [mode=4]
 *     attach case=sleepers [threads=12] [mode=4]
 *     attach case=exits [threads=200] [mode=4]
 *     attach case=fork [forks=20] [workers=2] [inside=0|1] [mode=4]
 *
 * Another thread collects without pause in all of them.
 */
#include "gc_test.h"

#include <sys/wait.h>

static const pa_type *pair_type;
static atomic_ulong next_id = 1;

static uint64_t take_id(void) { return atomic_fetch_add(&next_id, 1); }

/* A list of so many nodes in *root, a root; ids from first on, the head's highest. */
static void make_list(void **root, uint64_t first, size_t length)
{
    *root = NULL;
    for (size_t i = 0; i < length; i++) {
        node *n = new_node(pair_type, first + i);
        pa_store(&n->slots[0], *root);
        *root = n;
    }
}

static void check_list(void *head, uint64_t first, size_t length)
{
    for (size_t i = length; i-- > 0; head = load(&((node *)head)->slots[0]))
        met_as(head, first + i);
    REQUIRE(head == NULL);
}

/* ---- A storm of short threads ---- */

static void *short_life(void *argument)
{
    uint64_t random = (uintptr_t)argument, first = take_id() << 20;
    void *slots[3];
    pa_frame frame;
    if (random_below(&random, 10) == 0)
        return NULL; /* never attached */
    if (random_below(&random, 10) == 0) {
        pa_free(pa_malloc(100)); /* attached as a malloc user only */
        return NULL;
    }
    REQUIRE(!pa_is_inside());
    enter();
    REQUIRE(pa_is_inside());
    pa_frame_push(&frame, slots, 3);
    size_t length = random_below(&random, 60);
    make_list(&slots[0], first, length);
    for (size_t i = random_below(&random, 30); i > 0; i--) /* garbage of many classes: full caches */
        must(pa_new_bytes(random_below(&random, 3000) + 1));
    pa_leave();
    enter();
    check_list(slots[0], first, length);
    pa_frame_pop(&frame);
    pa_leave();
    return NULL;
}

static void storm(long threads, long at_once)
{
    pthread_t ids[256];
    REQUIRE(at_once <= 256);
    for (long done = 0; done < threads; done += at_once) {
        for (long i = 0; i < at_once; i++)
            ids[i] = start(short_life, (void *)(uintptr_t)(done + i + 1));
        for (long i = 0; i < at_once; i++)
            join(ids[i]);
    }
}

/* ---- Threads that sleep outside with frames pushed ---- */

enum { SLEEPERS_MAX = 64, LIST = 100 };

typedef struct sleeper {
    pthread_t id;
    uint64_t first;
    sem_t asleep, wake;
} sleeper;

static void wait_for(sem_t *s)
{
    while (sem_wait(s) != 0) {
    }
}

static void *sleep_outside(void *argument)
{
    sleeper *s = argument;
    void *outer[2], *inner[1];
    pa_frame outer_frame, inner_frame;
    enter();
    pa_frame_push(&outer_frame, outer, 2);
    make_list(&outer[0], s->first, LIST);
    enter(); /* nested */
    pa_frame_push(&inner_frame, inner, 1);
    make_list(&inner[0], s->first + LIST, LIST);
    pa_leave();
    pa_leave();
    sem_post(&s->asleep);
    wait_for(&s->wake);
    REQUIRE(!pa_is_inside());
    enter();
    check_list(inner[0], s->first + LIST, LIST);
    check_list(outer[0], s->first, LIST);
    make_list(&outer[1], s->first + 2 * LIST, LIST);
    check_list(outer[1], s->first + 2 * LIST, LIST);
    pa_frame_pop(&inner_frame);
    pa_frame_pop(&outer_frame);
    pa_leave();
    return NULL;
}

/* Waits for so many more cycles of the other thread; it must not need the sleepers. */
static void wait_for_cycles(collecting *other, unsigned long more)
{
    unsigned long want = atomic_load(&other->cycles) + more;
    double end = seconds_now() + 60;
    while (atomic_load(&other->cycles) < want) {
        REQUIRE(seconds_now() < end, "the collector waits for threads that are outside");
        sched_yield();
    }
}

static void sleepers(long threads, collecting *other)
{
    static sleeper all[SLEEPERS_MAX];
    REQUIRE(threads <= SLEEPERS_MAX);
    for (long i = 0; i < threads; i++) {
        REQUIRE(sem_init(&all[i].asleep, 0, 0) == 0 && sem_init(&all[i].wake, 0, 0) == 0);
        all[i].first = (uint64_t)(i + 1) << 32;
        all[i].id = start(sleep_outside, &all[i]);
    }
    for (long i = 0; i < threads; i++)
        wait_for(&all[i].asleep);
    wait_for_cycles(other, 4);
    uint64_t least = (uint64_t)threads * 2 * LIST * sizeof(node);
    REQUIRE(gc_stats().heap_marked_bytes >= least, "%" PRIu64 " bytes marked", gc_stats().heap_marked_bytes);
    for (long i = 0; i < threads; i += 2) /* half wake, the others sleep on */
        sem_post(&all[i].wake);
    for (long i = 0; i < threads; i += 2)
        join(all[i].id);
    wait_for_cycles(other, 3);
    for (long i = 1; i < threads; i += 2)
        sem_post(&all[i].wake);
    for (long i = 1; i < threads; i += 2)
        join(all[i].id);
}

/* ---- Exits with full caches; what is handed over must survive ---- */

typedef struct will {
    uint64_t first;
    pa_handle *handle;
} will;

static void *exit_full(void *argument)
{
    will *w = argument;
    void *slots[2];
    pa_frame frame;
    enter();
    pa_frame_push(&frame, slots, 2);
    make_list(&slots[0], w->first, LIST);
    REQUIRE((w->handle = pa_handle_new(NULL)));
    for (size_t nbytes = 8; nbytes <= 32768; nbytes = nbytes * 5 / 4 + 1) {
        slots[1] = must(pa_new_bytes(nbytes));
        slots[1] = must(pa_new_pointers(nbytes / 8 + 1));
        pa_store(slots[1], slots[0]);
    }
    pa_handle_set(w->handle, slots[0]); /* in the barrier buffer at exit, when marking */
    pa_frame_pop(&frame);
    pa_leave();
    return NULL;
}

static void exits(long threads)
{
    for (long i = 0; i < threads; i++) {
        will w = {take_id() << 20, NULL};
        join(start(exit_full, &w));
        void *slots[1];
        pa_frame frame;
        enter();
        pa_frame_push(&frame, slots, 1);
        slots[0] = pa_handle_get(w.handle);
        pa_handle_free(w.handle);
        for (int polls = 0; polls < 5; polls++)
            pa_safepoint();
        check_list(slots[0], w.first, LIST);
        pa_frame_pop(&frame);
        pa_leave();
    }
}

/* ---- fork ---- */

static atomic_bool workers_stop;

static void *work(void *argument)
{
    uint64_t first = (uintptr_t)argument << 40;
    void *slots[2];
    pa_frame frame;
    while (!atomic_load_explicit(&workers_stop, memory_order_relaxed)) {
        enter();
        pa_frame_push(&frame, slots, 2);
        make_list(&slots[0], first, 50);
        make_list(&slots[1], first + 50, 20);
        check_list(slots[0], first, 50);
        check_list(slots[1], first + 50, 20);
        pa_frame_pop(&frame);
        pa_leave();
        pa_free(pa_malloc(first >> 40));
    }
    return NULL;
}

typedef struct mine {
    void *slots[2];
    pa_frame frame;
    pa_handle *handle;
    pa_weak *weak;
    void *range[4];
} mine;

static void check_mine(mine *m)
{
    check_list(m->slots[0], 1 << 24, LIST);
    check_list(pa_handle_get(m->handle), 2 << 24, LIST);
    check_list(load(&m->range[2]), 3 << 24, LIST);
    REQUIRE(pa_weak_get(m->weak) == m->slots[0]);
}

static void *child_thread(void *argument)
{
    void *slots[1];
    pa_frame frame;
    enter();
    pa_frame_push(&frame, slots, 1);
    make_list(&slots[0], 9 << 24, 200);
    check_list(slots[0], 9 << 24, 200);
    pa_frame_pop(&frame);
    pa_leave();
    return argument;
}

static _Noreturn void in_child(mine *m, bool inside, long nth)
{
    alarm(60); /* a child that hangs fails */
    if (!inside)
        enter();
    check_mine(m);
    make_list(&m->slots[1], 4 << 24, 500);
    pa_leave();
    pa_gc();
    check_heap();
    enter();
    check_mine(m);
    check_list(m->slots[1], 4 << 24, 500);
    m->slots[1] = NULL;
    pa_leave();
    if (nth % 3 == 0)
        join(start(child_thread, NULL));
    if (nth % 5 == 0)
        set_mode((int)(nth % MODES));
    pa_gc();
    pa_gc();
    /* The vanished threads' frames are no roots any more: mine alone is alive. */
    enter();
    uint64_t mine_bytes = 3 * LIST * pa_object_bytes(m->slots[0]);
    check_mine(m);
    pa_leave();
    pa_gc_stats s = gc_stats();
    REQUIRE(s.heap_live_bytes == mine_bytes, "%" PRIu64 " bytes live in the child, %" PRIu64 " are mine",
            s.heap_live_bytes, mine_bytes);
    check_heap();
    if (nth % 4 == 0) { /* a grandchild */
        pid_t pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
            enter();
            check_mine(m);
            pa_leave();
            pa_gc();
            check_heap();
            _exit(0);
        }
        int status;
        REQUIRE(waitpid(pid, &status, 0) == pid && status == 0, "grandchild %#x", (unsigned)status);
    }
    _exit(0);
}

/* Another thread that forks, now inside and now outside: two forks may meet. */
static void *fork_too(void *argument)
{
    (void)argument;
    for (long i = 0; !atomic_load(&workers_stop); i++) {
        if (i % 2)
            enter();
        pid_t pid = fork();
        REQUIRE(pid >= 0);
        REQUIRE(pa_is_inside() == (i % 2 == 1), "fork %ld", i);
        if (pid == 0) {
            if (i % 2)
                pa_leave();
            pa_gc();
            check_heap();
            _exit(0);
        }
        if (i % 2)
            pa_leave();
        int status;
        REQUIRE(waitpid(pid, &status, 0) == pid && status == 0, "child %ld: %#x", i, (unsigned)status);
    }
    return NULL;
}

static void forks(long count, long workers, bool inside, long forkers)
{
    static mine m;
    pthread_t ids[16];
    REQUIRE(workers + forkers <= 16);
    enter();
    pa_frame_push(&m.frame, m.slots, 2);
    make_list(&m.slots[0], 1 << 24, LIST);
    REQUIRE((m.weak = pa_weak_new(m.slots[0])));
    make_list(&m.slots[1], 2 << 24, LIST);
    REQUIRE((m.handle = pa_handle_new(m.slots[1])));
    make_list(&m.slots[1], 3 << 24, LIST);
    REQUIRE(pa_roots_add(m.range, sizeof m.range, PA_ROOTS_BARRIERED) == 0);
    pa_store(&m.range[2], m.slots[1]);
    m.slots[1] = NULL;
    pa_leave();
    for (long i = 0; i < workers; i++)
        ids[i] = start(work, (void *)(uintptr_t)(i + 10));
    for (long i = 0; i < forkers; i++)
        ids[workers + i] = start(fork_too, NULL);
    for (long i = 0; i < count; i++) {
        if (inside)
            enter();
        pid_t pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0)
            in_child(&m, inside, i);
        if (inside)
            pa_leave();
        enter(); /* the parent goes on at once */
        check_mine(&m);
        make_list(&m.slots[1], 5 << 24, 100);
        check_list(m.slots[1], 5 << 24, 100);
        m.slots[1] = NULL;
        pa_leave();
        int status;
        REQUIRE(waitpid(pid, &status, 0) == pid);
        REQUIRE(status == 0, "child %ld: %#x", i, (unsigned)status);
    }
    atomic_store(&workers_stop, true);
    for (long i = 0; i < workers + forkers; i++)
        join(ids[i]);
    enter();
    check_mine(&m);
    REQUIRE(pa_roots_remove(m.range) == 0);
    pa_handle_free(m.handle);
    pa_weak_free(m.weak);
    pa_frame_pop(&m.frame);
    pa_leave();
}

int main(int argc, char **argv)
{
    const char *name = word_option(argc, argv, "case");
    REQUIRE(name, "which case?");
    long threads = option(argc, argv, "threads", 0);
    set_mode((int)option(argc, argv, "mode", PA_GC_CONCURRENT));
    pa_gc_set_checkmark(true);
    pair_type = node_type(2);
    collecting other;
    start_collecting(&other);
    if (strcmp(name, "storm") == 0)
        storm(threads ? threads : 2000, option(argc, argv, "at_once", 16));
    else if (strcmp(name, "sleepers") == 0)
        sleepers(threads ? threads : 12, &other);
    else if (strcmp(name, "exits") == 0)
        exits(threads ? threads : 200);
    else if (strcmp(name, "fork") == 0)
        forks(option(argc, argv, "forks", 20), option(argc, argv, "workers", 2), option(argc, argv, "inside", 0),
              option(argc, argv, "forkers", 0));
    else
        REQUIRE(false, "no such case");
    unsigned long cycles = stop_collecting(&other);
    REQUIRE(cycles >= 2, "%lu cycles", cycles);
    managed_heap_must_be_empty();
    pa_mem_stats s;
    pa_read_mem_stats(&s);
    REQUIRE(s.threads <= 8, "%" PRIu64 " threads have a cache after all have gone", s.threads);
    printf("attach: %s, %s: %lu cycles\n", name, mode_names[gc_stats().mode], cycles);
    return 0;
}
