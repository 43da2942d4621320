/* bins.c - empty spans that a thread keeps for its next span of any class or size.
 *
 * Owns the bins of an mcache and their cap, under its slow-path lock; the owner's fast paths push and pop without it
 * (heap/mcache.h), as long as nobody closed them (pa_mcache_enter).
 *
 * A bin is a stack, so the span that is warm is taken first.  How much may lie in all of them together adapts:
 * doubled when they overflow in a thread that asked for spans, halved when it only fills them; when that is not enough,
 * they are drained to half, so that the next frees find room (docs/decisions/004-keeping-empty-spans.md).
 * Invariant: a binned span is CACHED, one element, owned by nobody and on no list.
 */
#include "heap/bins.h"

#include "heap/hollow.h"

void pa_bins_drain_locked(pa_mcache *c, int32_t keep_pages)
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
    pa_mheap_free_span_list(c->heap, dead);
}

/* A thread that asks for spans may keep more, one that only fills its bins keeps little. */
static void adapt_bin_cap(pa_mcache *c)
{
    int32_t pages = pa_bins_pages(c), cap = c->bin_wants ? c->bin_cap_pages * 2 : c->bin_cap_pages / 2;
    if (cap < PA_BIN_CAP_MIN_PAGES)
        cap = PA_BIN_CAP_MIN_PAGES;
    if (cap > PA_BIN_CAP_MAX_PAGES)
        cap = PA_BIN_CAP_MAX_PAGES;
    c->bin_cap_pages = cap;
    pa_owner_set(&c->bin_room_pages, cap - pages);
    pa_owner_set(&c->bin_wants, c->bin_wants / 2); /* n freed at once may double the cap about log n times */
}

void pa_bins_put_locked(pa_mcache *c, pa_span *s)
{
    if (s->npages > PA_BIN_MAX_PAGES) {
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
