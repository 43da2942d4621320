/* pieces.h - a thread's empty spans cut and joined where they lie, without the heap.
 *
 * For spans that are CACHED and in the hands of one thread: the caller holds its slow-path lock and is its owner.
 */
#ifndef PA_PIECES_H
#define PA_PIECES_H

#include "heap/mheap.h"

/* Leaves s its first npages and returns the rest as a span of its own, cached and formatted as large; NULL when the
 * stock has no header. Precondition: npages < s->npages. */
pa_span *pa_span_cut(pa_heap *h, pa_page_stock *stock, pa_span *s, size_t npages);
/* The pages of high, which begins where low ends, become low's; high's header goes to the stock. False when that has no
 * room. */
bool pa_span_join(pa_heap *h, pa_page_stock *stock, pa_span *low, pa_span *high);

#endif
