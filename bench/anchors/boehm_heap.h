/* boehm_heap.h - the heap of linked objects of boehm_full and boehm_mutate; pa_heap.h describes it. */
#ifndef PA_BENCH_BOEHM_HEAP_H
#define PA_BENCH_BOEHM_HEAP_H

#include "boehm_common.h"

enum { LINKED = 7 };

typedef struct node {
    struct node *left, *right;
    uint64_t value, rest;
} node;

typedef struct boehm_forest {
    node **table;
    uint32_t nodes;
    pthread_t thread;
    uint64_t seed, deadline_ns, started_ns, ended_ns, ops;
    uint32_t churn;
    anchor_histogram latency;
} boehm_forest;

/* forests lie in the data segment, which is a root. */
static inline void boehm_heap_build(boehm_forest *forests, int count, uint32_t nodes, bool shuffled)
{
    uint32_t *order = anchor_order(nodes, shuffled, 1);
    node **at = boehm_must(GC_MALLOC((size_t)nodes * sizeof *at));
    for (uint32_t i = 0; i < nodes; i++) {
        at[i] = boehm_must(GC_MALLOC(sizeof(node)));
        at[i]->value = i;
    }
    uint32_t base = 0;
    for (int t = 0; t < count; t++) {
        uint32_t size = nodes / (uint32_t)count + ((uint32_t)t < nodes % (uint32_t)count);
        node **table = boehm_must(GC_MALLOC((size_t)(size + LINKED - 1) / LINKED * sizeof *table));
        for (uint32_t i = 0; i < size; i += LINKED) {
            const uint32_t *tree = &order[base + i];
            uint32_t linked = size - i < LINKED ? size - i : LINKED;
            table[i / LINKED] = at[tree[0]];
            for (uint32_t m = 2; m <= linked; m++) {
                node *parent = at[tree[m / 2 - 1]];
                *(m & 1 ? &parent->right : &parent->left) = at[tree[m - 1]];
            }
        }
        forests[t].table = table;
        forests[t].nodes = size;
        base += size;
    }
    GC_FREE(at);    /* else a stale word on the stack might keep it, and its scan would be part of all collections */
    free(order);
}

static inline uint64_t boehm_heap_count(const node *n, uint64_t *sum)
{
    *sum += n->value;
    return 1 + (n->left ? boehm_heap_count(n->left, sum) : 0) + (n->right ? boehm_heap_count(n->right, sum) : 0);
}

static inline bool boehm_heap_is_whole(const boehm_forest *forests, int count)
{
    uint64_t nodes = 0, found = 0, sum = 0;
    for (int t = 0; t < count; t++) {
        nodes += forests[t].nodes;
        for (uint32_t i = 0; i < (forests[t].nodes + LINKED - 1) / LINKED; i++)
            found += boehm_heap_count(forests[t].table[i], &sum);
    }
    return found == nodes && sum == nodes * (nodes - 1) / 2;
}

static inline node **boehm_heap_find(node **table, uint32_t which)
{
    node **slot = &table[which / LINKED];
    uint32_t m = which % LINKED + 1;
    for (int bit = 30 - __builtin_clz(m); bit >= 0; bit--)
        slot = (m >> bit) & 1 ? &(*slot)->right : &(*slot)->left;
    return slot;
}

#endif
