/* shadow.h - a graph that one thread owns, and its shadow outside of the managed heap: for mutator.c.
 *
 * The shadow says for each node its address, its id and where its slots lead, and which nodes the roots hold.  Roots
 * are of every kind: frame, handles, barriered, unbarriered and conservative ranges.  Addresses in the shadow lie in
 * libc's memory, where no collector looks.
 */
#ifndef PA_GC_SHADOW_H
#define PA_GC_SHADOW_H

#include "gc_test.h"

enum { NODES = 96, EDGES = 4, EACH = 3, ROOT_KINDS = 5, ROOTS = EACH * ROOT_KINDS, NOBODY = -1 };

typedef struct shadow_node {
    node *address; /* NULL: free */
    uint64_t id;
    int edges[EDGES];
} shadow_node;

typedef struct shadow {
    shadow_node nodes[NODES];
    int roots[ROOTS];
    /* The real roots, by kind. */
    void *framed[EACH];
    pa_frame frame;
    pa_handle *handles[EACH];
    void *barriered[EACH], *unbarriered[EACH], *conservative[EACH];
    const pa_type *type;
    uint64_t next_id;
} shadow;

static void shadow_open(shadow *s, uint64_t seed)
{
    memset(s, 0, sizeof *s);
    s->type = node_type(EDGES);
    s->next_id = seed << 32 | 1;
    for (int i = 0; i < ROOTS; i++)
        s->roots[i] = NOBODY;
    enter();
    pa_frame_push(&s->frame, s->framed, EACH); /* stays pushed while outside */
    for (int i = 0; i < EACH; i++)
        REQUIRE((s->handles[i] = pa_handle_new(NULL)));
    pa_leave();
    REQUIRE(pa_roots_add(s->barriered, sizeof s->barriered, PA_ROOTS_BARRIERED) == 0);
    REQUIRE(pa_roots_add(s->unbarriered, sizeof s->unbarriered, PA_ROOTS_UNBARRIERED) == 0);
    REQUIRE(pa_roots_add(s->conservative, sizeof s->conservative, PA_ROOTS_CONSERVATIVE) == 0);
}

static void shadow_close(shadow *s)
{
    for (int i = 0; i < EACH; i++)
        pa_handle_free(s->handles[i]);
    REQUIRE(pa_roots_remove(s->barriered) == 0 && pa_roots_remove(s->unbarriered) == 0);
    REQUIRE(pa_roots_remove(s->conservative) == 0);
    pa_frame_pop(&s->frame);
}

static void *shadow_load_root(shadow *s, int root)
{
    int i = root % EACH;
    switch (root / EACH) {
    case 0:
        return s->framed[i];
    case 1:
        return pa_handle_get(s->handles[i]);
    case 2:
        return load(&s->barriered[i]);
    case 3:
        return pa_load_unbarriered(&s->unbarriered[i]);
    default: {
        void *word = pa_load_unbarriered(&s->conservative[i]);
        return (uintptr_t)word & 1 ? NULL : word;
    }
    }
}

static void shadow_store_root(shadow *s, int root, int n, uint64_t *random)
{
    void *p = n == NOBODY ? NULL : s->nodes[n].address;
    int i = root % EACH;
    s->roots[root] = n;
    switch (root / EACH) {
    case 0:
        s->framed[i] = p;
        break;
    case 1:
        pa_handle_set(s->handles[i], p);
        break;
    case 2:
        pa_store(&s->barriered[i], p);
        break;
    case 3:
        store_plainly(&s->unbarriered[i], p);
        break;
    default:
        store_plainly(&s->conservative[i], p ? p : (void *)(uintptr_t)(random_next(random) | 1));
        break;
    }
}

/* Bits of the nodes that roots lead to. */
static void shadow_reach(const shadow *s, bool reached[NODES])
{
    int pending[NODES], n = 0;
    memset(reached, 0, NODES);
    for (int i = 0; i < ROOTS; i++)
        if (s->roots[i] != NOBODY && !reached[s->roots[i]]) {
            reached[s->roots[i]] = true;
            pending[n++] = s->roots[i];
        }
    while (n) {
        const int *edges = s->nodes[pending[--n]].edges;
        for (int e = 0; e < EDGES; e++)
            if (edges[e] != NOBODY && !reached[edges[e]]) {
                reached[edges[e]] = true;
                pending[n++] = edges[e];
            }
    }
}

