/* weak.c - handles, weak handles and cleanups.
 *
 *     weak case=basics|foreign|handles|resurrect|frees|cleanups|notify [mode=4] [tenths=5] [seed=1]
 */
#include "gc_test.h"

static const pa_type *type;
static atomic_ulong next_id = 1;

static uint64_t take_id(void) { return atomic_fetch_add(&next_id, 1); }

/* ---- One thread, exactly ---- */

static void basics(void)
{
    void *slots[3];
    pa_frame frame;
    enter();
    pa_frame_push(&frame, slots, 3);
    errno = 0;
    int outside = 0;
    REQUIRE(pa_weak_new(&outside) == NULL && errno == EINVAL, "errno %d", errno);
    errno = 0;
    REQUIRE(pa_weak_new(NULL) == NULL && errno == EINVAL, "errno %d", errno);
    void *explicit_block = pa_malloc(64);
    errno = 0;
    REQUIRE(pa_weak_new(explicit_block) == NULL && errno == EINVAL, "errno %d", errno);
    REQUIRE(pa_cleanup_add(explicit_block, 1) == EINVAL && pa_cleanup_add(NULL, 1) == EINVAL);
    REQUIRE(pa_find_object(explicit_block) == NULL && pa_object_bytes(explicit_block) == 0);
    pa_free(explicit_block);
    pa_weak_free(NULL);

    slots[0] = new_node(type, 1);
    slots[1] = new_node(type, 2);
    slots[2] = must(pa_new_bytes(100000));
    pa_store(&((node *)slots[0])->slots[0], slots[1]);
    pa_weak *first = pa_weak_new(slots[0]), *again = pa_weak_new(slots[0]), *second = pa_weak_new(slots[1]),
            *large = pa_weak_new(slots[2]);
    REQUIRE(first && again && second && large && gc_stats().weak_handles == 4);
    slots[1] = NULL;
    pa_gc();
    REQUIRE(pa_weak_get(first) == slots[0] && pa_weak_get(again) == slots[0] && pa_weak_get(large) == slots[2]);
    met_as(pa_weak_get(second), 2); /* kept by the first */
    slots[0] = slots[2] = NULL;
    slots[1] = pa_weak_get(second); /* strong again */
    pa_gc();
    REQUIRE(!pa_weak_get(first) && !pa_weak_get(again) && !pa_weak_get(large));
    met_as(pa_weak_get(second), 2);
    pa_weak_free(again);
    REQUIRE(gc_stats().weak_handles == 3);
    slots[1] = NULL;
    pa_gc();
    REQUIRE(!pa_weak_get(second));
    for (int i = 0; i < 5000; i++) { /* what is made in the freed places is somebody else */
        slots[0] = new_node(type, 100);
        REQUIRE(!pa_weak_get(first) && !pa_weak_get(second));
    }
    pa_weak_free(first);
    pa_weak_free(second);
    pa_weak_free(large);
    /* A cycle of garbage with weak handles inside is gone as well, and freeing early forgets. */
    slots[0] = new_node(type, 3);
    slots[1] = new_node(type, 4);
    pa_store(&((node *)slots[0])->slots[0], slots[1]);
    pa_store(&((node *)slots[1])->slots[0], slots[0]);
    first = pa_weak_new(slots[0]);
    pa_weak_free(pa_weak_new(slots[1]));
    second = pa_weak_new(slots[1]);
    slots[0] = slots[1] = NULL;
    pa_gc();
    REQUIRE(!pa_weak_get(first) && !pa_weak_get(second));
    pa_weak_free(first);
    pa_weak_free(second);
    pa_frame_pop(&frame);
    pa_leave();
}

/* ---- Words that are no addresses, wherever the collector reads pointers ---- */

