/* mcentral.h - per class, locked: spans that no thread owns.
 *
 * Explicit spans are "listed" here (heap/remote.h). Counts of listed spans, of the list and of all,
 * are read racily so that an empty list costs no lock and lists that were never used are never touched.
 */
#ifndef PA_MCENTRAL_H
#define PA_MCENTRAL_H

#include "heap/heap.h"

/* Lists an owned explicit span that has free blocks. Caller owned it and owns it no longer. */
void pa_mcentral_put(pa_heap *h, pa_span *s);
/* The same for all spans of a list of that class; the list is empty afterwards. Takes the lock once. */
void pa_mcentral_put_list(pa_heap *h, unsigned size_class, pa_spanlist *spans);
/* Takes the oldest listed span for new_owner, collected; NULL when there is none. Wholly free spans met
 * on the way go back to the heap. The owner of the result is new_owner. */
pa_span *pa_mcentral_take(pa_heap *h, unsigned size_class, pa_mcache *new_owner);
/* Takes up to max_spans of a class off their list, oldest first, linked through next; uncollected. They are the
 * caller's, who keeps fork out, until it frees them or puts them back. */
pa_span *pa_mcentral_detach(pa_heap *h, unsigned size_class, uint32_t max_spans);
/* Spans listed for a class, racily. */
uint32_t pa_mcentral_count(pa_heap *h, unsigned size_class);

typedef struct pa_mcentral_ticked {
    uint32_t spans, freed; /* looked at; of those, returned to the heap */
    uint64_t blocks;       /* collected */
} pa_mcentral_ticked;
/* Collects up to max_spans of a class, oldest first, returns empty ones to the heap. Says what it did. */
pa_mcentral_ticked pa_mcentral_tick(pa_heap *h, unsigned size_class, uint32_t max_spans);
/* The tick for every class, all spans. */
void pa_mcentral_collect_all(pa_heap *h);

#endif
