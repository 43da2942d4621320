/* litmus.c - each way to lose an object, done over and over while a collection marks.
 *
 *     litmus case=NAME [mode=4] [seconds=0.5 in tenths: tenths=5] [ballast=20000] [seed=1] [point=YIELD_POINT]
 *     litmus list | points
 *
 * A case owns a few objects and moves them so that at every moment exactly one place leads to each; the places
 * differ in what the collector has already seen.  Another thread collects without pause over a ballast, a list that
 * keeps marking busy, threaded between the case's own holders so that some are scanned early and some late.  Every
 * object met must know itself, checkmark is on, and after the last collection everything must be in its place.
 *
 * White-box builds: with point=, the first thread that comes to that yield point in a cycle is held there while the
 * case makes STEPS_AT_POINT steps, or until the case cannot go on because it is waiting for a stop.
 */
#include "gc_test.h"

#include "litmus_hold.h"
#include "litmus_holders.h"

/* ---- Cases: one step each; the loop around polls ---- */

/* Between scanned and unscanned objects, in both directions. */
static void step_move(void)
{
    size_t a = full_holder(), b = empty_holder();
    node *p = in_holder(a);
    put_in_holder(b, p, p->id);
    clear_holder(a);
}

/* The same with objects from a span that was empty when marking had begun, in the cycles that follow: the barrier
 * need not shade them in the first of those, and has to in all others. */
static void step_built(void)
{
    enum { OFTEN = 5000, A_SPAN_AND_MORE = 2000 };
    static unsigned steps;
    if (steps++ % OFTEN == 0) {
        for (int i = 0; i < A_SPAN_AND_MORE; i++)
            new_node(victim_type, take_id());
        for (size_t i = 0; i < HOLDERS; i++)
            if (expected[i])
                fill(i);
    }
    step_move();
}

/* Out of the heap into a frame that may have been scanned, deleted behind it, and back much later. */
static void step_delete(void)
{
    static uint64_t held;
    if (!framed[2]) {
        size_t a = full_holder();
        framed[2] = in_holder(a);
        held = expected[a];
        clear_holder(a);
    } else if (whole(framed[2], held) && below(8) == 0) {
        put_in_holder(empty_holder(), framed[2], held);
        framed[2] = NULL;
    }
}

/* Into an object allocated while marking, black from birth; that object's only root is the frame. */
static void step_store_into_black(void)
{
    static uint64_t held;
    if (framed[3]) {
        node *p = whole(load(&((node *)framed[3])->slots[0]), held);
        if (below(4))
            return;
        put_in_holder(empty_holder(), p, held);
        framed[3] = NULL;
    }
    framed[3] = new_node(holder_type, take_id());
    size_t a = full_holder();
    held = expected[a];
    pa_store(&((node *)framed[3])->slots[0], in_holder(a));
    clear_holder(a);
}

/* An array rotated by overlapping copies, in both directions; holder 1 keeps the array. */
enum { ARRAY = 48 };
static uint64_t in_array[ARRAY];

static void fill_array(void)
{
    framed[4] = must(pa_new_pointers(ARRAY));
    pa_store(&holders[1]->slots[1], framed[4]);
    for (size_t i = 0; i < ARRAY; i++) {
        fill(0);
        in_array[i] = expected[0];
        pa_store((void **)framed[4] + i, load(&holders[0]->slots[0]));
    }
    clear_holder(0);
    framed[4] = NULL;
}

static void step_copy(void)
{
    void **array = load(&holders[1]->slots[1]), *end[ARRAY];
    uint64_t ids[ARRAY];
    size_t k = below(ARRAY - 1) + 1, rest = ARRAY - k;
    for (size_t i = 0; i < ARRAY; i++)
        whole(load(&array[i]), in_array[i]);
    if (below(2)) { /* to the left: the first k are kept in plain locals, no poll in between */
        memcpy(end, array, k * sizeof *end);
        memcpy(ids, in_array, k * sizeof *ids);
        pa_store_range(array, array + k, rest);
        pa_store_range(array + rest, end, k);
        memmove(in_array, in_array + k, rest * sizeof *ids);
        memcpy(in_array + rest, ids, k * sizeof *ids);
    } else {
        memcpy(end, array + rest, k * sizeof *end);
        memcpy(ids, in_array + rest, k * sizeof *ids);
        pa_store_range(array + k, array, rest);
        pa_store_range(array, end, k);
        memmove(in_array + k, in_array, rest * sizeof *ids);
        memcpy(in_array, ids, k * sizeof *ids);
    }
}