static void foreign_words(void)
{
    static void *const words[] = {(void *)-1, (void *)-4096, (void *)((uintptr_t)1 << 63), (void *)1,
                                  (void *)(1 << 20)};
    enum { WORDS = sizeof words / sizeof *words };
    void *slots[WORDS + 2];
    pa_frame frame;
    enter();
    pa_frame_push(&frame, slots, WORDS + 2);
    slots[WORDS] = new_node(type, 1);
    slots[WORDS + 1] = must(pa_new_pointers(WORDS * sizeof(void *)));
    pa_handle *held[WORDS];
    for (int i = 0; i < WORDS; i++) {
        slots[i] = words[i];
        pa_store(&((void **)slots[WORDS + 1])[i], words[i]);
        held[i] = must(pa_handle_new(words[i]));
    }
    /* An address with the top bit set must not be taken for a part of the object, nor keep it. */
    pa_weak *weak = must(pa_weak_new(slots[WORDS]));
    pa_store(&((void **)slots[WORDS + 1])[0], (void *)((uintptr_t)slots[WORDS] | (uintptr_t)1 << 63));
    pa_gc();
    met_as(slots[WORDS], 1);
    slots[WORDS] = NULL;
    pa_gc();
    REQUIRE(!pa_weak_get(weak));
    for (int i = 0; i < WORDS; i++)
        pa_handle_free(held[i]);
    pa_weak_free(weak);
    pa_frame_pop(&frame);
    pa_leave();
}

/* ---- Handles are counted exactly ---- */

static void handles(void)
{
    enum { HANDLES = 1000 };
    static pa_handle *all[HANDLES];
    REQUIRE(gc_stats().handles == 0);
    enter();
    for (uint64_t i = 0; i < HANDLES; i++) {
        REQUIRE((all[i] = pa_handle_new(new_node(type, i))));
        REQUIRE(gc_stats().handles == i + 1, "%" PRIu64 " handles, not %" PRIu64, gc_stats().handles, i + 1);
    }
    pa_gc();
    for (uint64_t i = 0; i < HANDLES; i++) {
        met_as(pa_handle_get(all[i]), i);
        if (i % 2)
            pa_leave(); /* inside or not */
        pa_handle_free(all[i]);
        if (i % 2)
            enter();
        REQUIRE(gc_stats().handles == HANDLES - i - 1, "%" PRIu64 " handles", gc_stats().handles);
    }
    pa_leave();
}

/* ---- Resurrection races: get while marking and while sweeping ---- */

enum { WEAK = 200, RACERS = 2 };
static atomic_bool stop;
static atomic_ulong found_alive, found_gone;
static long seed;

static void *resurrect(void *argument)
{
    uint64_t random = (uint64_t)seed * 100 + (uintptr_t)argument;
    static _Thread_local pa_weak *weak[WEAK];
    static _Thread_local uint64_t ids[WEAK];
    void *slots[4];
    pa_frame frame;
    enter();
    pa_frame_push(&frame, slots, 4);
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        size_t i = random_below(&random, WEAK), k = random_below(&random, 3);
        if (!weak[i]) {
            slots[3] = new_node(type, take_id());
            slots[k] = new_node(type, ((node *)slots[3])->id << 20);
            pa_store(&((node *)slots[k])->slots[0], slots[3]);
            ids[i] = met(slots[k])->id;
            REQUIRE((weak[i] = pa_weak_new(slots[k])));
        } else {
            void *p = pa_weak_get(weak[i]);
            if (p) {
                /* Alive for as long as it is held, with all it leads to. */
                slots[k] = met_as(p, ids[i]);
                for (size_t polls = random_below(&random, 4); polls; polls--)
                    pa_safepoint();
                met_as(met_as(slots[k], ids[i])->slots[0], ids[i] >> 20);
                REQUIRE(pa_weak_get(weak[i]) == slots[k], "it is held and its weak handle has lost it");
                atomic_fetch_add_explicit(&found_alive, 1, memory_order_relaxed);
            } else {
                REQUIRE(pa_weak_get(weak[i]) == NULL, "it came back");
                pa_weak_free(weak[i]);
                weak[i] = NULL;
                atomic_fetch_add_explicit(&found_gone, 1, memory_order_relaxed);
            }
        }
        slots[random_below(&random, 4)] = NULL;
        pa_safepoint();
    }
    pa_frame_pop(&frame);
    pa_leave();
    for (int i = 0; i < WEAK; i++)
        pa_weak_free(weak[i]);
    return NULL;
}

