/* thin.h - which spans in use lose the OS pages of their free blocks (heap/hollow.h), and when.
 *
 * A page goes when nothing was allocated from its span, or its blocks were taken aside and not missed, for a second or
 * more: the time for which heap/decay.h keeps whole free pages for a peak to come.  Owners look at their own spans in
 * slow paths; heap/idle.c looks at those of sleepers and of nobody.
 */
#ifndef PA_THIN_H
#define PA_THIN_H

#include "heap/mcache.h"
#include "heap/mcentral.h"

/* Somebody who looks at spans: when, why, and what came of it. */
typedef struct pa_thinner {
    pa_heap *heap;
    uint32_t now;              /* pa_thin_clock */
    pa_release_reason reason;
    bool at_once;              /* whether they were idle or not: somebody wants the memory now */
    bool later;                /* out: some are not idle for long enough yet */
    uint64_t misses;           /* out: cache misses that it cost, about */
    size_t released_bytes;     /* out */
} pa_thinner;

/* A quarter of a second and a bit; never 0. */
uint32_t pa_thin_clock(uint64_t now_ns);

/* A span from which nobody allocates meanwhile. Something keeps fork out. Its owner may free into it if keep_head. */
void pa_thin_span(pa_thinner *t, pa_span *s, bool keep_head);
/* Up to max_spans that are listed for a class, oldest first: collects, gives wholly free ones to the heap. */
pa_mcentral_ticked pa_thin_listed(pa_thinner *t, unsigned size_class, uint32_t max_spans);
/* All that are listed. */
void pa_thin_all_listed(pa_thinner *t);

/* ---- The owner, in a slow path, c->slow held ---- */

/* Time for another lap over all spans. */
void pa_thin_begin_locked(pa_mcache *c, uint64_t now_ns);
/* Goes on with it, as far as one slow path may. */
void pa_thin_step_locked(pa_mcache *c, uint64_t now_ns);
PA_INLINE bool pa_thin_is_due(const pa_mcache *c)
{
    return c->thin_class < PA_SIZE_CLASSES && c->thin_left;
}
/* All of c's spans. */
void pa_thin_all_locked(pa_mcache *c, pa_thinner *t);

#endif
