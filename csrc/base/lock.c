/* lock.c - slow halves of the futex mutex, and the rank checker.
 *
 * Three states as in Drepper, "Futexes Are Tricky" (2011): a waiter always leaves the word at 2, so
 * the holder knows that it must wake somebody.  We spin a little first: mheap's critical sections
 * are shorter than a context switch.  What a thread holds is kept per rank and exists only in checked builds.
 */
#include "base/lock.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/assert.h"

enum { SPINS = 100 };

void pa_lock_acquire_slow(pa_lock *l)
{
    for (int i = 0; i < SPINS; i++) {
        uint32_t expected = 0;
        if (atomic_load_explicit(&l->state, memory_order_relaxed) == 0 &&
            atomic_compare_exchange_weak_explicit(&l->state, &expected, 1, memory_order_acquire,
                                                  memory_order_relaxed))
            return;
        pa_cpu_relax();
    }
    int saved_errno = errno;
    while (atomic_exchange_explicit(&l->state, 2, memory_order_acquire) != 0)
        syscall(SYS_futex, &l->state, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
    errno = saved_errno;
}

void pa_lock_release_slow(pa_lock *l)
{
    int saved_errno = errno;
    syscall(SYS_futex, &l->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    errno = saved_errno;
}

void pa_lock_reset_child(pa_lock *l)
{
    if (PA_ASSERT_LEVEL >= 1)
        pa_lock_rank_pop(l);
    atomic_store_explicit(&l->state, 0, memory_order_release);
}

#if PA_ASSERT_LEVEL >= 1
/* What the thread holds, by rank: small, because a library's thread-local space is. */
enum {
#define X(name) +1
    RANKS = 1 PA_LOCK_RANKS(X)
#undef X
};
static PA_TLS struct {
    uint32_t count;
    const pa_lock *highest;
} held[RANKS];

/* Slow paths begin with a lock of rank PROC_LIST or PROC_SLOW, statistics and collections with a lower one.  To take
 * one of these again, or while holding what such a path takes later, is to be in a second call inside the first. In
 * other builds it may deadlock, as in the C library. */
static void check_no_reentry(const pa_lock *l)
{
    if (l->rank > PA_RANK_PROC_SLOW)
        return;
    bool inside = l->rank == PA_RANK_PROC_SLOW ? held[l->rank].count && held[l->rank].highest == l
                                               : held[PA_RANK_PROC_SLOW].count != 0;
    for (unsigned r = PA_RANK_PROC_SLOW + 1; r < RANKS; r++)
        inside |= held[r].count != 0;
    if (PA_LIKELY(!inside))
        return;
    pa_log_line("the allocator was entered again by a thread that is inside it (malloc or free in a signal handler?)");
    abort();
}

void pa_lock_rank_push(const pa_lock *l)
{
    PA_CHECK(l->rank != PA_RANK_NONE && l->rank < RANKS);
    check_no_reentry(l);
    for (unsigned r = l->rank + 1; r < RANKS; r++)
        PA_CHECK(held[r].count == 0); /* a lock of a higher rank is held: wrong order */
    PA_CHECK(held[l->rank].count == 0 || held[l->rank].highest < l); /* equal rank: ascending addresses */
    held[l->rank].count++;
    held[l->rank].highest = l;
}

/* Leaves `highest` at the lock that was waited for: one that was only tried is given back before that. */
void pa_lock_rank_push_tried(const pa_lock *l)
{
    for (unsigned r = l->rank + 1; r < RANKS; r++)
        PA_CHECK(held[r].count == 0);
    held[l->rank].count++;
}

void pa_lock_rank_pop(const pa_lock *l)
{
    PA_CHECK(held[l->rank].count > 0);
    held[l->rank].count--;
}
#else
void pa_lock_rank_push(const pa_lock *l)
{
    (void)l;
}

void pa_lock_rank_push_tried(const pa_lock *l)
{
    (void)l;
}

void pa_lock_rank_pop(const pa_lock *l)
{
    (void)l;
}
#endif
