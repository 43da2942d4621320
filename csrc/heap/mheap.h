/* mheap.h - pages for spans: the global lock, growth by arenas, release to the OS. */
#ifndef PA_MHEAP_H
#define PA_MHEAP_H

#include "heap/heap.h"
#include "pages/pagecache.h"

/* Span headers that a visit fills up to, and room for those of spans that were joined (heap/pieces.h). */
enum { PA_SPARE_HEADERS = 8, PA_MOST_HEADERS = 32 };

/* What a thread keeps so that small page runs need no lock. Owned by one mcache. */
typedef struct pa_page_stock {
    pa_pagecache cache;
    uint32_t header_count;
    pa_span *headers[PA_MOST_HEADERS];
} pa_page_stock;

/* A span of npages (>= 1), state MANUAL, in the page table, not formatted. align_pages is a power of
 * two. NULL when out of memory. */
pa_span *pa_mheap_alloc_span(pa_heap *h, size_t npages, size_t align_pages);
/* The same for small classes, which can do with less: min_pages up to npages, a multiple of it. Fills the lowest
 * holes instead of asking for fresh memory. Runs shorter than 16 pages come from the thread's stock. */
pa_span *pa_mheap_alloc_run(pa_heap *h, pa_page_stock *stock, size_t min_pages, size_t npages);
/* Gives the pages and the header back. Nobody may hold the span. */
void pa_mheap_free_span(pa_heap *h, pa_span *s);
/* The same for one all of whose pages pa_vm_release took. */
void pa_mheap_free_released_span(pa_heap *h, pa_span *s);
/* Spans in use got holes, many at once: the background thread, if one is wanted, should be there when the thread that
 * made them falls asleep. */
void pa_mheap_notice_holes(pa_heap *h);
/* The same for a list linked through next; takes the lock once. */
void pa_mheap_free_span_list(pa_heap *h, pa_span *first);
/* Both in one visit: frees a list (NULL: nothing), then hands out npages. Fills up the stock's headers, with which its
 * thread can cut spans of its own (heap/pieces.h). */
pa_span *pa_mheap_trade(pa_heap *h, pa_page_stock *stock, pa_span *first, size_t npages, size_t align_pages);
/* Grows a large span in place by the pages right behind it; false when they are not free. */
bool pa_mheap_extend_span(pa_heap *h, pa_span *s, size_t npages);
/* Cuts a large span to its first npages. */
void pa_mheap_shrink_span(pa_heap *h, pa_span *s, size_t npages);
/* Empties a thread's stock into the heap. */
void pa_mheap_flush_stock(pa_heap *h, pa_page_stock *stock);

#endif
