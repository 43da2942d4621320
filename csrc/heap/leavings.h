/* leavings.h - the partial spans of threads that have exited, together, for the next thread that needs any.
 *
 * Servers hand work from thread to thread.  Listed in mcentral class by class and taken one by one, what a thread
 * leaves costs a lock for each span, twice; here it costs one visit when it comes and one for many spans when it goes.
 */
#ifndef PA_LEAVINGS_H
#define PA_LEAVINGS_H

#include "base/lock.h"
#include "heap/spanlist.h"

struct pa_heap;

typedef struct pa_leavings {
    pa_lock lock;               /* rank MCENTRAL; never held together with one of mcentral, but by fork */
    uint32_t count;             /* of all; written under lock, read racily so that none costs no lock */
    bool refused;               /* for tests: all goes to mcentral at once */
    /* By class, oldest first: since the last look of heap/idle.c, and from before. Under lock, counts of both, too */
    pa_spanlist fresh[PA_SIZE_CLASSES], seen[PA_SIZE_CLASSES];
    uint32_t count_of[PA_SIZE_CLASSES];
} pa_leavings;

/* Takes over the partial spans of an mcache that is being cleared out (its slow-path lock is held). False when it would
 * rather have them listed. */
bool pa_leavings_add(struct pa_heap *h, pa_mcache *c);
/* Gives c, whose slow-path lock is held, some of the oldest of the class, and of all others. They are partial spans of
 * c then, collected; those that became empty are in its bins. Nothing happens where there is none of the class. */
void pa_leavings_take(struct pa_heap *h, pa_mcache *c, unsigned size_class);
/* Lists in mcentral what was here at the last call already, or all at once. The caller holds a slow-path lock or the
 * decay lock: on their way spans are on no list, so fork must be kept out. */
void pa_leavings_list(struct pa_heap *h, bool at_once);
/* A fork child: all spans are listed another way. */
void pa_leavings_reset_child(struct pa_heap *h);

#endif
