/* mark.h - taking grey objects out of a gcwork, marking and scanning them. */
#ifndef PA_MARK_H
#define PA_MARK_H

#include "heap/object.h"
#include "world/gcwork.h"

/* One marking thread's view. */
typedef struct pa_marker {
    pa_gcwork *work;
    unsigned plane;             /* where marks go: the cycle's mark plane, or checkmark's */
    uint64_t scanned_bytes;     /* scan work done: bytes of objects and ranges looked through */
    uint64_t marked_bytes;      /* slots newly marked */
} pa_marker;

/* Marks and scans until budget_bytes of scan work are done (false) or no work is left here and in the pool
 * (true). What is left stays in m->work. */
bool pa_mark_drain(pa_marker *m, uint64_t budget_bytes);
/* Looks through a range of pointer slots; precise: every word is a pointer, foreign or NULL. Else it is conservative:
 * any word may be anything. */
void pa_mark_range(pa_marker *m, uintptr_t from, uintptr_t to, bool precise);

/* Looks through [from, to) of a marked object (all of it when its layout is a type's). */
void pa_mark_scan_again(pa_marker *m, const pa_objref *o, uintptr_t from, uintptr_t to);

/* Sets the bit; true when it was clear. */
PA_INLINE bool pa_mark_set(uint64_t *word, uint64_t bit)
{
    return !(__atomic_load_n(word, __ATOMIC_RELAXED) & bit) &&
           !(__atomic_fetch_or(word, bit, __ATOMIC_RELAXED) & bit);
}

#endif
