/* bins.h - the slow half of a thread's bins: what does not fit, what must go, another size's span.
 *
 * The caller holds the mcache's slow-path lock (or, to take, is between pa_mcache_enter and leave) and is its owner; to
 * drain, it may be one who keeps the owner out (heap/idle.h).
 */
#ifndef PA_BINS_H
#define PA_BINS_H

#include "heap/mcache.h"

PA_INLINE int32_t pa_bins_pages(const pa_mcache *c)
{
    return c->bin_cap_pages - c->bin_room_pages;
}

/* Frees binned spans until at most keep_pages are left. */
void pa_bins_drain_locked(pa_mcache *c, int32_t keep_pages);
/* The same, but returns them, linked through next, for pa_mheap_free_span_list or pa_mheap_trade. */
pa_span *pa_bins_empty_locked(pa_mcache *c, int32_t keep_pages);
/* c asks for a span, whatever it finds: threads that do so keep more. */
void pa_bins_want_locked(pa_mcache *c);
/* Keeps or frees a large span. The one freed last is kept even if it is larger than the cap, the likeliest to be wanted
 * again, unless the thread never asked for one. */
void pa_bins_put_locked(pa_mcache *c, pa_span *s);
/* The same for an empty span of a small class. */
void pa_bins_put_empty_locked(pa_mcache *c, pa_span *s);
/* A cached span of min_pages to max_pages, best fit by bin, live now; NULL: there is none. */
pa_span *pa_bins_take(pa_mcache *c, size_t min_pages, size_t max_pages);
/* A span of npages to max_pages, live, cut from a larger cached one or joined from neighbours; NULL when the bins have
 * no such pages in a row. */
pa_span *pa_bins_make_locked(pa_mcache *c, size_t npages, size_t max_pages);
/* A live large span from the heap. Bins that hold as many pages, but not in a row, go back in the same visit, for up to
 * most_pages (npages or more) that are: the heap joins them with its own, and the rest serves the next sizes. */
pa_span *pa_bins_trade_locked(pa_mcache *c, size_t npages, size_t align_pages, size_t most_pages);

#endif
