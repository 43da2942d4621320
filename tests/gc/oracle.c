/* oracle.c - one thread, a random graph, known roots: exactly what can be reached is alive after a collection.
 *
 *     oracle [rounds=20] [seed=1] [mode=4] [things=400]
 *
 * Every thing has a weak handle.  After each pa_gc the graph is searched in the shadow; what it finds must answer at
 * its address, everything else must be gone, and the heap's books must agree to the byte and to the object.  Words
 * that look like pointers but are none (scalars of typed objects, pointer-free bytes) must keep nothing alive; words
 * of conservative objects and conservative ranges must.  Tiny things share blocks: a block lives as long as anything
 * in it, and may live one collection longer, because the block being filled is kept.
 */
#include "gc_test.h"

enum { THINGS_MAX = 4000, EDGES = 6, ROOTS = 24, NOBODY = -1, TYPES = 5 };

typedef enum kind { STRUCT, STRUCT_ARRAY, POINTERS, BYTES, CONSERVATIVE, TINY, LARGE_POINTERS, KINDS } kind;

typedef struct thing {
    char *address; /* NULL: free */
    kind kind;
    size_t nbytes;    /* asked for */
    uint32_t pattern; /* of BYTES */
    int edges[EDGES];
    pa_weak *weak;
    bool reached, gone_once;
    size_t counted_bytes;
} thing;

static thing things[THINGS_MAX];
static int count;
static int roots[ROOTS];
static void *framed[4], *barriered[4], *unbarriered[4], *conservative[4];
static pa_handle *handles[8];
static const pa_type *struct_type;

/* A typed struct: scalar, edge, scalar, edge, edge, scalar, edge, edge, edge: pointers at odd places. */
static const size_t edge_offsets[EDGES] = {8, 24, 32, 48, 56, 64};
enum { STRUCT_BYTES = 72, LARGE_COUNT = 20000 };

static void **edge_slot(const thing *t, int e)
{
    switch (t->kind) {
    case STRUCT:
        return (void **)(t->address + edge_offsets[e]);
    case STRUCT_ARRAY: /* spread over the elements */
        return (void **)(t->address + t->nbytes / STRUCT_BYTES * (size_t)e / EDGES * STRUCT_BYTES + edge_offsets[e]);
    case POINTERS:
        return (void **)t->address + e;
    case CONSERVATIVE:
        return (void **)t->address + e * 3;
    case LARGE_POINTERS: /* in different oblets; the last word, too */
        return (void **)t->address + (size_t)e * (LARGE_COUNT - 1) / (EDGES - 1);
    default:
        return NULL;
    }
}

static void *somewhere_in(const thing *t, uint64_t *random)
{
    switch (random_below(random, 4)) {
    case 0:
        return t->address + random_below(random, t->nbytes);
    case 1:
        return t->address + t->nbytes - 1;
    default:
        return t->address;
    }
}

/* Conservative words and precise slots may both hold interior pointers. */
static void link_things(thing *from, int e, int to, uint64_t *random)
{
    void **slot = edge_slot(from, e);
    if (!slot)
        return;
    void *p = to == NOBODY ? NULL : somewhere_in(&things[to], random);
    from->edges[e] = to;
    if (from->kind == CONSERVATIVE)
        *slot = p;
    else
        pa_store(slot, p);
}

static void set_root(int i, int to, uint64_t *random)
{
    void *p = to == NOBODY ? NULL : somewhere_in(&things[to], random);
    roots[i] = to;
    if (i < 4)
        framed[i] = p;
    else if (i < 8)
        pa_store(&barriered[i - 4], p);
    else if (i < 12)
        unbarriered[i - 8] = p;
    else if (i < 16)
        conservative[i - 12] = p ? p : (void *)(uintptr_t)(random_next(random) | (uint64_t)1 << 63);
    else
        pa_handle_set(handles[i - 16], p);
}

