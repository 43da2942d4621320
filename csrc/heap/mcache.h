/* mcache.h - what one thread owns: the fast paths' tables and everything behind a miss.
 *
 * An mcache belongs to one thread; nobody else touches it but a fork child and, under `slow`, whoever
 * cleans up for it.  Fast paths (api/malloc.c) read `direct`, `current` and the bins only.
 *
 * Spans of a small class that an mcache owns are current (one a class: malloc pops from it) or partial
 * (a list a class, oldest first).  Full ones are abandoned, empty ones go to the bins.
 * The current span's `live` is one too high (the "bias"), so that a free can tell by the count
 * reaching zero that a span became empty and is not current.
 *
 * Bins keep empty spans of 1..512 pages, 8 bins a doubling, for the next span of any class or size.
 */
#ifndef PA_MCACHE_H
#define PA_MCACHE_H

#include "base/bits.h"
#include "heap/heap.h"
#include "heap/mheap.h"

enum {
    PA_DIRECT_COUNT = 130,
    PA_BIN_COUNT = 64,
    PA_BIN_MAX_PAGES = 512,
    PA_BIN_CAP_PAGES = 512, /* kept at most, 4 MiB; half of it goes back when exceeded */
};

struct pa_mcache {
    /* Fast path. Every entry starts at the static empty span, so nothing is tested for NULL. */
    pa_span *direct[PA_DIRECT_COUNT];   /* by (size + 7) / 8, up to 1 KiB */
    pa_span *current[PA_SIZE_CLASSES];
    uint64_t bin_bits;                  /* bit i: bin[i] is not empty */
    pa_span *bin[PA_BIN_COUNT];         /* last in, first out, linked through next */
    uint32_t bin_pages;
    /* Slow path. */
    uint32_t trim_seen;                 /* heap's trim_generation when last flushed */
    uint32_t slow_calls;
    pa_lock slow;                       /* rank PROC_SLOW; held in slow paths, uncontended but for fork */
    pa_heap *heap;
    pa_page_stock stock;
    pa_spanlist partial[PA_SIZE_CLASSES];
    uint8_t run_level[PA_SIZE_CLASSES];
};

void pa_mcache_init(pa_mcache *c, pa_heap *h);

/* Makes a span with a free block current for the class and returns it; NULL when out of memory. */
pa_span *pa_mcache_refill(pa_mcache *c, unsigned size_class);
/* A span of c other than the current one became empty (live reached 0). */
void pa_mcache_span_emptied(pa_mcache *c, pa_span *s);
/* c's push claimed an abandoned span. */
void pa_mcache_claim(pa_mcache *c, pa_span *s);
/* A large span of npages, formatted, live; NULL when out of memory. Bins first. */
pa_span *pa_mcache_alloc_large(pa_mcache *c, size_t npages, size_t align_pages);
/* Frees a large span (state MANUAL, class 0) of any thread: into the bins, or to the heap. */
void pa_mcache_free_large(pa_mcache *c, pa_span *s);
/* Gives back what can be had without breaking up spans in use: bins, page stock, empty spans. */
void pa_mcache_trim(pa_mcache *c);
/* Gives everything back: partial spans are listed, full ones abandoned. c owns nothing afterwards. */
void pa_mcache_release_all(pa_mcache *c);

/* Bin of spans of npages pages: exact up to 16, then 8 a doubling. Precondition: 1 <= npages <= 512. */
PA_INLINE unsigned pa_bin_of(size_t npages)
{
    if (npages <= 16)
        return (unsigned)npages - 1;
    unsigned e = pa_log2_floor(npages);
    return 16 + (e - 4) * 8 + ((unsigned)(npages >> (e - 3)) & 7);
}

/* First span in bin i, taken out. Precondition: the bin is not empty. */
PA_INLINE pa_span *pa_mcache_bin_pop(pa_mcache *c, unsigned i)
{
    pa_span *s = c->bin[i];
    if ((c->bin[i] = s->next) == NULL)
        c->bin_bits &= ~((uint64_t)1 << i);
    c->bin_pages -= s->npages;
    return s;
}

#endif
