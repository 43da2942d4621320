/* pieces.c - one empty span becomes two, two become one.
 *
 * Owns nothing and takes no lock: the pages are the caller's, nobody holds a block in them, and headers come from and
 * go to the caller's stock.  Others may look while it happens (heap/walk.c, diagnoses of foreign pointers): a header is
 * complete before the page table names it, and walks believe the table where a length disagrees.
 * Invariant: every page of a span names it in the page table, before and after.
 */
#include "heap/pieces.h"

pa_span *pa_span_cut(pa_heap *h, pa_page_stock *stock, pa_span *s, size_t npages)
{
    PA_ASSERT(npages >= 1 && npages < s->npages);
    if (stock->header_count == 0)
        return NULL;
    pa_span *rest = stock->headers[--stock->header_count];
    pa_owner_set(&rest->base, s->base + (npages << PA_PAGE_SHIFT));
    pa_span_set_npages(rest, s->npages - npages);
    rest->needs_zero = s->needs_zero;
    rest->next = rest->prev = NULL;
    rest->pins = 0;
    pa_span_format_large(rest);
    pa_span_set_state(rest, PA_SPAN_CACHED);
    pa_space_set(rest, rest);
    pa_span_set_npages(s, npages);
    pa_span_format_large(s);
    atomic_fetch_add_explicit(&h->spans_allocated, 1, memory_order_relaxed);
    return rest;
}

bool pa_span_join(pa_heap *h, pa_page_stock *stock, pa_span *low, pa_span *high)
{
    PA_ASSERT(low->base + pa_span_bytes(low) == high->base && pa_span_state_racy(high) == PA_SPAN_CACHED);
    if (stock->header_count == PA_MOST_HEADERS)
        return false;
    pa_owner_set(&high->tail, 0);
    pa_span_set_state(high, PA_SPAN_DEAD);
    pa_space_set(high, low);
    pa_span_set_npages(low, low->npages + high->npages);
    pa_span_format_large(low);
    low->needs_zero |= high->needs_zero;
    stock->headers[stock->header_count++] = high;
    atomic_fetch_add_explicit(&h->spans_freed, 1, memory_order_relaxed);
    return true;
}
