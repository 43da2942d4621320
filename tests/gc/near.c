/* near.c - objects of one span that lead to each other, which markers follow without leaving it (gc/mark.c).
 *
 *     near [mode=4] [nodes=6000] [seed=1] [exact=0]
 *
 * Complete trees whose nodes stand in the heap as they come, the other way round, in disorder over a few lines, or
 * anywhere; slots hold interior pointers, and in every second graph those that the tree leaves free lead to
 * neighbours, many at a time.  After a collection every node must be there, after the next one without roots none.
 * exact=1: the bytes that were marked are those of the nodes, to the byte; two markers that meet at an object may both
 * count it, so this is for the serial collector.
 *
 * Last come lists of pairs of 16 bytes whose first halves are leaves of the same span: a marker follows the list to the
 * span's end and leaves 256 leaves behind, twice as many as it notes down, each with no other way to it.
 */
#include "base/sizeclass.h"
#include "gc_test.h"
#include "include/pyalloc_inline.h"

enum { NODES_MAX = 100000, ORDERS = 4 };
static const char *const order_names[ORDERS] = {"as they come", "the other way round", "in disorder", "anywhere"};
static const size_t fan_outs[] = {1, 2, 6, 14};

static uint32_t place[NODES_MAX]; /* position in the tree, breadth first -> which was allocated so */
static void *root[1];             /* a barriered range */
static uint64_t seed;

static uint64_t below(uint64_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed >> 33) % n;
}

static void shuffle(uint32_t *p, uint32_t n)
{
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = (uint32_t)below(i), kept = p[i - 1];
        p[i - 1] = p[j];
        p[j] = kept;
    }
}

static void choose_places(int order, uint32_t nodes)
{
    enum { GROUP = 24 };
    for (uint32_t k = 0; k < nodes; k++)
        place[k] = order == 1 ? nodes - 1 - k : k;
    if (order == 2)
        for (uint32_t k = 0; k + GROUP <= nodes; k += GROUP)
            shuffle(place + k, GROUP);
    else if (order == 3)
        shuffle(place, nodes);
}

static void *somewhere_in(node *n, size_t nbytes) { return (char *)n + below(nbytes); }

static void build(uint32_t nodes, size_t fan_out, bool dense)
{
    const pa_type *type = node_type(fan_out);
    size_t nbytes = pa_type_bytes(type);
    void *slots[1];
    pa_frame frame;
    enter();
    pa_frame_push(&frame, slots, 1);
    slots[0] = must(pa_new_pointers(nodes));
    node **all = slots[0];
    for (uint32_t i = 0; i < nodes; i++) {
        node *n = must(below(2) ? pa_new_inline(type) : pa_new(type));
        require_zero(n, nbytes);
        n->id = i;
        n->check = check_of(i);
        pa_store_inline((void **)&all[i], n);
    }
    pa_store(&root[0], all[place[0]]);
    for (uint64_t k = 1; k < nodes; k++)
        pa_store(&all[place[(k - 1) / fan_out]]->slots[(k - 1) % fan_out], somewhere_in(all[place[k]], nbytes));
    for (uint64_t e = nodes - 1; dense && e < (uint64_t)nodes * fan_out; e++) {
        uint32_t from = place[e / fan_out], to = from + (uint32_t)below(40);
        pa_store(&all[from]->slots[e % fan_out], somewhere_in(all[to < nodes ? to : from], nbytes));
    }
    pa_frame_pop(&frame);
    pa_leave();
}

/* Goes through the tree by positions. */
static void verify(uint32_t nodes, size_t fan_out)
{
    node **at = calloc(nodes, sizeof *at);
    REQUIRE(at);
    enter();
    for (uint64_t k = 0; k < nodes; k++) {
        void *p = k ? at[(k - 1) / fan_out]->slots[(k - 1) % fan_out] : root[0];
        at[k] = met_as(pa_find_object(p), place[k]);
    }
    pa_leave();
    free(at);
}

static void one_graph(int order, uint32_t nodes, size_t fan_out, bool dense, bool exact)
{
    choose_places(order, nodes);
    build(nodes, fan_out, dense);
    pa_gc();
    pa_gc();
    uint64_t slot_bytes = pa_class_object_bytes[pa_class_of_size(pa_type_bytes(node_type(fan_out)))];
    uint64_t want = nodes * slot_bytes, marked = gc_stats().heap_marked_bytes;
    REQUIRE(exact ? marked == want : marked >= want, "%" PRIu64 " bytes of %" PRIu64 ", nodes %s", marked, want,
            order_names[order]);
    verify(nodes, fan_out);
    enter();
    pa_store(&root[0], NULL);
    pa_leave();
    managed_heap_must_be_empty();
}

typedef struct pair {
    struct pair *first, *rest; /* a leaf's: itself, NULL */
} pair;

static void one_list(uint32_t pairs)
{
    const pa_type *type = pa_type_new(sizeof(pair), (size_t[]){offsetof(pair, first), offsetof(pair, rest)}, 2);
    REQUIRE(type);
    void *slots[2];
    pa_frame frame;
    enter();
    pa_frame_push(&frame, slots, 2);
    for (uint32_t i = 0; i < pairs; i++) {
        slots[1] = must(pa_new_inline(type));
        pa_store((void **)&((pair *)slots[1])->first, slots[1]);
        pair *p = must(pa_new_inline(type));
        pa_store_inline((void **)&p->first, slots[1]);
        pa_store_inline((void **)&p->rest, slots[0]);
        slots[0] = p;
    }
    pa_store(&root[0], slots[0]);
    pa_frame_pop(&frame);
    pa_leave();
    pa_gc();
    pa_gc();
    enter();
    for (uint32_t i = 0; i < 2 * pairs; i++) /* what was taken for garbage is handed out again */
        must(pa_new_inline(type));
    uint32_t found = 0;
    for (const pair *p = root[0]; p; p = p->rest, found++)
        REQUIRE(p->first && p->first->first == p->first && p->first->rest == NULL, "pair %u lost its leaf", found);
    REQUIRE(found == pairs, "%u pairs of %u", found, pairs);
    pa_store(&root[0], NULL);
    pa_leave();
    managed_heap_must_be_empty();
}

int main(int argc, char **argv)
{
    long nodes = option(argc, argv, "nodes", 6000);
    bool exact = option(argc, argv, "exact", 0);
    seed = (uint64_t)option(argc, argv, "seed", 1);
    REQUIRE(nodes > 1 && nodes <= NODES_MAX);
    set_mode((int)option(argc, argv, "mode", PA_GC_CONCURRENT));
    pa_gc_set_checkmark(true);
    REQUIRE(pa_roots_add(root, sizeof root, PA_ROOTS_BARRIERED) == 0);
    int graphs = 0;
    for (size_t f = 0; f < sizeof fan_outs / sizeof fan_outs[0]; f++)
        for (int order = 0; order < ORDERS; order++, graphs += 2) {
            one_graph(order, (uint32_t)nodes, fan_outs[f], false, exact);
            one_graph(order, (uint32_t)nodes, fan_outs[f], true, exact);
        }
    one_list((uint32_t)nodes);
    REQUIRE(pa_roots_remove(root) == 0);
    printf("near: %d graphs, a list\n", graphs);
    return 0;
}