/* Everything the shadow can reach is there; the rest is forgotten. */
static void shadow_verify(shadow *s)
{
    bool reached[NODES];
    shadow_reach(s, reached);
    for (int i = 0; i < ROOTS; i++) {
        void *expected = s->roots[i] == NOBODY ? NULL : s->nodes[s->roots[i]].address;
        REQUIRE(shadow_load_root(s, i) == expected, "root %d", i);
    }
    for (int n = 0; n < NODES; n++) {
        shadow_node *known = &s->nodes[n];
        if (!reached[n]) {
            known->address = NULL;
            continue;
        }
        met_as(known->address, known->id);
        REQUIRE(pa_find_object((char *)known->address + 8 + n % 5 * 8) == known->address);
        for (int e = 0; e < EDGES; e++) {
            void *expected = known->edges[e] == NOBODY ? NULL : s->nodes[known->edges[e]].address;
            REQUIRE(load(&known->address->slots[e]) == expected, "node %d edge %d: %p, not %p", n, e,
                    load(&known->address->slots[e]), expected);
        }
    }
}

/* A node that roots lead to, or NOBODY. */
static int shadow_pick(const shadow *s, uint64_t *random)
{
    int n = s->roots[random_below(random, ROOTS)];
    for (size_t steps = random_below(random, 8); n != NOBODY && steps; steps--) {
        int next = s->nodes[n].edges[random_below(random, EDGES)];
        if (next != NOBODY)
            n = next;
    }
    return n;
}

static void shadow_link(shadow *s, int from, int edge, int to)
{
    s->nodes[from].edges[edge] = to;
    pa_store(&s->nodes[from].address->slots[edge], to == NOBODY ? NULL : s->nodes[to].address);
}

static void shadow_create(shadow *s, uint64_t *random)
{
    int n = 0;
    while (n < NODES && s->nodes[n].address)
        n++;
    if (n == NODES) {
        shadow_verify(s); /* forgets what cannot be reached */
        return;
    }
    node *made = new_node(s->type, s->next_id++); /* polls: before the shadow changes */
    s->nodes[n] = (shadow_node){made, made->id, {NOBODY, NOBODY, NOBODY, NOBODY}};
    int from = shadow_pick(s, random);
    if (from == NOBODY || random_below(random, 8) == 0)
        shadow_store_root(s, (int)random_below(random, ROOTS), n, random);
    else
        shadow_link(s, from, (int)random_below(random, EDGES), n);
}

/* One random change, with everything it touches met on the way. */
static void shadow_change(shadow *s, uint64_t *random)
{
    int a = shadow_pick(s, random), b = shadow_pick(s, random), e = (int)random_below(random, EDGES);
    switch (random_below(random, 8)) {
    case 0:
    case 1:
    case 2:
        shadow_create(s, random);
        break;
    case 3:
        if (a != NOBODY)
            shadow_link(s, a, e, b);
        break;
    case 4: /* move: out of a's slot, into b's, gone from a's */
        if (a != NOBODY && b != NOBODY && s->nodes[a].edges[e] != NOBODY) {
            int moved = s->nodes[a].edges[e];
            node *p = met_as(load(&s->nodes[a].address->slots[e]), s->nodes[moved].id);
            REQUIRE(p == s->nodes[moved].address);
            shadow_link(s, b, (int)random_below(random, EDGES), moved);
            shadow_link(s, a, e, NOBODY);
        }
        break;
    case 5: /* the same through a root */
        if (a != NOBODY && s->nodes[a].edges[e] != NOBODY) {
            int moved = s->nodes[a].edges[e];
            met_as(load(&s->nodes[a].address->slots[e]), s->nodes[moved].id);
            shadow_link(s, a, e, NOBODY);
            shadow_store_root(s, (int)random_below(random, ROOTS), moved, random);
        }
        break;
    case 6: { /* from root to root */
        int from = (int)random_below(random, ROOTS), to = (int)random_below(random, ROOTS), n = s->roots[from];
        void *p = shadow_load_root(s, from);
        REQUIRE(p == (n == NOBODY ? NULL : s->nodes[n].address), "root %d", from);
        shadow_store_root(s, from, NOBODY, random);
        shadow_store_root(s, to, n, random);
        break;
    }
    case 7:
        if (a != NOBODY)
            met_as(s->nodes[a].address, s->nodes[a].id);
        break;
    }
}

#endif
