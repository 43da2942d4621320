/* managed.h - spans of the collector: made, handed to threads and taken back, swept, freed.
 *
 * A managed span is on its mcentral's `nonempty` list (free slots), on `empty` (none), unlisted with one P
 * (mcache), or large and on no list.  Sweeping one span returns an outcome; the caller files the span, so
 * that mcentral and the sweeper need not call each other.
 *
 *    sweepgen (pa_span.sweepgen against the heap's g)
 *
 *      end of marking: g += 2       CAS                    filed or cached
 *    g ------------------> g - 2 ---------> g - 1 (mine) ------------------> g
 *                                              \--- nothing marked: dead (pa_mheap_free_span)
 */
#ifndef PA_MANAGED_H
#define PA_MANAGED_H

#include "heap/gcside.h"
#include "heap/mheap.h"

typedef struct pa_sweep_outcome {
    uint32_t marked, freed; /* objects */
} pa_sweep_outcome;

/* A span with free slots for the class, swept, unlisted: the caller's P has it. Looks at `nonempty`, sweeps
 * `empty`, then asks mheap. NULL when out of memory. Adds to freed_bytes what its sweeping freed. */
pa_span *pa_managed_cache_span(pa_heap *h, pa_page_stock *stock, unsigned kind, unsigned size_class,
                               uint64_t *freed_bytes);
/* Takes such a span back from a P. */
void pa_managed_uncache_span(pa_heap *h, pa_span *s);
/* While marking, a P's span has the free slots of its window, and of the 64 that the window is part of, marked ahead:
 * an object is allocated black by being allocated, and the allocation path is the same as outside marking. By who has
 * the span, inside or in a stop: when marking begins and after each window is opened; taken back before the last one is
 * closed. Markers and conservative look-ups never meet a slot that was not handed out (bump). */
void pa_managed_mark_ahead(pa_span *s);
void pa_managed_unmark_ahead(pa_span *s);
/* Pages for one object of nbytes, not yet managed and known to nobody, so that the caller may stop and go while it
 * zeroes them; NULL when out of memory. Then: a span of one object; NULL when out of memory (s is given back). */
pa_span *pa_managed_take_large(pa_heap *h, size_t nbytes);
pa_span *pa_managed_make_large(pa_heap *h, pa_span *s, unsigned kind);

/* Makes the caller the sweeper of s when s needs it. */
PA_INLINE bool pa_managed_claim_sweep(pa_span *s, uint32_t sweepgen)
{
    uint32_t unswept = sweepgen - 2;
    return __atomic_load_n(&s->sweepgen, __ATOMIC_RELAXED) == unswept &&
           __atomic_compare_exchange_n(&s->sweepgen, &unswept, sweepgen - 1, false, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}
/* Frees what is unmarked: swaps the bits, clears the new mark bits, handles weak handles and cleanups.
 * Precondition: claimed. The span is swept, but still claimed: the caller files it. */
pa_sweep_outcome pa_managed_sweep(pa_heap *h, pa_span *s);
/* Sweeps a claimed span and files it; empty ones are pushed on *dead (linked through next), unpublished by
 * pa_managed_free_dead. Returns bytes freed. */
uint64_t pa_managed_sweep_and_file(pa_heap *h, pa_span *s, uint32_t sweepgen, pa_span **dead);
void pa_managed_free_dead(pa_heap *h, pa_span *dead);

/* Visits every managed span of which a page lies in [from, to) and which begins there. No lock; the caller makes
 * sure that spans do not come and go in a way that matters to it. */
void pa_managed_walk(uintptr_t from, uintptr_t to, void (*visit)(void *context, pa_span *s), void *context);

#endif
