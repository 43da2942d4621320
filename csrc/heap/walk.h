/* walk.h - visiting every span without stopping anybody. */
#ifndef PA_WALK_H
#define PA_WALK_H

#include "heap/heap.h"

/* What a racing reader can know of a span: each field was true at some instant of the visit. */
typedef struct pa_span_view {
    pa_span *span;
    uintptr_t base;
    size_t npages;
    uint32_t state; /* pa_span_state */
    unsigned size_class;
    unsigned kind;  /* pa_span_kind */
    uint32_t live;  /* the bias of a current span taken off; 1 or 0 for large ones; managed: allocated slots, those
                       that are dead and not yet swept among them */
} pa_span_view;

/* Any span header, any thread, no lock. */
pa_span_view pa_span_look(pa_span *s);
/* Calls visit for each span in use in address order; stops when it returns false. Any thread, no lock. */
void pa_heap_walk(pa_heap *h, bool (*visit)(void *context, const pa_span_view *view), void *context);

#endif
