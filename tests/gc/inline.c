/* inline.c - pyalloc_inline.h does what its exported twins do.
 *
 *     inline case=same                       step by step: thread state, barrier buffer, what is stored
 *     inline case=new                        objects of all kinds of types, made by both forms in turn
 *     inline case=mixed [tenths=10] [mode=4] three threads use both forms at random while a fourth collects
 */
#include "gc_test.h"

#include "include/pyalloc_inline.h"
#include "world/proc.h"

enum { SLOTS = 64, MIXERS = 3 };

static const pa_type *type;
static void *shared[SLOTS]; /* a barriered range */
static atomic_bool stop;
static atomic_ulong done;

/* ---- Step by step ---- */

static void require_state(uint32_t depth)
{
    const pa_gcproc *g = pa_current_mcache->gc;
    const pa_inline_state *s = pa_inline_self();
    REQUIRE((const void *)s == (const void *)g);
    REQUIRE(g->depth == depth && s->depth == depth && g->inside == (depth > 0) && s->inside == (depth > 0));
    REQUIRE(pa_is_inside() == (depth > 0));
}

static void *never_entered(void *unused)
{
    REQUIRE(pa_inline_self()->depth == 0 && !pa_inline_self()->no_fence && !pa_inline_self()->stop);
    REQUIRE(pa_enter_inline()); /* the first time attaches the thread */
    require_state(1);
    pa_leave_inline();
    require_state(0);
    return unused;
}

static void same(void)
{
    REQUIRE(pa_abi_version() == PA_INLINE_ABI_VERSION);
    join(start(never_entered, NULL));
    for (int outer = 0; outer < 2; outer++)
        for (int inner = 0; inner < 2; inner++) {
            REQUIRE(outer ? pa_enter_inline() : pa_enter());
            require_state(1);
            REQUIRE(inner ? pa_enter_inline() : pa_enter());
            require_state(2);
            pa_safepoint_inline();
            outer ? pa_leave() : pa_leave_inline();
            require_state(1);
            inner ? pa_leave() : pa_leave_inline();
            require_state(0);
        }
    enter();
    void *slots[3];
    pa_frame frame;
    pa_frame_push(&frame, slots, 3);
    for (int i = 0; i < 3; i++)
        slots[i] = new_node(type, (uint64_t)i);
    pa_gcproc *g = pa_current_mcache->gc;
    for (int marking = PA_MARKING_OFF; marking <= PA_MARKING_INSERTION; marking++) {
        uint32_t shaded[2];
        uintptr_t first[2] = {0};
        for (int form = 0; form < 2; form++) {
            void **slot = ((node *)slots[0])->slots;
            pa_store(slot, slots[1]);
            g->marking = (uint8_t)marking; /* no cycle runs: what is shaded is thrown away below */
            (form ? pa_store_inline : pa_store)(slot, slots[2]);
            g->marking = PA_MARKING_OFF;
            shaded[form] = g->barrier_count;
            first[form] = g->barrier_count ? g->barrier[0] : 0;
            g->barrier_count = 0;
            REQUIRE(*slot == slots[2]);
            pa_store(slot, NULL);
        }
        REQUIRE(shaded[0] == shaded[1] && first[0] == first[1]);
        REQUIRE(shaded[1] == (marking == PA_MARKING_OFF ? 0 : marking == PA_MARKING_HYBRID ? 2 : 1));
    }
    pa_frame_pop(&frame);
    pa_leave();
}

/* ---- New objects ---- */

static uint64_t mallocs(void) { return gc_stats().mallocs; }

/* count objects by both forms in turn: all are zero, all are counted. */
static void make_both(const pa_type *t, size_t count)
{
    uint64_t before = mallocs();
    for (size_t i = 0; i < count; i++) {
        unsigned char *p = must((i % 3 ? pa_new_inline : pa_new)(t));
        require_zero(p, pa_type_bytes(t));
        memset(p, 0, pa_type_bytes(t));
        REQUIRE(pa_find_object(p) == p);
    }
    REQUIRE(mallocs() - before == count, "%" PRIu64 " of %zu", mallocs() - before, count);
}

