/* mutator.c - threads change a shared graph and graphs of their own while the collector runs.
 *
 *     mutator [seconds=2] [seed=1] [threads=3] [mode=0..4, -1: changing] [gogc=1..1000, -1: changing] [checkmark=1]
 *             [workbufs=1: only the work buffers that need no memory]
 *
 * In the shared graph everybody races: any thread may write any slot, and what a reader meets must be whole
 * (graph.h).  Each thread also has a graph of its own with a shadow outside of the heap: for every object its address
 * and id and where its slots lead.  What can be reached in the shadow must be there, slot by slot; what cannot is
 * forgotten.  Another thread forces cycles.  At the end nothing is left after two cycles.
 */
#include "graph.h"

#include "shadow.h"

#include "world/proc.h"

enum { SHARED = 128, HELD = 12, THREADS_MAX = 32, ROUND = 400 };

static void *shared[SHARED]; /* a barriered range */
static atomic_bool stop;
static atomic_ulong ops;
static atomic_uint next_id = 1;
static long seed;

/* ---- The shared graph ---- */

static size_t pick_slot(object *o, uint64_t *random)
{
    size_t n = slot_count(o);
    return random_below(random, 3) ? random_below(random, n < 4 ? n : 4) : random_below(random, n);
}

static void *maybe_interior(void *p, uint64_t *random)
{
    if (!p || random_below(random, 8))
        return p;
    size_t nbytes = pa_object_bytes(p);
    REQUIRE(nbytes >= sizeof(object), "%zu usable bytes", nbytes);
    return (char *)p + random_below(random, nbytes) / 8 * 8;
}

/* held: frame slots that lead to objects or to NULL. */
static void change_shared(void **held, pa_handle **handles, uint64_t *random)
{
    size_t i = random_below(random, HELD), k = random_below(random, HELD);
    void **common = &shared[random_below(random, SHARED)];
    object *o = held[i];
    switch (random_below(random, 12)) {
    case 0:
    case 1:
        make_object(&held[i], &held[k], (uint64_t)atomic_fetch_add(&next_id, 1) << 8 | 0x5a, random);
        break;
    case 2:
        held[i] = object_at(load(common));
        break;
    case 3:
        pa_store(common, maybe_interior(held[i], random));
        break;
    case 4:
        pa_store(common, NULL);
        break;
    case 5:
    case 6: /* walk some edges */
        for (int steps = 0; steps < 6 && o && slot_count(o); steps++) {
            object *next = object_at(load_slot(o, pick_slot(o, random)));
            if (next)
                o = held[k] = next;
        }
        break;
    case 7:
    case 8:
        if (o && slot_count(o))
            store_slot(o, pick_slot(o, random), maybe_interior(held[k], random));
        break;
    case 9:
        if (handles[i]) {
            held[k] = object_at(pa_handle_get(handles[i]));
            pa_handle_set(handles[i], o);
        } else {
            REQUIRE((handles[i] = pa_handle_new(o)));
        }
        break;
    case 10:
        pa_handle_free(handles[i]);
        handles[i] = NULL;
        break;
    case 11: /* a range of slots at once */
        if (o && (o->shape == POINTERS || o->shape == STRUCT) && o->count > 2) {
            size_t n = random_below(random, o->count - 1) + 1, from = random_below(random, o->count - n + 1),
                   to = random_below(random, o->count - n + 1);
            if (random_below(random, 3))
                pa_store_range(slot_of(o, to), slot_of(o, from), n);
            else
                pa_clear_range(slot_of(o, to), n);
        }
        break;
    }
    for (size_t j = 0; j < HELD; j++)
        if (held[j])
            verify(held[j]);
}

static void *mutate(void *argument)
{
    uint64_t random = (uint64_t)seed * 1000 + (uintptr_t)argument;
    pa_handle *handles[HELD] = {0};
    static _Thread_local shadow own;
    shadow_open(&own, random);
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        void *held[HELD];
        pa_frame frame;
        enter();
        pa_frame_push(&frame, held, HELD);
        for (size_t j = 0; j < HELD; j++)
            REQUIRE(held[j] == NULL, "slots are cleared by pa_frame_push");
        for (int i = 0; i < ROUND; i++) {
            change_shared(held, handles, &random);
            shadow_change(&own, &random);
            if (random_below(&random, 4) == 0)
                pa_safepoint();
            if (random_below(&random, 100) == 0) { /* outside with the frame pushed, maybe nested */
                enter();
                pa_leave();
                pa_leave();
                enter();
            }
        }
        shadow_verify(&own);
        pa_frame_pop(&frame);
        pa_leave();
        atomic_fetch_add_explicit(&ops, ROUND, memory_order_relaxed);
    }
    enter();
    shadow_verify(&own);
    shadow_close(&own);
    pa_leave();
    for (size_t i = 0; i < HELD; i++)
        pa_handle_free(handles[i]);
    return NULL;
}

int main(int argc, char **argv)
{
    double seconds = (double)option(argc, argv, "seconds", 2);
    long threads = option(argc, argv, "threads", 3), mode = option(argc, argv, "mode", PA_GC_CONCURRENT),
         gogc = option(argc, argv, "gogc", 100);
    seed = option(argc, argv, "seed", 1);
    REQUIRE(threads >= 1 && threads <= THREADS_MAX);
    make_types();
    set_mode(mode < 0 ? PA_GC_CONCURRENT : (int)mode);
    pa_gc_set_checkmark(option(argc, argv, "checkmark", 1));
    pa_the_procs.workpool.most = (uint64_t)option(argc, argv, "workbufs", 0);
    pa_set_gc_percent(gogc < 0 ? 100 : (int)gogc);
    REQUIRE(pa_roots_add(shared, sizeof shared, PA_ROOTS_BARRIERED) == 0);

    double end = seconds_now() + seconds;
    pthread_t ids[THREADS_MAX];
    for (long t = 0; t < threads; t++)
        ids[t] = start(mutate, (void *)(uintptr_t)(t + 1));
    uint64_t random = (uint64_t)seed;
    unsigned long forced = 0;
    while (seconds_now() < end) {
        if (mode < 0)
            set_mode((int)random_below(&random, MODES));
        if (gogc < 0)
            pa_set_gc_percent(random_below(&random, 20) ? (int)random_below(&random, 1000) + 1 : -1);
        pa_gc();
        forced++;
        struct timespec between = {.tv_nsec = (long)random_below(&random, 4000000)};
        nanosleep(&between, NULL); /* so that cycles are also begun by the pacer */
    }
    atomic_store(&stop, true);
    for (long t = 0; t < threads; t++)
        join(ids[t]);
    REQUIRE(pa_roots_remove(shared) == 0);
    pa_gc_stats s = gc_stats();
    REQUIRE(forced >= 2 && s.forced_cycles >= forced && s.cycles >= s.forced_cycles,
            "%lu forced %" PRIu64 " of %" PRIu64, forced, s.forced_cycles, s.cycles);
    REQUIRE(atomic_load(&ops) > 0);
    uint64_t overflows = atomic_load(&pa_the_procs.workpool.overflow_count);
    REQUIRE(!pa_the_procs.workpool.most || overflows > 0, "the work buffers were enough: this run shows nothing");
    managed_heap_must_be_empty();
    printf("mutator: %lu operations, %" PRIu64 " cycles, %" PRIu64 " forced, %" PRIu64 " objects, %" PRIu64 " MiB\n",
           atomic_load(&ops), s.cycles, s.forced_cycles, s.mallocs, s.total_alloc_bytes >> 20);
    return 0;
}
