/* atomics.h - C11 atomics plus two words for fields that one thread writes.
 *
 * pa_owner_add: the owner adds to a counter that others may read at any time.  A plain
 * read-modify-write is enough on every machine we support (an aligned word is never torn), and it
 * stays one instruction; under TSan it becomes a relaxed load and store so that the tool can see it.
 * pa_owner_add_release: the same, after what the owner read and wrote before, for a reader that loads with acquire. On
 * x86-64 every store is a release, so only the compiler must keep the order, and it stays one instruction.
 * Its value is the new one. pa_owner_set_release stores in that way.
 * pa_racy_load: such a reader's side.
 * pa_owner_get: the owner reads a word that others may write, seldom and only with values that are right whenever it
 * sees them. A plain load, so that the compiler is free to place it.
 */
#ifndef PA_ATOMICS_H
#define PA_ATOMICS_H

#include <stdatomic.h>

#include "base/config.h"

#if PA_TSAN
#define pa_owner_add(ptr, n) \
    __atomic_store_n((ptr), __atomic_load_n((ptr), __ATOMIC_RELAXED) + (n), __ATOMIC_RELAXED)
#define pa_owner_set(ptr, v) __atomic_store_n((ptr), (v), __ATOMIC_RELAXED)
#define pa_owner_get(ptr) __atomic_load_n((ptr), __ATOMIC_RELAXED)
#else
#define pa_owner_add(ptr, n) (*(ptr) += (n))
#define pa_owner_set(ptr, v) (*(ptr) = (v))
#define pa_owner_get(ptr) (*(ptr))
#endif
#if defined(__x86_64__) && !PA_TSAN
#define pa_owner_add_release(ptr, n) (atomic_signal_fence(memory_order_release), *(ptr) += (n))
#define pa_owner_set_release(ptr, v) (atomic_signal_fence(memory_order_release), *(ptr) = (v))
#else
#define pa_owner_set_release(ptr, v) __atomic_store_n((ptr), (v), __ATOMIC_RELEASE)
#define pa_owner_add_release(ptr, n)                                                     \
    __extension__({                                                                      \
        __typeof__(*(ptr)) sum = __atomic_load_n((ptr), __ATOMIC_RELAXED) + (n);         \
        __atomic_store_n((ptr), sum, __ATOMIC_RELEASE);                                  \
        sum;                                                                             \
    })
#endif
#define pa_racy_load(ptr) __atomic_load_n((ptr), __ATOMIC_RELAXED)

/* One turn of a short spin. */
PA_INLINE void pa_cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
