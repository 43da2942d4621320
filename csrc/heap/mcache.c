/* mcache.c - refill, claim, retire and trim: a thread's dealings with the heap.
 *
 * Owns one thread's spans, bins and page stock.  Slow paths hold c->slow (rank PROC_SLOW), so that fork
 * finds every other thread's mcache between two steps; bins are the owner's alone, and a fork child
 * rebuilds from the page table (world/fork.c).
 *
 * A miss goes down one step at a time: collect what other threads freed into the current span; carve the
 * tail; give the full span up; the oldest partial span; mcentral; an empty span from the bins; the page
 * heap.  New spans of a class grow by doubling from the table's size ("run level") to 64-256 KiB, so that
 * small programs stay small and large ones take the lock rarely.
 *
 * Invariants: current[k] is the empty span or owned, class k, biased by 1; partial[k] holds owned, unbiased
 * spans of class k with live > 0; a binned span is CACHED, owned, and in nobody's list.
 * Ideas: Go's mcache (runtime/mcache.go); owning several spans a class and the frees of others follow
 * Leijen, Zorn, de Moura, "Mimalloc: Free List Sharding in Action" (2019) in spirit.
 */
#include "heap/mcache.h"

#include "base/yield.h"
#include "heap/mcentral.h"
#include "heap/remote.h"

enum {
    TICK_CALLS = 512,     /* slow calls between two walks over all partial spans */
    TICK_CENTRAL_SPANS = 8,
};

void pa_mcache_init(pa_mcache *c, pa_heap *h)
{
    *c = (pa_mcache){0};
    for (unsigned i = 0; i < PA_DIRECT_COUNT; i++)
        c->direct[i] = PA_EMPTY_SPAN;
    for (unsigned i = 0; i < PA_SIZE_CLASSES; i++)
        c->current[i] = PA_EMPTY_SPAN;
    c->slow.rank = PA_RANK_PROC_SLOW;
    c->heap = h;
    c->trim_seen = atomic_load_explicit(&h->trim_generation, memory_order_relaxed);
}

/* ---- Current span ---- */

static void set_current(pa_mcache *c, unsigned size_class, pa_span *s)
{
    c->current[size_class] = s;
    size_t top = pa_class_object_bytes[size_class];
    if (top > PA_SMALL_MAX_STEP8_BYTES)
        return;
    size_t below = size_class > 1 ? pa_class_object_bytes[size_class - 1] : 0;
    for (size_t i = size_class > 1 ? below / 8 + 1 : 0; i <= top / 8; i++)
        c->direct[i] = s;
}

static pa_span *make_current(pa_mcache *c, unsigned size_class, pa_span *s)
{
    pa_owner_add(&s->live, 1);
    set_current(c, size_class, s);
    return s;
}

/* The class has no current span afterwards; the caller decides what becomes of it. */
static pa_span *take_current(pa_mcache *c, unsigned size_class)
{
    pa_span *s = c->current[size_class];
    if (s == PA_EMPTY_SPAN)
        return NULL;
    set_current(c, size_class, PA_EMPTY_SPAN);
    pa_owner_add(&s->live, -1);
    return s;
}

/* ---- Bins ---- */

static void bin_put(pa_mcache *c, pa_span *s)
{
    PA_ASSERT(s->npages <= PA_BIN_MAX_PAGES);
    unsigned i = pa_bin_of(s->npages);
    s->tail = 0; /* no pointer into it is a live block */
    s->free = NULL;
    pa_owner_set(&s->size_class, 0);
    s->needs_zero = 1;
    atomic_store_explicit(&s->owner, c, memory_order_relaxed);
    pa_span_set_state(s, PA_SPAN_CACHED);
    s->next = c->bin[i];
    c->bin[i] = s;
    c->bin_bits |= (uint64_t)1 << i;
    c->bin_pages += s->npages;
}

static void drain_bins(pa_mcache *c, uint32_t keep_pages)
{
    pa_span *dead = NULL;
    while (c->bin_pages > keep_pages) {
        pa_span *s = pa_mcache_bin_pop(c, pa_log2_floor(c->bin_bits));
        s->next = dead;
        dead = s;
    }
    pa_mheap_free_span_list(c->heap, dead);
}

