/* bins.c - empty spans that a thread keeps for its next span of any class or size.
 *
 * Owns the bins of an mcache and their cap, under its slow-path lock; the owner's fast paths push and pop without it
 * (heap/mcache.h), as long as nobody closed them (pa_mcache_enter).
 *
 * A bin is a stack, so the span that is warm is taken first.  How much may lie in all of them together adapts:
 * doubled when they overflow in a thread that asked for spans, halved when it only fills them; when that is not enough,
 * they are drained to half, so that the next frees find room (docs/decisions/004-keeping-empty-spans.md). A thread that
 * never asked for a span keeps next to nothing (054).
 * Invariant: a binned span is CACHED, one element, owned by nobody and on no list.
 */
#include "heap/bins.h"

#include "heap/hollow.h"
#include "heap/pieces.h"

pa_span *pa_bins_empty_locked(pa_mcache *c, int32_t keep_pages)
{
    pa_span *dead = NULL;
    for (unsigned i = 0; pa_bins_pages(c) > keep_pages; i++) {
        pa_span *s;
        while (pa_bins_pages(c) > keep_pages && (s = c->bin[i]) != NULL) {
            pa_mcache_bin_pop(c, i, s, s->npages);
            s->next = dead;
            dead = s;
        }
    }
    return dead;
}

void pa_bins_drain_locked(pa_mcache *c, int32_t keep_pages)
{
    pa_mheap_free_span_list(c->heap, pa_bins_empty_locked(c, keep_pages));
}

/* A thread that asks for spans may keep more, one that only fills its bins keeps little. */
static void adapt_bin_cap(pa_mcache *c)
{
    int32_t pages = pa_bins_pages(c), cap = c->bin_wants ? c->bin_cap_pages * 2 : c->bin_cap_pages / 2;
    if (c->bin_cap_pages < PA_BIN_CAP_MIN_PAGES && !c->bin_wants)
        return;
    if (cap < PA_BIN_CAP_MIN_PAGES)
        cap = PA_BIN_CAP_MIN_PAGES;
    if (cap > PA_BIN_CAP_MAX_PAGES)
        cap = PA_BIN_CAP_MAX_PAGES;
    c->bin_cap_pages = cap;
    pa_owner_set(&c->bin_room_pages, cap - pages);
    pa_owner_set(&c->bin_wants, c->bin_wants / 2); /* n freed at once may double the cap about log n times */
}

void pa_bins_want_locked(pa_mcache *c)
{
    pa_owner_add(&c->bin_wants, 1);
    if (PA_UNLIKELY(c->bin_cap_pages == PA_BIN_CAP_UNASKED_PAGES)) {
        pa_owner_add(&c->bin_room_pages, PA_BIN_CAP_FIRST_PAGES - PA_BIN_CAP_UNASKED_PAGES);
        c->bin_cap_pages = PA_BIN_CAP_FIRST_PAGES;
    }
}

void pa_bins_put_locked(pa_mcache *c, pa_span *s)
{
    if (s->npages > PA_BIN_MAX_PAGES ||
        ((int32_t)s->npages > c->bin_cap_pages && c->bin_cap_pages == PA_BIN_CAP_UNASKED_PAGES)) {
        pa_mheap_free_span(c->heap, s);
        return;
    }
    if ((int32_t)s->npages > c->bin_room_pages) {
        adapt_bin_cap(c);
        int32_t keep_pages = c->bin_cap_pages / 2 - (int32_t)s->npages;
        if ((int32_t)s->npages > c->bin_room_pages)
            pa_bins_drain_locked(c, keep_pages > 0 ? keep_pages : 0);
    }
    pa_mcache_bin_push(c, s, s->npages);
}

void pa_bins_put_empty_locked(pa_mcache *c, pa_span *s)
{
    if (PA_UNLIKELY(pa_span_has_out(s))) { /* it lay idle, and part of it is no warmer than any free page */
        pa_mheap_free_span(c->heap, s);
        return;
    }
    pa_span_format_large(s);
    pa_bins_put_locked(c, s);
}

