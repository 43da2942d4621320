/* lock.c - slow halves of the futex mutex, and the rank checker.
 *
 * Three states as in Drepper, "Futexes Are Tricky" (2011): free, held, held and somebody sleeps.  A waiter always
 * leaves the sleepers' bit set, so the holder knows that it must wake somebody; the rest of the word is the holder's
 * (lockstat.h).  We spin a little first: mheap's critical sections
 * are shorter than a context switch.  What a thread holds is kept per rank and exists only in checked builds.
 */
#include "base/lock.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/lockstat.h"

enum { SPINS = 100 };

_Atomic uint32_t pa_lock_free_word;

/* Takes l if it is free. bits: to be set beside PA_LOCK_HELD. *now_ns: when, 0 while statistics are off. */
static bool take(pa_lock *l, uint32_t bits, uint64_t *now_ns)
{
    uint32_t expected = 0;
    if (atomic_load_explicit(&l->state, memory_order_relaxed) != 0)
        return false;
    if ((*now_ns = pa_lockstat_now_ns()) != 0)
        bits |= pa_lockstat_mark(*now_ns);
    return atomic_compare_exchange_strong_explicit(&l->state, &expected, PA_LOCK_HELD | bits, memory_order_acquire,
                                                   memory_order_relaxed);
}

static bool spin(pa_lock *l, uint64_t *now_ns)
{
    for (int i = 0; i < SPINS; i++) {
        pa_cpu_relax();
        if (take(l, 0, now_ns))
            return true;
    }
    return false;
}

/* Others may sleep as well, so the bit stays once this has slept. */
static void sleep_until_taken(pa_lock *l, uint64_t *now_ns)
{
    int saved_errno = errno;
    while (!take(l, PA_LOCK_SLEEPERS, now_ns)) {
        uint32_t old = atomic_load_explicit(&l->state, memory_order_relaxed);
        if (old == 0 || (!(old & PA_LOCK_SLEEPERS) &&
                         !atomic_compare_exchange_strong_explicit(&l->state, &old, old | PA_LOCK_SLEEPERS,
                                                                  memory_order_relaxed, memory_order_relaxed)))
            continue;
        syscall(SYS_futex, &l->state, FUTEX_WAIT_PRIVATE, old | PA_LOCK_SLEEPERS, NULL, NULL, 0);
    }
    errno = saved_errno;
}

void pa_lock_acquire_slow(pa_lock *l)
{
    uint64_t from_ns = pa_lockstat_now_ns(), now_ns = 0;
    bool waited = !take(l, 0, &now_ns);
    if (waited && !spin(l, &now_ns))
        sleep_until_taken(l, &now_ns);
    if (now_ns)
        pa_lockstat_taken(l->rank, from_ns ? from_ns : now_ns, now_ns, waited);
}

bool pa_lock_try_acquire_slow(pa_lock *l)
{
    uint64_t now_ns = 0;
    if (PA_LIKELY(atomic_load_explicit(&pa_lock_free_word, memory_order_relaxed) == 0) || !take(l, 0, &now_ns))
        return false;
    if (now_ns)
        pa_lockstat_taken(l->rank, now_ns, now_ns, false);
    return true;
}

void pa_lock_release_slow(pa_lock *l, uint32_t old)
{
    if (old >> PA_LOCK_MARK_SHIFT)
        pa_lockstat_given_back(l->rank, old & ~(uint32_t)(PA_LOCK_HELD | PA_LOCK_SLEEPERS));
    if (!(old & PA_LOCK_SLEEPERS))
        return;
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