/* A whole array cleared while a frame alone keeps what was in it. */
static void *taken[ARRAY]; /* a frame */
static pa_frame taken_frame;

static void begin_clear(void)
{
    fill_array();
    pa_frame_push(&taken_frame, taken, ARRAY);
}

static void step_clear(void)
{
    void **array = load(&holders[1]->slots[1]);
    if (!taken[0]) {
        for (size_t i = 0; i < ARRAY; i++)
            taken[i] = whole(load(&array[i]), in_array[i]);
        pa_clear_range(array, ARRAY);
        for (size_t i = 0; i < ARRAY; i++)
            REQUIRE(load(&array[i]) == NULL);
    } else {
        for (size_t i = 0; i < ARRAY; i++)
            whole(taken[i], in_array[i]);
        if (below(4))
            return;
        pa_store_range(array, taken, ARRAY);
        memset(taken, 0, sizeof taken);
    }
}

static void end_clear(void) { pa_frame_pop(&taken_frame); }

/* Through a handle: set over, freed, made new; the frame keeps what the handle held. */
static pa_handle *handle;

static void step_handle(void)
{
    static uint64_t held;
    if (!handle) {
        size_t a = full_holder();
        held = expected[a];
        REQUIRE((handle = pa_handle_new(in_holder(a))));
        clear_holder(a);
        return;
    }
    framed[5] = whole(pa_handle_get(handle), held);
    switch (below(3)) {
    case 0:
        put_in_holder(empty_holder(), framed[5], held);
        pa_handle_free(handle);
        handle = NULL;
        framed[5] = NULL;
        break;
    case 1:
        pa_handle_set(handle, NULL);
        REQUIRE(pa_handle_get(handle) == NULL);
        for (int i = 0; i < 3; i++)
            pa_safepoint();
        pa_handle_set(handle, whole(framed[5], held));
        framed[5] = NULL;
        break;
    default:
        framed[5] = NULL;
        break;
    }
}

static void end_handle(void)
{
    pa_handle_free(handle);
    handle = NULL;
}

/* Made strong again from a weak handle just when the last strong place was cleared. */
static void step_weak(void)
{
    static pa_weak *weak;
    static uint64_t held;
    if (!weak) {
        size_t a = full_holder();
        held = expected[a];
        node *p = in_holder(a);
        weak = pa_weak_new(p);
        REQUIRE(weak, "errno %d for a live object, %s", errno,
                pa_find_object(p) ? "which is found a moment later" : "which cannot be found: it was freed");
        clear_holder(a);
        for (size_t polls = below(4); polls; polls--)
            pa_safepoint();
    } else {
        node *p = pa_weak_get(weak);
        size_t to = empty_holder();
        if (p) {
            whole(p, held);
            framed[6] = p;
            pa_safepoint();
            put_in_holder(to, whole(framed[6], held), held);
            framed[6] = NULL;
        } else {
            fill(to); /* it was found unreachable: fair */
        }
        pa_weak_free(weak);
        weak = NULL;
    }
}

/* Through ranges that know no barrier: read, dropped behind the collector's back, stored into anything. */
static void *plain[8], *words[8];
static uint64_t in_plain[8], in_words[8];

static void begin_unbarriered(void)
{
    fill_half();
    REQUIRE(pa_roots_add(plain, sizeof plain, PA_ROOTS_UNBARRIERED) == 0);
    REQUIRE(pa_roots_add(words, sizeof words, PA_ROOTS_CONSERVATIVE) == 0);
}