/* Each form takes the slot behind the one that the other took. */
static void take_in_turn(const pa_type *t)
{
    size_t nbytes = pa_type_bytes(t);
    char *last = must(pa_new(t));
    size_t followed = 0, count = 1000;
    for (size_t i = 0; i < count; i++) {
        char *p = must((i & 1 ? pa_new : pa_new_inline)(t));
        followed += p == last + nbytes;
        last = p;
    }
    REQUIRE(followed > count * 9 / 10, "%zu", followed);
}

static void new_objects(void)
{
    static const size_t offsets[] = {0, 8, 512 + 8};
    enter();
    take_in_turn(pa_type_new(48, offsets, 2));
    make_both(type, 5000);
    const pa_type *same_class[2] = {pa_type_new(16, offsets, 1), pa_type_new(16, offsets, 2)};
    for (int i = 0; i < 2000; i++) /* their span's layout is neither's */
        make_both(same_class[i & 1], 1);
    make_both(pa_type_new(48, NULL, 0), 1000);          /* pointer-free */
    make_both(pa_type_new(1024, offsets, 3), 200);      /* no number */
    make_both(pa_type_new(40960, offsets, 3), 20);      /* large */
    pa_leave();
    pa_gc();
    check_heap();
}

/* ---- Together ---- */

static uint64_t next_random(uint64_t *state)
{
    return *state = *state * 6364136223846793005u + 1442695040888963407u;
}

static void *mixer(void *argument)
{
    uint64_t random = (uintptr_t)argument;
    unsigned long n = 0;
    for (; !atomic_load(&stop); n++) {
        uint64_t r = next_random(&random) >> 20;
        REQUIRE(r & 1 ? pa_enter_inline() : pa_enter());
        for (int i = 0; i < 20; i++) {
            void (*store)(void **, void *) = r >> i & 2 ? pa_store_inline : pa_store;
            void **to = &shared[next_random(&random) >> 40 & (SLOTS - 1)];
            void *moved = __atomic_load_n(&shared[next_random(&random) >> 40 & (SLOTS - 1)], __ATOMIC_ACQUIRE);
            if (moved) {
                met_as(moved, 7);
                store(to, moved);
            }
            if (i % 4 == 0) {
                node *fresh = must((i & 4 ? pa_new : pa_new_inline)(type)); /* polls: moved is gone */
                fresh->id = 7;
                fresh->check = check_of(7);
                store(to, fresh);
            }
            r & 4 ? pa_safepoint_inline() : pa_safepoint();
        }
        r & 8 ? pa_leave_inline() : pa_leave();
    }
    atomic_fetch_add(&done, n);
    return NULL;
}

static void mixed(int mode, double seconds)
{
    set_mode(mode);
    pa_gc_set_checkmark(true);
    pa_set_gc_percent(20);
    REQUIRE(pa_roots_add(shared, sizeof shared, PA_ROOTS_BARRIERED) == 0);
    pthread_t mixers[MIXERS];
    for (uintptr_t i = 0; i < MIXERS; i++)
        mixers[i] = start(mixer, (void *)(i + 1));
    double end = seconds_now() + seconds;
    while (seconds_now() < end)
        pa_gc();
    atomic_store(&stop, true);
    for (int i = 0; i < MIXERS; i++)
        join(mixers[i]);
    REQUIRE(atomic_load(&done) > 100 && gc_stats().cycles > 3);
    check_heap();
}

int main(int argc, char **argv)
{
    const char *name = word_option(argc, argv, "case");
    REQUIRE(name, "which case?");
    type = node_type(1);
    if (strcmp(name, "same") == 0)
        same();
    else if (strcmp(name, "new") == 0)
        new_objects();
    else
        mixed((int)option(argc, argv, "mode", PA_GC_CONCURRENT), (double)option(argc, argv, "tenths", 10) / 10);
    printf("inline: %s\n", name);
    return 0;
}