static void resurrections(double seconds)
{
    collecting other;
    pthread_t ids[RACERS];
    start_collecting(&other);
    for (uintptr_t i = 0; i < RACERS; i++)
        ids[i] = start(resurrect, (void *)(i + 1));
    double end = seconds_now() + seconds, last = end + 60;
    while (seconds_now() < end || atomic_load(&other.cycles) < 5 || atomic_load(&found_gone) < 50) {
        REQUIRE(seconds_now() < last, "%lu cycles %lu alive %lu gone", atomic_load(&other.cycles),
                atomic_load(&found_alive), atomic_load(&found_gone));
        sched_yield();
    }
    atomic_store(&stop, true);
    for (int i = 0; i < RACERS; i++)
        join(ids[i]);
    stop_collecting(&other);
    REQUIRE(atomic_load(&found_alive) && atomic_load(&found_gone));
}

/* ---- Weak handles of dead objects, freed while the objects' spans are swept and given back ---- */

static void frees_while_sweeping(double seconds)
{
    enum { SPANS = 50, SPAN_BYTES = 100000 };
    pa_weak *weak[SPANS];
    uint64_t random = (uint64_t)seed;
    collecting other;
    start_collecting(&other);
    for (double end = seconds_now() + seconds; seconds_now() < end || atomic_load(&other.cycles) < 5;) {
        enter();
        for (int i = 0; i < SPANS; i++) {
            void *object = must(pa_new_bytes(SPAN_BYTES));
            REQUIRE((weak[i] = pa_weak_new(object)));
        }
        pa_leave();
        for (size_t yields = random_below(&random, 20); yields; yields--)
            sched_yield();
        for (int i = 0; i < SPANS; i++)
            pa_weak_free(weak[i]);
    }
    stop_collecting(&other);
}

/* ---- Cleanups: each id exactly once, after its object was found unreachable, never before ---- */

enum { OBJECTS = 3000, EACH = 3, IDS = OBJECTS * EACH };
static atomic_uchar delivered[IDS + 1];
static atomic_bool dropped[OBJECTS];

static size_t take_cleanups(void)
{
    uint64_t ids[64];
    size_t n = pa_cleanup_take(ids, 64);
    REQUIRE(n <= 64);
    for (size_t i = 0; i < n; i++) {
        REQUIRE(ids[i] < IDS, "id %" PRIu64 " was never added", ids[i]);
        REQUIRE(atomic_fetch_add(&delivered[ids[i]], 1) == 0, "id %" PRIu64 " twice", ids[i]);
        REQUIRE(atomic_load(&dropped[ids[i] / EACH]), "id %" PRIu64 " while its object was held", ids[i]);
    }
    return n;
}

static void *take_always(void *unused)
{
    while (!atomic_load_explicit(&stop, memory_order_relaxed))
        if (take_cleanups() == 0)
            sched_yield();
    return unused;
}

static void cleanups(void)
{
    collecting other;
    static void *held[OBJECTS];
    pa_frame frame;
    uint64_t random = (uint64_t)seed;
    size_t expected = 0;
    static uint8_t added[OBJECTS];
    pthread_t taker = start(take_always, NULL);
    start_collecting(&other);
    enter();
    pa_frame_push(&frame, held, OBJECTS);
    for (size_t i = 0; i < OBJECTS; i++) {
        held[i] = i % 100 == 0 ? must(pa_new_bytes(50000)) : new_node(type, i + 1);
        for (size_t k = random_below(&random, EACH + 1); k > 0; k--)
            REQUIRE(pa_cleanup_add(held[i], i * EACH + added[i]++) == 0);
        if (i >= 500 && i % 2) { /* some are dropped while others are made */
            atomic_store(&dropped[i - 500], true);
            held[i - 500] = NULL;
        }
    }
    for (size_t i = 0; i < OBJECTS; i++) {
        atomic_store(&dropped[i], true);
        held[i] = NULL;
        expected += added[i];
        if (i % 16 == 0)
            pa_safepoint();
    }
    pa_frame_pop(&frame);
    pa_leave();
    stop_collecting(&other);
    pa_gc();
    pa_gc();
    atomic_store(&stop, true);
    join(taker);
    while (take_cleanups() > 0) {
    }
    size_t got = 0;
    for (size_t i = 0; i < IDS; i++) {
        unsigned want = i % EACH < added[i / EACH];
        REQUIRE(atomic_load(&delivered[i]) == want, "id %zu: %u times", i, atomic_load(&delivered[i]));
        got += want;
    }
    REQUIRE(got == expected && expected > OBJECTS);
    pa_gc();
    REQUIRE(take_cleanups() == 0, "a cleanup came again");
}

