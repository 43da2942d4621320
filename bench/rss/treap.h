/* treap.h - the page allocator of Go 1.11 to 1.12: free runs in a treap by length, then address; best fit.
 *
 * A node a free run, random priorities; runs join with their free neighbours through a table from page to
 * node, kept at a run's first and last page.  The caller locks.  (C. Aragon, R. Seidel, Randomized Search
 * Trees, 1989; Go: runtime/mgclarge.go of those versions.) Written anew for comparison with the radix bitmap
 * of csrc/pages.
 */
#ifndef PA_RSS_TREAP_H
#define PA_RSS_TREAP_H

#include <stdint.h>
#include <stdlib.h>

typedef struct treap_node {
    struct treap_node *left, *right;
    size_t first, npages;
    uint64_t priority;
} treap_node;

typedef struct treap {
    treap_node *root, *spare;
    treap_node **at;            /* by page: the free run that begins or ends there, else NULL */
    uint64_t seed;
} treap;

static inline int treap_before(size_t npages, size_t first, const treap_node *n)
{
    return npages != n->npages ? npages < n->npages : first < n->first;
}

static inline void treap_split(treap_node *n, size_t npages, size_t first, treap_node **low, treap_node **high)
{
    if (!n) {
        *low = *high = NULL;
    } else if (treap_before(npages, first, n)) {
        treap_split(n->left, npages, first, low, &n->left);
        *high = n;
    } else {
        treap_split(n->right, npages, first, &n->right, high);
        *low = n;
    }
}

static inline treap_node *treap_join(treap_node *low, treap_node *high)
{
    if (!low || !high)
        return low ? low : high;
    if (low->priority > high->priority) {
        low->right = treap_join(low->right, high);
        return low;
    }
    high->left = treap_join(low, high->left);
    return high;
}

static inline void treap_insert(treap *t, size_t first, size_t npages)
{
    treap_node *n = t->spare ? t->spare : malloc(sizeof *n);
    if (!n)
        abort();
    if (t->spare)
        t->spare = n->left;
    t->seed = t->seed * 6364136223846793005u + 1442695040888963407u;
    *n = (treap_node){NULL, NULL, first, npages, t->seed ^ t->seed >> 29};
    treap_node **link = &t->root;
    while (*link && (*link)->priority >= n->priority)
        link = treap_before(npages, first, *link) ? &(*link)->left : &(*link)->right;
    treap_split(*link, npages, first, &n->left, &n->right);
    *link = n;
    t->at[first] = t->at[first + npages - 1] = n;
}

static inline void treap_remove(treap *t, treap_node *n)
{
    treap_node **link = &t->root;
    while (*link != n)
        link = treap_before(n->npages, n->first, *link) ? &(*link)->left : &(*link)->right;
    *link = treap_join(n->left, n->right);
    t->at[n->first] = t->at[n->first + n->npages - 1] = NULL;
    n->left = t->spare;
    t->spare = n;
}

/* First page of the smallest, then lowest run that fits; SIZE_MAX when there is none. */
static inline size_t treap_alloc(treap *t, size_t npages)
{
    treap_node *best = NULL;
    for (treap_node *n = t->root; n;) {
        if (n->npages >= npages) {
            best = n;
            n = n->left;
        } else {
            n = n->right;
        }
    }
    if (!best)
        return SIZE_MAX;
    size_t first = best->first, left = best->npages - npages;
    treap_remove(t, best);
    if (left)
        treap_insert(t, first + npages, left);
    return first;
}

static inline void treap_free(treap *t, size_t first, size_t npages)
{
    treap_node *after = t->at[first + npages], *before = first ? t->at[first - 1] : NULL;
    if (after) {
        npages += after->npages;
        treap_remove(t, after);
    }
    if (before) {
        first = before->first;
        npages += before->npages;
        treap_remove(t, before);
    }
    treap_insert(t, first, npages);
}

#endif