static void toggle_plain(void **slot, uint64_t *id)
{
    if (*id) {
        node *p = whole(pa_load_unbarriered(slot), *id);
        store_plainly(slot, NULL);
        put_in_holder(empty_holder(), p, *id);
        *id = 0;
    } else {
        size_t a = full_holder();
        *id = expected[a];
        store_plainly(slot, in_holder(a));
        clear_holder(a);
    }
}

static void step_unbarriered(void)
{
    size_t i = below(8);
    if (below(2))
        toggle_plain(&plain[i], &in_plain[i]);
    else
        toggle_plain(&words[i], &in_words[i]);
}

static void end_unbarriered(void) { REQUIRE(pa_roots_remove(plain) == 0 && pa_roots_remove(words) == 0); }

/* The same with a conservative object, kept by holder 1. */
static void begin_conservative(void)
{
    fill_half();
    void *p = must(pa_new_conservative(20 * sizeof(void *)));
    pa_store(&holders[1]->slots[1], p);
}

static void step_conservative(void)
{
    size_t i = below(8);
    toggle_plain((void **)load(&holders[1]->slots[1]) + i * 2 + 1, &in_plain[i]);
}

/* A range with the only pointer inside, registered and removed while marking. */
static void step_register(void)
{
    static void *range[512];
    static uint64_t held;
    if (!held) {
        size_t a = full_holder();
        held = expected[a];
        framed[7] = in_holder(a);
        clear_holder(a);
        pa_safepoint();
        int flags = (int[]){PA_ROOTS_BARRIERED, PA_ROOTS_UNBARRIERED, PA_ROOTS_CONSERVATIVE}[below(3)];
        range[300] = framed[7];
        REQUIRE(pa_roots_add(range, sizeof range, flags) == 0);
        framed[7] = NULL;
    } else {
        node *p = whole(pa_load_unbarriered(&range[300]), held);
        if (below(3))
            return;
        framed[7] = p;
        REQUIRE(pa_roots_remove(range) == 0);
        range[300] = NULL;
        pa_safepoint();
        put_in_holder(empty_holder(), whole(framed[7], held), held);
        framed[7] = NULL;
        held = 0;
    }
}

/* A new thread takes the only place over: it attaches in the middle of marking. */
static void *take_over(void *argument)
{
    size_t a = ((size_t *)argument)[0], b = ((size_t *)argument)[1];
    void *slots[1];
    pa_frame frame;
    enter();
    pa_frame_push(&frame, slots, 1);
    slots[0] = in_holder(a);
    pa_store(&holders[a]->slots[0], NULL);
    for (int i = 0; i < 20; i++) {
        pa_safepoint();
        whole(slots[0], expected[a]);
        if (i % 7 == 0) { /* outside, with the frame alone */
            pa_leave();
            enter();
        }
    }
    pa_store(&holders[b]->slots[0], slots[0]);
    pa_frame_pop(&frame);
    pa_leave();
    return NULL;
}

static void step_new_thread(void)
{
    size_t places[2] = {full_holder(), empty_holder()};
    pa_leave(); /* joining blocks */
    join(start(take_over, places));
    enter();
    expected[places[1]] = expected[places[0]];
    expected[places[0]] = 0;
}

/* Two threads pass objects to each other through two slots: the old place is cleared by one while the other, whose
 * frame was scanned, has just stored what it read. */
static atomic_bool partner_stops;

static void *partner(void *unused)
{
    void *slots[1];
    pa_frame frame;
    uint64_t random = 77;
    enter();
    pa_frame_push(&frame, slots, 1);
    while (!atomic_load_explicit(&partner_stops, memory_order_relaxed)) {
        for (int i = 0; i < 50; i++) {
            void **from = &holders[random_below(&random, HOLDERS)]->slots[1],
                 **to = &holders[random_below(&random, HOLDERS)]->slots[1];
            slots[0] = load(from);
            if (slots[0])
                met(slots[0]);
            pa_store(to, slots[0]); /* racing with the other's */
            if (i % 3 == 0)
                pa_safepoint();
            if (slots[0])
                met(met(slots[0])->slots[0]);
        }
        pa_leave();
        enter();
    }
    pa_frame_pop(&frame);
    pa_leave();
    return unused;
}

static pthread_t partner_id;

