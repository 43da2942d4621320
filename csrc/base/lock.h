/* lock.h - a futex mutex with a rank.
 *
 * Locks are taken in ascending rank; equal ranks only in ascending address (fork takes all of them).
 * Builds with PA_ASSERT_LEVEL >= 1 check the order on every acquisition.  A lock is zero-initialised
 * memory plus a rank; it needs no destructor and survives fork by pa_lock_reset_child.
 */
#ifndef PA_LOCK_H
#define PA_LOCK_H

#include "base/atomics.h"
#include "base/config.h"

/* Ranks, lowest first; DESIGN section 3 has the whole order, this is the part that exists. */
#define PA_LOCK_RANKS(X) \
    X(GC_FORK)           \
    X(GC_CYCLE)          \
    X(WORLD)             \
    X(GC)                \
    X(PROFILING)         \
    X(PROC_LIST)         \
    X(PROC_SLOW)         \
    X(ROOTS)             \
    X(SWEEP)             \
    X(SPECIAL)           \
    X(SCAVENGE)          \
    X(MCENTRAL)          \
    X(WORKBUF)           \
    X(MHEAP)             \
    X(OFFHEAP)           \
    X(PROFILE)           \
    X(TRACE)             \
    X(LEAF)

typedef enum pa_lock_rank {
    PA_RANK_NONE = 0,
#define X(name) PA_RANK_##name,
    PA_LOCK_RANKS(X)
#undef X
} pa_lock_rank;

/* Bits of a lock's word, 0 when it is free; above them, while statistics are on, when it was taken (lockstat.h). */
enum { PA_LOCK_HELD = 1, PA_LOCK_SLEEPERS = 2, PA_LOCK_MARK_SHIFT = 2 };

typedef struct pa_lock {
    /* See above. Written by lockers and unlockers (acquire on taking, release on giving back: the lock is the only
     * ordering its data needs) and, its sleepers' bit, by who waits. */
    _Atomic uint32_t state;
    uint32_t rank;
    /* Acquisitions so far. Written by the holder only; read racily by statistics. */
    uint64_t acquisitions;
} pa_lock;

#define PA_LOCK_INIT(rank_name) {.rank = PA_RANK_##rank_name}

/* What an inline acquisition expects to find: 0, or, once statistics are on, a word that no lock ever has, so that
 * each takes the slow path, which measures. Written once, by pa_lockstat_start; read relaxed: late is fine. */
extern PA_HIDDEN _Atomic uint32_t pa_lock_free_word;
#define PA_LOCK_NEVER ((uint32_t)PA_LOCK_SLEEPERS)

void pa_lock_acquire_slow(pa_lock *l);
bool pa_lock_try_acquire_slow(pa_lock *l);
/* old: its word when it was given back. */
void pa_lock_release_slow(pa_lock *l, uint32_t old);
void pa_lock_rank_push(const pa_lock *l);
void pa_lock_rank_push_tried(const pa_lock *l);
void pa_lock_rank_pop(const pa_lock *l);

PA_INLINE void pa_lock_acquire(pa_lock *l)
{
    if (PA_ASSERT_LEVEL >= 1)
        pa_lock_rank_push(l);
    uint32_t expected = atomic_load_explicit(&pa_lock_free_word, memory_order_relaxed);
    if (PA_UNLIKELY(!atomic_compare_exchange_strong_explicit(&l->state, &expected, PA_LOCK_HELD,
                                                             memory_order_acquire, memory_order_relaxed)))
        pa_lock_acquire_slow(l);
    pa_owner_add(&l->acquisitions, 1);
}

/* Takes l if nobody has it. Cannot deadlock, so equal ranks may be tried in any order; lower ones may not. */
PA_INLINE bool pa_lock_try_acquire(pa_lock *l)
{
    uint32_t expected = atomic_load_explicit(&pa_lock_free_word, memory_order_relaxed);
    if (!atomic_compare_exchange_strong_explicit(&l->state, &expected, PA_LOCK_HELD, memory_order_acquire,
                                                 memory_order_relaxed) &&
        !pa_lock_try_acquire_slow(l))
        return false;
    if (PA_ASSERT_LEVEL >= 1)
        pa_lock_rank_push_tried(l);
    pa_owner_add(&l->acquisitions, 1);
    return true;
}

PA_INLINE void pa_lock_release(pa_lock *l)
{
    if (PA_ASSERT_LEVEL >= 1)
        pa_lock_rank_pop(l);
    uint32_t old = atomic_exchange_explicit(&l->state, 0, memory_order_release);
    if (PA_UNLIKELY(old != PA_LOCK_HELD))
        pa_lock_release_slow(l, old);
}

/* In a fork child: the forking thread held l, the sleepers are gone. */
void pa_lock_reset_child(pa_lock *l);

#endif
