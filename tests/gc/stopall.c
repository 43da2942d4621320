/* stopall.c - the asymmetric stop: nobody is inside while the world is stopped, and nobody is missed.
 *
 *     stopall [tenths=10] [threads=2] [mode=0] [seed=1]
 *
 * Threads go in and out in tight loops, and while inside move the only pointer to an object between the far ends of
 * a wide frame, by plain stores and without a poll.  A stopped world sees the pointer at one end; a world that
 * somebody runs in sees it at neither, frees the object, and the next visit meets a stranger.  The frame is scanned
 * by the collector on behalf of who is outside, so a thread that gets in during the scan breaks it.
 * White-box builds also look at each thread's plain pair of counters at yield points inside of stops (GC_STOPPED...):
 * they are equal whenever nobody is inside.
 */
#include "gc_test.h"

#include "base/yield.h"

enum { WIDE = 400, THREADS_MAX = 16, MOVES = 64 };

typedef struct visitor {
    pthread_t id;
    void *wide[WIDE];
    volatile uint64_t first, second; /* plain; equal outside */
    uint64_t object_id;
    uint64_t visits, refused;
    char apart[128];
} visitor;

static visitor visitors[THREADS_MAX];
static long threads;
static const pa_type *type;
static atomic_bool stop;
static atomic_ulong looks;

static void visit(visitor *v, size_t *at, uint64_t *random)
{
    for (int i = 0; i < MOVES; i++) {
        size_t to = random_below(random, 4) ? (*at ? 0 : WIDE - 1) : random_below(random, WIDE);
        if (to == *at)
            continue;
        v->first++;
        void *p = v->wide[*at];
        v->wide[*at] = NULL;
        __asm__ volatile("" ::: "memory"); /* for a moment it is nowhere but here */
        v->wide[to] = p;
        *at = to;
        v->second++;
    }
    met_as(met_as(v->wide[*at], v->object_id)->slots[0], v->object_id << 20);
}

static void *go_in_and_out(void *argument)
{
    visitor *v = argument;
    size_t at = 0;
    uint64_t random = v->object_id;
    pa_frame frame;
    enter();
    pa_frame_push(&frame, v->wide, WIDE);
    v->wide[1] = new_node(type, v->object_id << 20);
    v->wide[0] = new_node(type, v->object_id);
    pa_store(&((node *)v->wide[0])->slots[0], v->wide[1]);
    v->wide[1] = NULL;
    pa_leave();
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        if (random_below(&random, 4) == 0) {
            if (!pa_try_enter()) { /* never waits: refused while the world is stopped */
                v->refused++;
                continue;
            }
        } else {
            enter();
        }
        visit(v, &at, &random);
        v->visits++;
        if (random_below(&random, 64) == 0)
            new_node(type, 1); /* some garbage: sweeping has something to free, and what it frees is used again */
        if (random_below(&random, 8) == 0)
            pa_safepoint();
        pa_leave();
    }
    enter();
    pa_frame_pop(&frame);
    pa_leave();
    return NULL;
}

#if PA_WHITEBOX
#define X(name) #name,
static const char *const points[] = {PA_YIELD_POINTS(X)};
#undef X

static void look(int point)
{
    if (strncmp(points[point], "GC_STOPPED", 10) != 0)
        return;
    for (int round = 0; round < 200; round++)
        for (long t = 0; t < threads; t++) {
            uint64_t first = visitors[t].first, second = visitors[t].second;
            REQUIRE(first == second && visitors[t].first == first, "thread %ld is inside a stopped world", t);
        }
    atomic_fetch_add(&looks, 1);
}
static void watch_stops(void) { atomic_store(&pa_yield_hook, look); }
#else
static void watch_stops(void) {}
#endif

int main(int argc, char **argv)
{
    threads = option(argc, argv, "threads", 2);
    REQUIRE(threads <= THREADS_MAX);
    set_mode((int)option(argc, argv, "mode", PA_GC_SERIAL));
    pa_gc_set_checkmark(true);
    type = node_type(1);
    watch_stops();
    for (long t = 0; t < threads; t++) {
        visitors[t].object_id = (uint64_t)(option(argc, argv, "seed", 1) * 1000 + t + 1);
        visitors[t].id = start(go_in_and_out, &visitors[t]);
    }
    unsigned long stops = 0;
    double end = seconds_now() + (double)option(argc, argv, "tenths", 10) * 0.1;
    for (; seconds_now() < end || stops < 5; stops++)
        pa_gc();
    atomic_store(&stop, true);
    uint64_t visits = 0, refused = 0;
    for (long t = 0; t < threads; t++) {
        join(visitors[t].id);
        REQUIRE(visitors[t].first == visitors[t].second);
        visits += visitors[t].visits;
        refused += visitors[t].refused;
        REQUIRE(visitors[t].visits > 0);
    }
    pa_gc_stats s = gc_stats();
    REQUIRE(s.pause_count >= stops, "%" PRIu64 " stops for %lu collections", s.pause_count, stops);
    managed_heap_must_be_empty();
    printf("stopall: %s: %lu collections, %" PRIu64 " visits, %" PRIu64 " refused, %lu looks\n",
           mode_names[s.mode], stops, visits, refused, atomic_load(&looks));
    return 0;
}
