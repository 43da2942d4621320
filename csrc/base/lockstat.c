/* lockstat.c - the counters behind PYALLOC_DEBUG=lockstat=1.
 *
 * Owns one line of counters a rank; no lock.  The time a lock was taken travels in the lock's own word (30 bits of
 * 4 ns, lock.h), so that whoever gives it back gets it from the exchange that frees the lock: nothing is read from
 * the lock afterwards but its rank, and no thread needs storage of its own.  What is added is added after the lock is
 * free, so counting does not lengthen what is counted.
 */
#include "base/lockstat.h"

typedef struct PA_ALIGNED(64) counters {
    _Atomic uint64_t acquisitions, waits, wait_ns, wait_max_ns, hold_ns, hold_max_ns;
} counters;

static const char names[][16] = { /* no pointers: each would be a relocation in every program */
    "NONE",
#define X(name) #name,
    PA_LOCK_RANKS(X)
#undef X
};
enum { RANKS = sizeof names / sizeof *names };

static counters of_rank[RANKS];
/* Set once, with release, before pa_lock_free_word is; read with acquire. */
static uint64_t (*_Atomic clock_ns)(void);

void pa_lockstat_start(uint64_t (*now_ns)(void))
{
    atomic_store_explicit(&clock_ns, now_ns, memory_order_release);
    atomic_store_explicit(&pa_lock_free_word, PA_LOCK_NEVER, memory_order_relaxed);
}

uint64_t pa_lockstat_now_ns(void)
{
    uint64_t (*now_ns)(void) = atomic_load_explicit(&clock_ns, memory_order_acquire);
    return PA_LIKELY(!now_ns) ? 0 : now_ns();
}

static void add(_Atomic uint64_t *sum, _Atomic uint64_t *highest, uint64_t ns)
{
    atomic_fetch_add_explicit(sum, ns, memory_order_relaxed);
    uint64_t old = atomic_load_explicit(highest, memory_order_relaxed);
    while (old < ns &&
           !atomic_compare_exchange_weak_explicit(highest, &old, ns, memory_order_relaxed, memory_order_relaxed))
        continue;
}

static counters *counters_of(unsigned rank)
{
    return &of_rank[rank < RANKS ? rank : PA_RANK_NONE];
}

void pa_lockstat_taken(unsigned rank, uint64_t from_ns, uint64_t taken_ns, bool waited)
{
    counters *c = counters_of(rank);
    atomic_fetch_add_explicit(&c->acquisitions, 1, memory_order_relaxed);
    if (!waited)
        return;
    atomic_fetch_add_explicit(&c->waits, 1, memory_order_relaxed);
    add(&c->wait_ns, &c->wait_max_ns, taken_ns > from_ns ? taken_ns - from_ns : 0);
}

void pa_lockstat_given_back(unsigned rank, uint32_t mark)
{
    counters *c = counters_of(rank);
    uint32_t ticks = (pa_lockstat_mark(pa_lockstat_now_ns()) - mark) >> PA_LOCK_MARK_SHIFT;
    add(&c->hold_ns, &c->hold_max_ns, (uint64_t)ticks << 2);
}

const char *pa_lockstat_read(unsigned rank, pa_lockstat *out)
{
    if (rank == PA_RANK_NONE || rank >= RANKS || !atomic_load_explicit(&clock_ns, memory_order_relaxed))
        return NULL;
    counters *c = &of_rank[rank];
    *out = (pa_lockstat){
        .acquisitions = atomic_load_explicit(&c->acquisitions, memory_order_relaxed),
        .waits = atomic_load_explicit(&c->waits, memory_order_relaxed),
        .wait_ns = atomic_load_explicit(&c->wait_ns, memory_order_relaxed),
        .wait_max_ns = atomic_load_explicit(&c->wait_max_ns, memory_order_relaxed),
        .hold_ns = atomic_load_explicit(&c->hold_ns, memory_order_relaxed),
        .hold_max_ns = atomic_load_explicit(&c->hold_max_ns, memory_order_relaxed),
    };
    return names[rank];
}
