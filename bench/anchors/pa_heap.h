/* pa_heap.h - the heap of linked objects of pa_full, pa_mutate and pa_generations, and its mutators.
 *
 * Each thread has a table of pointers to small binary trees of LINKED objects in heap order: the children of
 * position m (from 1) are at 2m and 2m + 1. Which object stands at which position is the order of allocation or
 * a random one over the whole heap, so that the links lead through memory in order or anywhere. Every object has
 * exactly one reference: a replaced one is garbage at once, the live size stays the same, and no two threads
 * write to one table.
 *
 * One operation: allocate an object, walk to the reference of a random one, move the links and the value of that
 * one to the new object, and put the new one in its place. Its latency is the difference of two clock readings,
 * each of which ends one operation and begins the next.
 */
#ifndef PA_BENCH_PA_HEAP_H
#define PA_BENCH_PA_HEAP_H

#include "delay.h"
#include "pa_common.h"

enum { LINKED = 7, POLL_EVERY = 256 };

typedef struct node {
    struct node *left, *right;
    uint64_t value;
    uint64_t rest[];        /* the type's size is an option, 32 bytes or more */
} node;

typedef struct pa_forest {
    const pa_type *type;
    pa_handle *table;
    uint32_t nodes;
    /* mutation */
    pthread_t thread;
    uint64_t seed, deadline_ns, started_ns, ended_ns, ops;
    uint32_t churn;
    const atomic_bool *ending;
    anchor_histogram latency;
    bool explained;             /* what long operations are made of; costs 2 % */
    anchor_delays delays;
} pa_forest;

static inline const pa_type *pa_heap_type(size_t object_bytes)
{
    const pa_type *type = pa_type_new(object_bytes, (size_t[]){offsetof(node, left), offsetof(node, right)}, 2);
    pa_must(type, "no type");
    return type;
}

/* Fills count forests that share nodes objects. Not inside. */
static inline void pa_heap_build(pa_forest *forests, int count, uint32_t nodes, size_t object_bytes, bool shuffled)
{
    const pa_type *type = pa_heap_type(object_bytes);
    uint32_t *order = anchor_order(nodes, shuffled, 1);
    void *slots[2];     /* all objects, the table */
    pa_frame frame;
    pa_must(pa_enter(), "cannot enter");
    pa_frame_push(&frame, slots, 2);
    slots[0] = pa_new_pointers(nodes);
    pa_must(slots[0], "out of memory");
    for (uint32_t i = 0; i < nodes; i++) {
        node *made = pa_new(type);
        pa_must(made, "out of memory");
        made->value = i;
        pa_store_inline((void **)slots[0] + i, made);
    }
    uint32_t base = 0;
    for (int t = 0; t < count; t++) {
        uint32_t size = nodes / (uint32_t)count + ((uint32_t)t < nodes % (uint32_t)count);
        slots[1] = pa_new_pointers((size + LINKED - 1) / LINKED);
        pa_must(slots[1], "out of memory");
        node **at = slots[0];
        for (uint32_t i = 0; i < size; i += LINKED) {
            const uint32_t *tree = &order[base + i];
            uint32_t linked = size - i < LINKED ? size - i : LINKED;
            pa_store_inline((void **)slots[1] + i / LINKED, at[tree[0]]);
            for (uint32_t m = 2; m <= linked; m++) {
                node *parent = at[tree[m / 2 - 1]];
                pa_store_inline((void **)(m & 1 ? &parent->right : &parent->left), at[tree[m - 1]]);
            }
            if (i % POLL_EVERY < LINKED)
                pa_safepoint_inline();
        }
        forests[t] = (pa_forest){.type = type, .table = pa_handle_new(slots[1]), .nodes = size};
        pa_must(forests[t].table, "no handle");
        base += size;
    }
    pa_frame_pop(&frame);
    pa_leave();
    free(order);
}

