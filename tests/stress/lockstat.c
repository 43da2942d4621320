/* lockstat.c - what the statistics of locks say is what happened (base/lockstat.h).
 *
 *     lockstat [rounds] [threads]
 *
 * By a clock that the program sets: taken, held, waited for.  Locks that were taken before statistics began are given
 * back without a trace.  Then many threads and one lock: it excludes, nobody is lost asleep, and the counts add up,
 * with statistics on and off.
 */
#include "base/lockstat.h"

#include "stress.h"

enum { MOST_THREADS = 16 };

static _Atomic uint64_t time_ns = 1000;

static uint64_t set_clock(void)
{
    return atomic_load(&time_ns);
}

static pa_lockstat figures(unsigned rank)
{
    pa_lockstat s;
    REQUIRE(pa_lockstat_read(rank, &s) != NULL);
    return s;
}

/* ---- By hand ---- */

static pa_lock early = {.rank = PA_RANK_WORLD}, one = {.rank = PA_RANK_ROOTS}, other = {.rank = PA_RANK_SWEEP};

static void holds(void)
{
    pa_lock_acquire(&one);
    time_ns += 400;
    pa_lock_release(&one);
    pa_lock_acquire(&one);
    time_ns += 100;
    pa_lock_release(&one);
    pa_lockstat s = figures(PA_RANK_ROOTS);
    REQUIRE(s.acquisitions == 2 && s.waits == 0 && s.wait_ns == 0);
    REQUIRE(s.hold_ns == 500 && s.hold_max_ns == 400, "%" PRIu64 " %" PRIu64, s.hold_ns, s.hold_max_ns);
    REQUIRE(one.acquisitions == 2 && atomic_load(&one.state) == 0);
    REQUIRE(pa_lock_try_acquire(&one) && !pa_lock_try_acquire(&one));
    time_ns += 4000;
    pa_lock_release(&one);
    s = figures(PA_RANK_ROOTS);
    REQUIRE(s.acquisitions == 3 && s.hold_ns == 4500 && s.hold_max_ns == 4000);
    REQUIRE(strcmp(pa_lockstat_read(PA_RANK_ROOTS, &s), "ROOTS") == 0);
    REQUIRE(!pa_lockstat_read(PA_RANK_NONE, &s) && !pa_lockstat_read(1000, &s));
}

static void *wait_for_other(void *unused)
{
    pa_lock_acquire(&other);
    pa_lock_release(&other);
    return unused;
}

/* Asleep: its waiter's bit is in the lock's word. */
static void waits(void)
{
    pthread_t id;
    pa_lock_acquire(&other);
    REQUIRE(pthread_create(&id, NULL, wait_for_other, NULL) == 0);
    while (!(atomic_load(&other.state) & PA_LOCK_SLEEPERS))
        sched_yield();
    time_ns += 800;
    pa_lock_release(&other);
    REQUIRE(pthread_join(id, NULL) == 0);
    pa_lockstat s = figures(PA_RANK_SWEEP);
    REQUIRE(s.acquisitions == 2 && s.waits == 1 && s.wait_ns == 800 && s.wait_max_ns == 800, "%" PRIu64, s.wait_ns);
    REQUIRE(s.hold_ns == 800);
}

/* ---- Many threads ---- */

static pa_lock shared = {.rank = PA_RANK_LEAF};
static uint64_t inside, entries;
static long rounds;

static void *contend(void *unused)
{
    for (long i = 0; i < rounds; i++) {
        if (i % 8 != 7)
            pa_lock_acquire(&shared);
        else if (!pa_lock_try_acquire(&shared))
            continue;
        REQUIRE(inside++ == 0);
        entries++;
        if (i % 64 == 0)
            sched_yield();
        inside--;
        pa_lock_release(&shared);
    }
    return unused;
}

static uint64_t contend_all(long threads)
{
    pthread_t ids[MOST_THREADS];
    uint64_t before = entries;
    for (long i = 0; i < threads; i++)
        REQUIRE(pthread_create(&ids[i], NULL, contend, NULL) == 0);
    for (long i = 0; i < threads; i++)
        REQUIRE(pthread_join(ids[i], NULL) == 0);
    REQUIRE(atomic_load(&shared.state) == 0 && shared.acquisitions == entries);
    return entries - before;
}

int main(int argc, char **argv)
{
    rounds = argument(argc, argv, 1, 20000);
    long threads = argument(argc, argv, 2, 4);
    pa_lockstat s;
    REQUIRE(threads >= 1 && threads <= MOST_THREADS);
    contend_all(threads);
    REQUIRE(!pa_lockstat_read(PA_RANK_LEAF, &s), "statistics are off");
    pa_lock_acquire(&early);
    pa_lockstat_start(set_clock);
    time_ns += 100;
    pa_lock_release(&early);
    s = figures(PA_RANK_WORLD);
    REQUIRE(s.acquisitions == 0 && s.hold_ns == 0);
    holds();
    waits();
    uint64_t taken = contend_all(threads);
    s = figures(PA_RANK_LEAF);
    REQUIRE(s.acquisitions == taken && s.waits <= taken, "%" PRIu64 " of %" PRIu64, s.acquisitions, taken);
    printf("lockstat: %" PRIu64 " of %" PRIu64 " waited\n", s.waits, taken);
    return 0;
}