pa_span *pa_bins_take(pa_mcache *c, size_t min_pages, size_t max_pages)
{
    if (min_pages > PA_BIN_MAX_PAGES)
        return NULL;
    unsigned last = max_pages < PA_BIN_MAX_PAGES ? pa_bin_of(max_pages) : PA_BIN_COUNT - 1;
    for (unsigned i = pa_bin_of(min_pages); i <= last; i++) {
        pa_span *s = c->bin[i];
        if (!s)
            continue;
        if (s->npages > max_pages)
            return NULL;
        if (s->npages >= min_pages) {
            pa_mcache_bin_pop(c, i, s, s->npages);
            pa_owner_add(&c->bin_wants, 1);
            pa_span_set_state(s, PA_SPAN_MANUAL);
            return s;
        }
    }
    return NULL;
}

/* ---- Other sizes: cutting and joining ---- */

/* The first span of the lowest bin that has one of npages, out of it. */
static pa_span *take_at_least(pa_mcache *c, size_t npages)
{
    for (unsigned i = pa_bin_of(npages); i < PA_BIN_COUNT; i++) {
        pa_span *s = c->bin[i];
        if (s && s->npages >= npages) {
            pa_mcache_bin_pop(c, i, s, s->npages);
            return s;
        }
    }
    return NULL;
}

static pa_span *cut(pa_mcache *c, size_t npages, size_t max_pages)
{
    pa_span *s = take_at_least(c, npages);
    if (!s)
        return NULL;
    if (s->npages > max_pages) {
        pa_span *rest = pa_span_cut(c->heap, &c->stock, s, npages);
        pa_mcache_bin_push(c, rest ? rest : s, rest ? rest->npages : s->npages);
        if (!rest)
            return NULL;
    }
    pa_span_set_state(s, PA_SPAN_MANUAL);
    return s;
}

/* Takes in the spans of c's bins behind s. They, and no other cached span, name c as their owner meanwhile. */
static void join_behind(pa_mcache *c, pa_span *s)
{
    pa_span *high;
    while ((high = pa_span_of((void *)(s->base + pa_span_bytes(s)))) != NULL &&
           atomic_load_explicit(&high->owner, memory_order_relaxed) == c &&
           pa_span_state_racy(high) == PA_SPAN_CACHED && s->npages + high->npages <= PA_BIN_MAX_PAGES &&
           pa_span_join(c->heap, &c->stock, s, high))
        atomic_store_explicit(&s->owner, c, memory_order_relaxed);
}

/* Neighbours become one span, as far as bins and the stock of headers have room. */
static void join_all(pa_mcache *c)
{
    pa_span *all = NULL, *s, *next;
    for (unsigned i = PA_BIN_COUNT; i-- > 0;) {
        while ((s = c->bin[i]) != NULL) {
            pa_owner_set(&c->bin[i], s->next);
            atomic_store_explicit(&s->owner, c, memory_order_relaxed);
            s->next = all;
            all = s;
        }
    }
    for (s = all; s; s = s->next)
        if (pa_span_state_racy(s) == PA_SPAN_CACHED) /* else it was taken in */
            join_behind(c, s);
    for (s = all; s; s = next) {
        next = s->next;
        atomic_store_explicit(&s->owner, NULL, memory_order_relaxed);
        if (pa_span_state_racy(s) != PA_SPAN_CACHED)
            continue;
        s->next = c->bin[s->bin];
        pa_owner_set(&c->bin[s->bin], s);
    }
}

pa_span *pa_bins_make_locked(pa_mcache *c, size_t npages, size_t max_pages)
{
    if (npages > PA_BIN_MAX_PAGES || (size_t)pa_bins_pages(c) < npages)
        return NULL;
    pa_span *s = cut(c, npages, max_pages);
    if (s)
        return s;
    join_all(c);
    return cut(c, npages, max_pages);
}

pa_span *pa_bins_trade_locked(pa_mcache *c, size_t npages, size_t align_pages, size_t most_pages)
{
    size_t idle_pages = (size_t)pa_bins_pages(c), ask_pages = npages;
    if (idle_pages > npages)
        ask_pages = idle_pages < most_pages ? idle_pages : most_pages;
    pa_span *idle = idle_pages >= npages ? pa_bins_empty_locked(c, 0) : NULL;
    pa_span *s = pa_mheap_trade(c->heap, &c->stock, idle, ask_pages, align_pages), *rest;
    if (!s)
        return NULL;
    pa_span_format_large(s);
    if (ask_pages > npages && (rest = pa_span_cut(c->heap, &c->stock, s, npages)) != NULL)
        pa_mcache_bin_push(c, rest, rest->npages);
    return s;
}