static void keep_or_free(pa_mcache *c, pa_span *s)
{
    if (s->npages > PA_BIN_MAX_PAGES) {
        pa_mheap_free_span(c->heap, s);
        return;
    }
    bin_put(c, s);
    if (PA_UNLIKELY(c->bin_pages > PA_BIN_CAP_PAGES))
        drain_bins(c, PA_BIN_CAP_PAGES / 2);
}

/* A cached span of min..max pages, best fit by bin. */
static pa_span *bin_take(pa_mcache *c, size_t min_pages, size_t max_pages)
{
    if (min_pages > PA_BIN_MAX_PAGES)
        return NULL;
    unsigned i = pa_bin_of(min_pages);
    uint64_t bits = c->bin_bits & ~pa_mask64(i);
    while (bits) {
        i = pa_ctz64(bits);
        pa_span *s = c->bin[i];
        if (s->npages > max_pages)
            return NULL;
        if (s->npages >= min_pages) {
            pa_mcache_bin_pop(c, i);
            atomic_store_explicit(&s->owner, NULL, memory_order_relaxed);
            pa_span_set_state(s, PA_SPAN_MANUAL);
            return s;
        }
        bits &= bits - 1;
    }
    return NULL;
}

/* ---- Ticks and trims ---- */

/* Collects the oldest max_spans partial spans of a class; empty ones go to the bins. */
static void collect_partial(pa_mcache *c, unsigned size_class, uint32_t max_spans)
{
    pa_span *next;
    for (pa_span *s = c->partial[size_class].first; s && max_spans--; s = next) {
        next = s->next;
        if (pa_span_collect_remote(s) && s->live == 0) {
            pa_spanlist_remove(&c->partial[size_class], s);
            keep_or_free(c, s);
        }
    }
}

static void collect_all_partial(pa_mcache *c)
{
    for (unsigned k = 1; k < PA_SIZE_CLASSES; k++)
        if (c->partial[k].first)
            collect_partial(c, k, UINT32_MAX);
}

static void trim(pa_mcache *c)
{
    for (unsigned k = 1; k < PA_SIZE_CLASSES; k++) {
        pa_span *s = c->current[k];
        if (s == PA_EMPTY_SPAN)
            continue;
        pa_span_collect_remote(s);
        if (s->live == 1) /* the bias: nothing in it */
            keep_or_free(c, take_current(c, k));
    }
    collect_all_partial(c);
    drain_bins(c, 0);
    pa_mheap_flush_stock(c->heap, &c->stock);
}

void pa_mcache_trim(pa_mcache *c)
{
    pa_lock_acquire(&c->slow);
    trim(c);
    c->trim_seen = atomic_load_explicit(&c->heap->trim_generation, memory_order_relaxed);
    pa_lock_release(&c->slow);
}

/* Somebody asked for memory back since our last slow call: flush, and let go of what that freed. */
static void answer_trim(pa_mcache *c)
{
    uint32_t wanted = atomic_load_explicit(&c->heap->trim_generation, memory_order_relaxed);
    if (PA_LIKELY(wanted == c->trim_seen))
        return;
    c->trim_seen = wanted;
    trim(c);
    pa_mheap_release(c->heap, SIZE_MAX);
}

static void tick(pa_mcache *c, unsigned size_class)
{
    answer_trim(c);
    if (PA_UNLIKELY(++c->slow_calls % TICK_CALLS == 0)) {
        collect_all_partial(c);
        pa_mcentral_tick(c->heap, size_class ? size_class : c->slow_calls / TICK_CALLS % (PA_SIZE_CLASSES - 1) + 1,
                         TICK_CENTRAL_SPANS);
    }
}

/* ---- Refill ---- */

static pa_span *new_span(pa_mcache *c, unsigned size_class)
{
    size_t table_pages = pa_class_span_pages[size_class];
    size_t cap_pages = pa_class_cap_pages[size_class];
    size_t run_pages = table_pages << c->run_level[size_class];
    if (run_pages > cap_pages)
        run_pages = cap_pages;
    pa_span *s = bin_take(c, run_pages, cap_pages);
    if (!s && run_pages > table_pages)
        s = bin_take(c, table_pages, run_pages);
    if (!s)
        s = pa_mheap_alloc_span(c->heap, &c->stock, run_pages, 1);
    if (!s && run_pages > table_pages)
        s = pa_mheap_alloc_span(c->heap, &c->stock, table_pages, 1);
    if (!s) { /* out of memory: whatever we hold may be what is missing */
        trim(c);
        pa_mcentral_collect_all(c->heap);
        s = pa_mheap_alloc_span(c->heap, &c->stock, table_pages, 1);
    }
    if (!s)
        return NULL;
    if (run_pages < cap_pages)
        c->run_level[size_class]++;
    pa_span_format_explicit(s, size_class);
    atomic_store_explicit(&s->owner, c, memory_order_relaxed);
    return s;
}