static void begin_race(void)
{
    fill_half();
    atomic_store(&partner_stops, false);
    partner_id = start(partner, NULL);
}

static void step_race(void)
{
    size_t i = below(HOLDERS), j = below(HOLDERS);
    switch (below(4)) {
    case 0:
        fill(j);
        pa_store(&holders[i]->slots[1], load(&holders[j]->slots[0]));
        clear_holder(j);
        break;
    case 1:
        pa_store(&holders[i]->slots[1], NULL);
        break;
    default:
        framed[2] = load(&holders[i]->slots[1]);
        pa_store(&holders[i]->slots[1], load(&holders[j]->slots[1]));
        pa_safepoint();
        if (framed[2])
            met(met(framed[2])->slots[0]);
        pa_store(&holders[j]->slots[1], framed[2]);
        framed[2] = NULL;
        break;
    }
}

static void end_race(void)
{
    atomic_store(&partner_stops, true);
    pa_leave();
    join(partner_id);
    enter();
}

/* Between the slots of one frame, and between frames, while the owner goes in and out. */
static void *wide[300];
static pa_frame wide_frame;

static void begin_frames(void)
{
    fill_half();
    pa_frame_push(&wide_frame, wide, 300);
    wide[0] = in_holder(0);
    clear_holder(0);
}

static void step_frames(void)
{
    static size_t at;
    static uint64_t id;
    size_t to = below(3) ? below(300) : 299 * below(2);
    id = id ? id : met(wide[0])->id;
    whole(wide[at], id);
    if (to != at) { /* plain moves: the owner is inside and does not poll */
        wide[to] = wide[at];
        wide[at] = NULL;
        at = to;
    }
    if (below(16) == 0) { /* into a frame above and back */
        void *above[1];
        pa_frame frame;
        pa_frame_push(&frame, above, 1);
        above[0] = wide[at];
        wide[at] = NULL;
        pa_safepoint();
        wide[at] = whole(above[0], id);
        pa_frame_pop(&frame);
    }
    pa_leave();
    enter();
}

static void end_frames(void) { pa_frame_pop(&wide_frame); }

/* Live objects are found, and take weak handles and cleanups, whatever the sweeper is doing to their span. */
static void step_find(void)
{
    size_t i = full_holder();
    node *p = in_holder(i);
    REQUIRE(pa_find_object(&p->slots[0]) == p && pa_object_bytes(p) >= sizeof(node) + 8, "a live object is not found");
    pa_weak *weak = pa_weak_new(p);
    REQUIRE(weak && pa_weak_get(weak) == p, "errno %d", errno);
    pa_weak_free(weak);
    if (below(50) == 0) {
        clear_holder(i);
        fill(i); /* so that spans have something to be swept */
        for (int k = 0; k < 100; k++)
            new_node(victim_type, 1);
    }
}

/* Conservative words that point at slots which are free now and handed out a moment later: a slot that is not yet
 * zeroed and has no layout of its own yet must not be scanned, since it is full of pointers to what is dead
 * (Go: freeIndexForScan, issue 54596). */
enum { JUNK = 4000, BIG = 1024 };

static void begin_junk(void)
{
    fill_half();
    void *p = must(pa_new_conservative(JUNK * sizeof(void *)));
    pa_store(&holders[1]->slots[1], p);
}

static void step_junk(void)
{
    void **junk = load(&holders[1]->slots[1]);
    framed[2] = must(pa_new_pointers(BIG));
    for (size_t i = 0; i < BIG; i += 8) {
        framed[4] = must(pa_new_pointers(1 + below(6)));
        if (framed[3])
            pa_store(framed[4], framed[3]);
        pa_store((void **)framed[2] + i, framed[4]);
    }
    uintptr_t near = (uintptr_t)framed[2] & ~(uintptr_t)0xffff, small = (uintptr_t)framed[4] & ~(uintptr_t)8191;
    for (int i = 0; i < 40; i++) {
        store_plainly(&junk[below(JUNK)], (void *)(near + below(1 << 17) + 1));
        store_plainly(&junk[below(JUNK)], (void *)(small + below(1 << 14) + 1));
    }
    for (size_t i = 0; i < BIG; i += 8)
        REQUIRE(pa_find_object(((void **)framed[2])[i]) == ((void **)framed[2])[i]);
    framed[3] = below(4) ? framed[2] : NULL;
    framed[2] = framed[4] = NULL;
}

