/* spanlist.h - doubly linked list of spans through next/prev: first in, first out, O(1) unlink.
 * The owner of the list guards it. A zeroed list is empty. */
#ifndef PA_SPANLIST_H
#define PA_SPANLIST_H

#include "heap/span.h"

typedef struct pa_spanlist {
    pa_span *first, *last;
} pa_spanlist;

PA_INLINE void pa_spanlist_push_back(pa_spanlist *l, pa_span *s)
{
    s->next = NULL;
    s->prev = l->last;
    if (l->last)
        l->last->next = s;
    else
        l->first = s;
    l->last = s;
}

PA_INLINE void pa_spanlist_remove(pa_spanlist *l, pa_span *s)
{
    PA_INVARIANT(s->prev ? s->prev->next == s : l->first == s);
    if (s->prev)
        s->prev->next = s->next;
    else
        l->first = s->next;
    if (s->next)
        s->next->prev = s->prev;
    else
        l->last = s->prev;
    s->next = s->prev = NULL;
}

PA_INLINE pa_span *pa_spanlist_pop_front(pa_spanlist *l)
{
    pa_span *s = l->first;
    if (s)
        pa_spanlist_remove(l, s);
    return s;
}

#endif
