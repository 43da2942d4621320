/* lockstat.h - how often each rank's locks are taken, waited for, and how long they are held.
 *
 * Off unless PYALLOC_DEBUG=lockstat=1. Off, a lock costs what it costs without this file (see pa_lock_free_word in
 * lock.h); on, every acquisition reads the clock twice and adds to counters that all threads share.
 * Counters are relaxed atomics: a reader may see a time without its count, never a torn number.
 */
#ifndef PA_LOCKSTAT_H
#define PA_LOCKSTAT_H

#include "base/lock.h"

typedef struct pa_lockstat {
    uint64_t acquisitions;      /* since statistics began */
    uint64_t waits;             /* of those, found it held */
    uint64_t wait_ns, wait_max_ns;
    uint64_t hold_ns, hold_max_ns; /* of those that were given back; holds of more than 4 s count modulo that */
} pa_lockstat;

/* Begins, once, with the clock to read. Locks that are held just now are not counted. Any thread. */
void pa_lockstat_start(uint64_t (*now_ns)(void));
/* Name of a rank, "MHEAP" and so on, and its figures; NULL for no rank, or when statistics are off. */
const char *pa_lockstat_read(unsigned rank, pa_lockstat *out);

/* For lock.c. Now; 0 when statistics are off. */
uint64_t pa_lockstat_now_ns(void);
/* The part of a lock's word that says when it was taken. One time in 2^30 it is 0, and that hold is not counted. */
PA_INLINE uint32_t pa_lockstat_mark(uint64_t now_ns)
{
    return (uint32_t)(now_ns >> 2) << PA_LOCK_MARK_SHIFT;
}
void pa_lockstat_taken(unsigned rank, uint64_t from_ns, uint64_t taken_ns, bool waited);
/* A lock that was taken at `mark` is free again. */
void pa_lockstat_given_back(unsigned rank, uint32_t mark);

#endif
