/* tail.c - the end of marking under threads that assist: what they hold back must not be marked in the stop.
 *
 *     tail [nodes=400000] [threads=2] [cycles=8]
 *
 * The live graph is a few long lists, whose heads fit into one work buffer: whoever has that has all there is to do.
 * Threads that allocate garbage and replace heads owe marking, take the buffer, mark their piece, and go on
 * allocating.  White-box: the collector counts what it scans in its final stops.
 */
#include "gc/gc.h"
#include "gc_test.h"

enum { THREADS_MAX = 8, LISTS = 64, GARBAGE = 40 };

static const pa_type *type;
static void *heads[LISTS]; /* roots */
static uint64_t cycles;

static void push(size_t list, uint64_t id)
{
    node *n = new_node(type, id);
    pa_store(&n->slots[0], load(&heads[list]));
    pa_store(&heads[list], n);
}

/* Each thread has lists of its own, so that no node is lost. */
static void *mutate(void *argument)
{
    uint64_t first = (uint64_t)(uintptr_t)argument;
    enter();
    while (gc_stats().cycles < cycles)
        for (size_t i = 0; i < LISTS; i++) {
            for (int k = 0; k < GARBAGE; k++)
                new_node(type, 0);
            if (i % THREADS_MAX != first)
                continue;
            node *head = met(load(&heads[i]));
            pa_store(&heads[i], head->slots[0]);
            push(i, head->id);
        }
    pa_leave();
    return NULL;
}

int main(int argc, char **argv)
{
    long threads = option(argc, argv, "threads", 2);
    uint64_t nodes = (uint64_t)option(argc, argv, "nodes", 400000);
    cycles = (uint64_t)option(argc, argv, "cycles", 8);
    REQUIRE(threads >= 1 && threads <= THREADS_MAX);
    type = node_type(1);
    REQUIRE(pa_roots_add(heads, sizeof heads, PA_ROOTS_BARRIERED) == 0);
    enter();
    for (uint64_t i = 0; i < nodes; i++)
        push(i % LISTS, i);
    pa_leave();
    cycles += gc_stats().cycles;
    pthread_t ids[THREADS_MAX];
    for (long t = 0; t < threads; t++)
        ids[t] = start(mutate, (void *)(uintptr_t)t);
    for (long t = 0; t < threads; t++)
        join(ids[t]);
    pa_gc();
    REQUIRE(pa_the_gc.stop_scanned_bytes == 0, "%" PRIu64 " bytes were scanned in stops of %" PRIu64 " cycles",
            pa_the_gc.stop_scanned_bytes, gc_stats().cycles);
    enter();
    uint64_t found = 0;
    for (size_t i = 0; i < LISTS; i++)
        for (node *n = heads[i]; n; n = n->slots[0], found++)
            REQUIRE(met(n)->id % LISTS == i);
    REQUIRE(found == nodes, "%" PRIu64 " of %" PRIu64, found, nodes);
    for (size_t i = 0; i < LISTS; i++)
        pa_store(&heads[i], NULL);
    pa_leave();
    REQUIRE(pa_roots_remove(heads) == 0);
    managed_heap_must_be_empty();
    printf("tail: %" PRIu64 " cycles\n", gc_stats().cycles);
    return 0;
}