/* A span whose free list can be popped, or NULL. s is owned. */
static bool has_block(pa_span *s)
{
    if (s->free)
        return true;
    if (pa_span_collect_remote(s))
        return true;
    return pa_span_carve(s);
}

static pa_span *refill_locked(pa_mcache *c, unsigned size_class)
{
    pa_span *s = c->current[size_class];
    if (s != PA_EMPTY_SPAN) {
        if (has_block(s))
            return s;
        s = take_current(c, size_class);
        if (!pa_span_abandon(s, c))
            return make_current(c, size_class, s);
    }
    pa_spanlist *partial = &c->partial[size_class];
    collect_partial(c, size_class, 2);
    s = pa_spanlist_pop_front(partial);
    if (!s)
        s = pa_mcentral_take(c->heap, size_class, c);
    if (!s)
        s = new_span(c, size_class);
    if (!s)
        return NULL;
    PA_CHECK(has_block(s));
    return make_current(c, size_class, s);
}

pa_span *pa_mcache_refill(pa_mcache *c, unsigned size_class)
{
    pa_lock_acquire(&c->slow);
    tick(c, size_class);
    pa_span *s = refill_locked(c, size_class);
    pa_lock_release(&c->slow);
    return s;
}

void pa_mcache_span_emptied(pa_mcache *c, pa_span *s)
{
    pa_lock_acquire(&c->slow);
    pa_spanlist_remove(&c->partial[s->size_class], s);
    keep_or_free(c, s);
    pa_lock_release(&c->slow);
}

void pa_mcache_claim(pa_mcache *c, pa_span *s)
{
    PA_YIELD(FREE_AFTER_CLAIM);
    pa_lock_acquire(&c->slow);
    atomic_store_explicit(&s->owner, c, memory_order_relaxed);
    pa_span_collect_remote(s);
    if (s->live == 0)
        keep_or_free(c, s);
    else
        pa_spanlist_push_back(&c->partial[s->size_class], s);
    pa_lock_release(&c->slow);
}

/* ---- Large spans ---- */

pa_span *pa_mcache_alloc_large(pa_mcache *c, size_t npages, size_t align_pages)
{
    pa_span *s = NULL;
    if (align_pages == 1)
        s = bin_take(c, npages, npages + npages / 8);
    if (!s) {
        pa_lock_acquire(&c->slow);
        tick(c, 0);
        s = pa_mheap_alloc_span(c->heap, &c->stock, npages, align_pages);
        if (!s) {
            trim(c);
            pa_mcentral_collect_all(c->heap);
            s = pa_mheap_alloc_span(c->heap, &c->stock, npages, align_pages);
        }
        pa_lock_release(&c->slow);
        if (!s)
            return NULL;
    }
    pa_span_format_explicit(s, 0);
    s->tail = s->limit;
    pa_owner_set(&s->live, 1);
    return s;
}

void pa_mcache_free_large(pa_mcache *c, pa_span *s)
{
    keep_or_free(c, s);
}

/* ---- The end of a thread ---- */

/* Owned and on no list: to the heap, to mcentral, or abandoned. */
static void let_go(pa_mcache *c, pa_span *s)
{
    pa_span_collect_remote(s);
    while (s->free == NULL && s->tail >= s->limit)
        if (pa_span_abandon(s, c))
            return;
    if (s->live == 0)
        pa_mheap_free_span(c->heap, s);
    else
        pa_mcentral_put(c->heap, s);
}

void pa_mcache_release_all(pa_mcache *c)
{
    PA_YIELD(EXIT_BEFORE_RELEASE);
    pa_lock_acquire(&c->slow);
    for (unsigned k = 1; k < PA_SIZE_CLASSES; k++) {
        pa_span *s = take_current(c, k);
        if (s)
            let_go(c, s);
        while ((s = pa_spanlist_pop_front(&c->partial[k])) != NULL)
            let_go(c, s);
        c->run_level[k] = 0;
    }
    drain_bins(c, 0);
    pa_mheap_flush_stock(c->heap, &c->stock);
    pa_lock_release(&c->slow);
}