static void create(uint64_t *random)
{
    if (count == THINGS_MAX)
        return;
    thing t = {.kind = (kind)random_below(random, KINDS), .edges = {NOBODY, NOBODY, NOBODY, NOBODY, NOBODY, NOBODY}};
    if (t.kind == LARGE_POINTERS && random_below(random, 4))
        t.kind = POINTERS;
    switch (t.kind) {
    case STRUCT:
        t.nbytes = STRUCT_BYTES;
        t.address = pa_new(struct_type);
        break;
    case STRUCT_ARRAY: {
        size_t n = random_below(random, 40) ? EDGES + random_below(random, 30) : 700; /* > 32 KiB now and then */
        t.nbytes = n * STRUCT_BYTES;
        t.address = pa_new_array(struct_type, n);
        break;
    }
    case POINTERS: {
        size_t n = EDGES + random_below(random, 200);
        t.nbytes = n * sizeof(void *);
        t.address = pa_new_pointers(n);
        break;
    }
    case LARGE_POINTERS:
        t.nbytes = LARGE_COUNT * sizeof(void *);
        t.address = pa_new_pointers(LARGE_COUNT);
        break;
    case BYTES:
        t.nbytes = 16 + (random_below(random, 20) ? random_below(random, 2000) : random_below(random, 200000));
        t.address = pa_new_bytes(t.nbytes);
        break;
    case CONSERVATIVE:
        t.nbytes = EDGES * 3 * 8 + random_below(random, 1000);
        t.address = pa_new_conservative(t.nbytes);
        break;
    default:
        t.nbytes = random_below(random, 15) + 1;
        t.address = pa_new_bytes(t.nbytes);
        break;
    }
    must(t.address);
    require_zero(t.address, t.nbytes);
    t.pattern = (uint32_t)random_next(random);
    if (t.kind == TINY)
        pattern_fill(t.address, t.nbytes, t.pattern);
    /* Traps: addresses where no pointers are. */
    uintptr_t trap = count ? (uintptr_t)things[random_below(random, (size_t)count)].address : 0;
    if (t.kind == STRUCT)
        *(uintptr_t *)t.address = *(uintptr_t *)(t.address + 16) = *(uintptr_t *)(t.address + 40) = trap;
    if (t.kind == BYTES)
        for (size_t i = 0; i + 8 <= t.nbytes && i < 160; i += 8)
            memcpy(t.address + i, &trap, 8);
    REQUIRE((t.weak = pa_weak_new(t.address)), "errno %d", errno);
    things[count++] = t;
}

static void search(void)
{
    static int pending[THINGS_MAX];
    int n = 0;
    for (int i = 0; i < count; i++)
        things[i].reached = false;
    for (int r = 0; r < ROOTS; r++)
        if (roots[r] != NOBODY && !things[roots[r]].reached) {
            things[roots[r]].reached = true;
            pending[n++] = roots[r];
        }
    while (n) {
        thing *t = &things[pending[--n]];
        for (int e = 0; e < EDGES; e++)
            if (t->edges[e] != NOBODY && !things[t->edges[e]].reached) {
                things[t->edges[e]].reached = true;
                pending[n++] = t->edges[e];
            }
    }
}

static bool same_block(const thing *a, const thing *b)
{
    return ((uintptr_t)a->address ^ (uintptr_t)b->address) < 16 && a->kind == TINY && b->kind == TINY;
}

static bool shares_with_reached(const thing *t)
{
    for (int i = 0; i < count; i++)
        if (things[i].reached && same_block(&things[i], t))
            return true;
    return false;
}

/* Returns how many things remained that will be gone after one more collection. */
static void check_thing(thing *t)
{
    void *found = pa_find_object(t->address), *weak = pa_weak_get(t->weak);
    if (t->reached) {
        REQUIRE(t->kind == TINY ? found == (void *)((uintptr_t)t->address & ~(uintptr_t)15) : found == t->address,
                "%p (kind %d) is in %p", (void *)t->address, t->kind, found);
        REQUIRE(weak == t->address, "weak: %p, not %p", weak, (void *)t->address);
        REQUIRE(pa_find_object(t->address + t->nbytes - 1) == found);
        REQUIRE(pa_object_bytes(found) >= t->nbytes);
        if (t->kind == TINY)
            pattern_verify(t->address, t->nbytes, t->nbytes, t->pattern);
    } else if (t->kind == TINY && (shares_with_reached(t) || !t->gone_once)) {
        t->gone_once = true;
    } else {
        REQUIRE(found == NULL, "%p (kind %d, %zu bytes) cannot be reached and is in %p", (void *)t->address, t->kind,
                t->nbytes, found);
        REQUIRE(weak == NULL, "weak of %p: %p", (void *)t->address, weak);
    }
}

static void collect_and_check(void)
{
    static pa_gc_stats before;
    before = gc_stats();
    pa_gc();
    search();
    uint64_t alive_bytes = 0;
    bool tiny_in_doubt = false;
    for (int i = 0; i < count; i++) {
        thing *t = &things[i];
        check_thing(t);
        for (int e = 0; e < EDGES && t->reached; e++) {
            char *p = edge_slot(t, e) ? *edge_slot(t, e) : NULL;
            const thing *to = t->edges[e] == NOBODY ? NULL : &things[t->edges[e]];
            REQUIRE(to ? p >= to->address && p < to->address + to->nbytes : p == NULL);
        }
        if (t->reached && t->kind != TINY)
            alive_bytes += pa_object_bytes(t->address);
        tiny_in_doubt |= t->kind == TINY && !t->reached && pa_find_object(t->address) != NULL;
    }
    for (int i = 0; i < count; i++) { /* a tiny block once: for the first of it that is reached */
        thing *t = &things[i];
        if (t->kind != TINY || !t->reached)
            continue;
        bool first = true;
        for (int j = 0; j < i; j++)
            first = first && !(things[j].reached && same_block(&things[j], t));
        alive_bytes += first ? 16 : 0;
    }
    pa_gc_stats s = gc_stats();
    REQUIRE(s.cycles > before.cycles && s.forced_cycles == before.forced_cycles + 1);
    if (!tiny_in_doubt)
        REQUIRE(s.heap_marked_bytes == alive_bytes, "%" PRIu64 " bytes marked, %" PRIu64 " alive", s.heap_marked_bytes,
                alive_bytes);
    REQUIRE(s.heap_live_bytes == s.heap_marked_bytes, "%" PRIu64 " live %" PRIu64 " marked, nothing allocated since",
            s.heap_live_bytes, s.heap_marked_bytes);
}