/* ---- The notification: told when ids were queued, free to call back ---- */

static atomic_ulong told, taken_inside;

static void on_queued(void *argument)
{
    REQUIRE(argument == &told);
    uint64_t ids[8];
    pa_gc_stats s;
    pa_read_gc_stats(&s); /* no lock is held: anything may be called */
    pa_free(pa_malloc(100));
    atomic_fetch_add(&taken_inside, pa_cleanup_take(ids, 8));
    atomic_fetch_add(&told, 1);
}

static void make_garbage_with_cleanups(size_t n)
{
    enter();
    void *slots[1];
    pa_frame frame;
    pa_frame_push(&frame, slots, 1);
    for (size_t i = 0; i < n; i++) {
        slots[0] = new_node(type, i + 1);
        REQUIRE(pa_cleanup_add(slots[0], i) == 0);
    }
    pa_frame_pop(&frame);
    pa_leave();
}

static size_t take_rest(void)
{
    uint64_t ids[100];
    size_t n, sum = 0;
    while ((n = pa_cleanup_take(ids, 100)))
        sum += n;
    return sum;
}

static void notifications(void)
{
    pa_set_gc_percent(-1);
    REQUIRE(take_rest() == 0);
    uint64_t none;
    REQUIRE(pa_cleanup_take(&none, 0) == 0);
    pa_cleanup_on_queued(on_queued, &told);
    pa_gc();
    REQUIRE(atomic_load(&told) == 0, "told of nothing");
    make_garbage_with_cleanups(100);
    pa_gc();
    double end = seconds_now() + 20;
    while (atomic_load(&told) == 0) {
        REQUIRE(seconds_now() < end, "nobody was told");
        sched_yield();
    }
    REQUIRE(atomic_load(&taken_inside) >= 1);
    size_t sum = 0;
    while ((sum += take_rest()) + atomic_load(&taken_inside) < 100)
        REQUIRE(seconds_now() < end, "%zu and %lu of 100", sum, atomic_load(&taken_inside));
    pa_cleanup_on_queued(NULL, NULL);
    unsigned long before = atomic_load(&told);
    make_garbage_with_cleanups(100);
    pa_gc();
    pa_gc();
    REQUIRE(take_rest() == 100 && atomic_load(&told) == before);
}

int main(int argc, char **argv)
{
    const char *name = word_option(argc, argv, "case");
    REQUIRE(name, "which case?");
    seed = option(argc, argv, "seed", 1);
    set_mode((int)option(argc, argv, "mode", PA_GC_CONCURRENT));
    pa_gc_set_checkmark(true);
    type = node_type(1);
    if (strcmp(name, "basics") == 0)
        basics();
    else if (strcmp(name, "foreign") == 0)
        foreign_words();
    else if (strcmp(name, "handles") == 0)
        handles();
    else if (strcmp(name, "resurrect") == 0)
        resurrections((double)option(argc, argv, "tenths", 5) * 0.1);
    else if (strcmp(name, "frees") == 0)
        frees_while_sweeping((double)option(argc, argv, "tenths", 5) * 0.1);
    else if (strcmp(name, "cleanups") == 0)
        cleanups();
    else if (strcmp(name, "notify") == 0)
        notifications();
    else
        REQUIRE(false, "no such case");
    managed_heap_must_be_empty();
    printf("weak: %s, %s: %lu alive, %lu gone, %lu times told\n", name, mode_names[gc_stats().mode],
           atomic_load(&found_alive), atomic_load(&found_gone), atomic_load(&told));
    return 0;
}