static inline uint64_t pa_heap_count(const node *n, uint64_t *sum)
{
    *sum += n->value;
    return 1 + (n->left ? pa_heap_count(n->left, sum) : 0) + (n->right ? pa_heap_count(n->right, sum) : 0);
}

/* Are all objects there, each once? Inside for long: call it when nobody else works. */
static inline bool pa_heap_is_whole(const pa_forest *forests, int count)
{
    uint64_t nodes = 0, found = 0, sum = 0;
    pa_must(pa_enter(), "cannot enter");
    for (int t = 0; t < count; t++) {
        node *const *table = pa_handle_get(forests[t].table);
        nodes += forests[t].nodes;
        for (uint32_t i = 0; i < (forests[t].nodes + LINKED - 1) / LINKED; i++)
            found += pa_heap_count(table[i], &sum);
    }
    pa_leave();
    return found == nodes && sum == nodes * (nodes - 1) / 2;
}

/* The slot that leads to one object, 0 <= which < nodes. */
static inline node **pa_heap_find(node **table, uint32_t which)
{
    node **slot = &table[which / LINKED];
    uint32_t m = which % LINKED + 1;
    for (int bit = 30 - __builtin_clz(m); bit >= 0; bit--)
        slot = (m >> bit) & 1 ? &(*slot)->right : &(*slot)->left;
    return slot;
}

static inline void *pa_heap_mutate(void *argument)
{
    pa_forest *forest = argument;
    void *table[1];
    pa_frame frame;
    pa_must(pa_enter(), "cannot enter");
    pa_frame_push(&frame, table, 1);
    table[0] = pa_handle_get(forest->table);
    if (forest->explained)
        anchor_delays_begin(&forest->delays);
    uint64_t now = forest->started_ns = anchor_now_ns(), before;
    do {
        node *fresh = pa_new(forest->type);       /* polls; from here on raw pointers hold */
        pa_must(fresh, "out of memory");
        node **slot = pa_heap_find(table[0], anchor_below(&forest->seed, forest->nodes));
        node *old = *slot;
        fresh->value = old->value;
        pa_store_inline((void **)&fresh->left, old->left);
        pa_store_inline((void **)&fresh->right, old->right);
        pa_store_inline((void **)slot, fresh);
        for (uint32_t i = 0; i < forest->churn; i++)
            pa_must(pa_new(forest->type), "out of memory");
        before = now;
        now = anchor_now_ns();
        anchor_record(&forest->latency, now - before);
        if (forest->explained)
            anchor_delays_look(&forest->delays, now - before);
        if (forest->ending && atomic_load_explicit(forest->ending, memory_order_relaxed))
            break;
    } while (now < forest->deadline_ns);
    forest->ended_ns = now;
    forest->ops = forest->latency.count;
    if (forest->explained)
        anchor_delays_end(&forest->delays);
    pa_frame_pop(&frame);
    pa_leave();
    return NULL;
}

/* Starts one mutator a forest. ending may be NULL. */
static inline void pa_heap_start(pa_forest *forests, int count, double seconds, uint32_t churn,
                                 const atomic_bool *ending)
{
    uint64_t deadline = anchor_now_ns() + (uint64_t)(1e9 * seconds);
    for (int t = 0; t < count; t++) {
        forests[t].seed = 1000 + (uint64_t)t;
        forests[t].deadline_ns = deadline;
        forests[t].churn = churn;
        forests[t].ending = ending;
        pa_must(!pthread_create(&forests[t].thread, NULL, pa_heap_mutate, &forests[t]), "no thread");
    }
}

/* Waits for the mutators; the sum of their throughputs in Mops/s. */
static inline double pa_heap_join(pa_forest *forests, int count, anchor_histogram *latency)
{
    double mops = 0;
    for (int t = 0; t < count; t++) {
        pthread_join(forests[t].thread, NULL);
        mops += 1e3 * (double)forests[t].ops / (double)(forests[t].ended_ns - forests[t].started_ns);
        anchor_merge(latency, &forests[t].latency);
    }
    return mops;
}

#endif