/* Things that were found gone leave the shadow. */
static void forget(void)
{
    int kept = 0;
    static int moved_to[THINGS_MAX];
    for (int i = 0; i < count; i++) {
        if (!things[i].reached && pa_find_object(things[i].address) == NULL) {
            pa_weak_free(things[i].weak);
            moved_to[i] = NOBODY;
        } else {
            moved_to[i] = kept;
            things[kept++] = things[i];
        }
    }
    count = kept;
    for (int i = 0; i < count; i++)
        for (int e = 0; e < EDGES; e++)
            if (things[i].edges[e] != NOBODY)
                things[i].edges[e] = moved_to[things[i].edges[e]];
    for (int r = 0; r < ROOTS; r++)
        if (roots[r] != NOBODY)
            roots[r] = moved_to[roots[r]];
}

/* Unreachable things must not be linked to or from: in a C program nobody could. */
static int pick_reached(uint64_t *random)
{
    for (int tries = 0; tries < 50 && count; tries++) {
        int i = (int)random_below(random, (size_t)count);
        if (things[i].reached)
            return i;
    }
    return NOBODY;
}

int main(int argc, char **argv)
{
    long rounds = option(argc, argv, "rounds", 20), per_round = option(argc, argv, "things", 400);
    uint64_t random = (uint64_t)option(argc, argv, "seed", 1);
    set_mode((int)option(argc, argv, "mode", PA_GC_CONCURRENT));
    pa_gc_set_checkmark(true);
    REQUIRE((struct_type = pa_type_new(STRUCT_BYTES, edge_offsets, EDGES)));
    REQUIRE(pa_roots_add(barriered, sizeof barriered, PA_ROOTS_BARRIERED) == 0);
    REQUIRE(pa_roots_add(unbarriered, sizeof unbarriered, PA_ROOTS_UNBARRIERED) == 0);
    REQUIRE(pa_roots_add(conservative, sizeof conservative, PA_ROOTS_CONSERVATIVE) == 0);
    for (int r = 0; r < ROOTS; r++)
        roots[r] = NOBODY;
    pa_set_gc_percent(-1); /* pa_gc alone collects, so that what is new and not yet linked stays */
    enter();
    pa_frame frame;
    pa_frame_push(&frame, framed, 4);
    for (int i = 0; i < 8; i++)
        REQUIRE((handles[i] = pa_handle_new(NULL)));
    uint64_t created = 0, freed = 0;
    for (long round = 0; round < rounds; round++) {
        int old = count;
        for (long i = 0; i < per_round; i++)
            create(&random);
        created += (uint64_t)(count - old);
        for (int i = old; i < count; i++)
            things[i].reached = true; /* until the collection: usable */
        for (long i = 0; i < per_round * 2; i++) {
            int from = pick_reached(&random), to = random_below(&random, 4) ? pick_reached(&random) : NOBODY;
            if (from != NOBODY)
                link_things(&things[from], (int)random_below(&random, EDGES), to, &random);
        }
        for (int i = 0; i < 10; i++)
            set_root((int)random_below(&random, ROOTS), random_below(&random, 4) ? pick_reached(&random) : NOBODY,
                     &random);
        collect_and_check();
        collect_and_check();
        check_heap();
        int held = count;
        forget();
        freed += (uint64_t)(held - count);
    }
    REQUIRE(freed > created / 4 && freed < created, "%" PRIu64 " of %" PRIu64 " freed: no graph to speak of", freed,
            created);
    for (int r = 0; r < ROOTS; r++)
        set_root(r, NOBODY, &random);
    memset(conservative, 0, sizeof conservative);
    collect_and_check();
    collect_and_check();
    forget();
    REQUIRE(count == 0, "%d things are left without roots", count);
    for (int i = 0; i < 8; i++)
        pa_handle_free(handles[i]);
    pa_frame_pop(&frame);
    pa_leave();
    managed_heap_must_be_empty();
    printf("oracle: %s: %" PRIu64 " things, %" PRIu64 " freed before the end, %" PRIu64 " cycles\n",
           mode_names[gc_stats().mode], created, freed, gc_stats().cycles);
    return 0;
}