typedef struct litmus {
    const char *name;
    void (*begin)(void), (*step)(void), (*end)(void);
} litmus;

static const litmus cases[] = {
    {"move", fill_half, step_move, NULL},
    {"built", fill_half, step_built, NULL},
    {"delete", fill_half, step_delete, NULL},
    {"store_into_black", fill_half, step_store_into_black, NULL},
    {"copy", fill_array, step_copy, NULL},
    {"clear", begin_clear, step_clear, end_clear},
    {"handle", fill_half, step_handle, end_handle},
    {"weak", fill_half, step_weak, NULL},
    {"unbarriered", begin_unbarriered, step_unbarriered, end_unbarriered},
    {"conservative", begin_conservative, step_conservative, NULL},
    {"register", fill_half, step_register, NULL},
    {"new_thread", fill_half, step_new_thread, NULL},
    {"race", begin_race, step_race, end_race},
    {"frames", begin_frames, step_frames, end_frames},
    {"find", fill_half, step_find, NULL},
    {"junk", begin_junk, step_junk, NULL},
};
enum { CASES = sizeof cases / sizeof *cases };

static const litmus *case_named(const char *name)
{
    for (size_t i = 0; name && i < CASES; i++)
        if (strcmp(cases[i].name, name) == 0)
            return &cases[i];
    fprintf(stderr, "no such case\n");
    exit(2);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "list") == 0) {
        for (size_t i = 0; i < CASES; i++)
            puts(cases[i].name);
        return 0;
    }
    if (argc > 1 && strcmp(argv[1], "points") == 0)
        return hold_list_points();
    const litmus *l = case_named(word_option(argc, argv, "case"));
    random_state = (uint64_t)option(argc, argv, "seed", 1);
    set_mode((int)option(argc, argv, "mode", PA_GC_CONCURRENT));
    pa_gc_set_checkmark(true);
    holder_type = node_type(2);
    victim_type = node_type(1);
    link_type = node_type(2);
    enter();
    pa_frame frame;
    pa_frame_push(&frame, framed, FRAMED);
    make_ballast(option(argc, argv, "ballast", 20000));
    l->begin();

    collecting other;
    hold_at(word_option(argc, argv, "point"));
    pa_leave();
    start_collecting(&other);
    enter();
    uint64_t first_cycle = gc_stats().cycles;
    double end = seconds_now() + (double)option(argc, argv, "tenths", 5) * 0.1, last = end + 60;
    unsigned long steps = 0;
    /* At least so many cycles, however slow the build; a point that this case does not meet is not waited for. */
    while (seconds_now() < end || gc_stats().cycles < first_cycle + 3 || (!hold_done() && seconds_now() < end + 2)) {
        REQUIRE(seconds_now() < last, "%lu steps, %" PRIu64 " cycles in a minute", steps,
                gc_stats().cycles - first_cycle);
        for (int i = 0; i < 100; i++) {
            l->step();
            hold_step();
            steps++;
            if (i % 8 == 0)
                pa_safepoint();
        }
    }
    hold_release();
    pa_leave();
    stop_collecting(&other);
    enter();
    uint64_t cycles = gc_stats().cycles - first_cycle; /* by that thread and by the pacer */
    for (size_t i = 0; i < HOLDERS; i++)
        if (expected[i])
            in_holder(i);
    if (l->end)
        l->end();
    pa_handle_free(ballast);
    pa_frame_pop(&frame);
    pa_leave();
    if (strcmp(l->name, "weak") != 0 && strcmp(l->name, "register") != 0) /* they may end half-way */
        managed_heap_must_be_empty();
    printf("litmus: %s, %s: %lu steps in %" PRIu64 " cycles%s\n", l->name, mode_names[gc_stats().mode], steps,
           cycles, hold_report());
    return 0;
}
