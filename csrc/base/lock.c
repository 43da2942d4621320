/* lock.c - slow halves of the futex mutex, and the rank checker.
 *
 * Three states as in Drepper, "Futexes Are Tricky" (2011): a waiter always leaves the word at 2, so
 * the holder knows that it must wake somebody.  We spin a little first: mheap's critical sections
 * are shorter than a context switch.  The rank stack is per thread and exists only in checked builds.
 */
#include "base/lock.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/assert.h"

enum { SPINS = 100, MAX_HELD = 4096 };

PA_INLINE void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void pa_lock_acquire_slow(pa_lock *l)
{
    for (int i = 0; i < SPINS; i++) {
        uint32_t expected = 0;
        if (atomic_load_explicit(&l->state, memory_order_relaxed) == 0 &&
            atomic_compare_exchange_weak_explicit(&l->state, &expected, 1, memory_order_acquire,
                                                  memory_order_relaxed))
            return;
        cpu_relax();
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
static PA_TLS const pa_lock *held[MAX_HELD];
static PA_TLS unsigned held_count;

void pa_lock_rank_push(const pa_lock *l)
{
    PA_CHECK(l->rank != PA_RANK_NONE);
    PA_CHECK(held_count < MAX_HELD);
    if (held_count) {
        const pa_lock *top = held[held_count - 1];
        PA_CHECK(top->rank < l->rank || (top->rank == l->rank && top < l));
    }
    held[held_count++] = l;
}

void pa_lock_rank_pop(const pa_lock *l)
{
    /* Usually the top; fork releases in any order. */
    unsigned i = held_count;
    while (i > 0 && held[i - 1] != l)
        i--;
    PA_CHECK(i > 0);
    held_count--;
    for (; i - 1 < held_count; i++)
        held[i - 1] = held[i];
}
#else
void pa_lock_rank_push(const pa_lock *l)
{
    (void)l;
}

void pa_lock_rank_pop(const pa_lock *l)
{
    (void)l;
}
#endif
