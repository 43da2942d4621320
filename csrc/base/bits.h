/* bits.h - integer helpers: rounding, powers of two, bit scans. Pure. */
#ifndef PA_BITS_H
#define PA_BITS_H

#include "base/config.h"

PA_INLINE bool pa_is_pow2(size_t x) { return x != 0 && (x & (x - 1)) == 0; }
/* Precondition: align is a power of two. Wraps on overflow: callers bound x first. */
PA_INLINE uintptr_t pa_round_up(uintptr_t x, uintptr_t align) { return (x + align - 1) & ~(align - 1); }
PA_INLINE uintptr_t pa_round_down(uintptr_t x, uintptr_t align) { return x & ~(align - 1); }
PA_INLINE size_t pa_div_ceil(size_t x, size_t d) { return x / d + (x % d != 0); }

/* Preconditions: x != 0. */
PA_INLINE unsigned pa_ctz64(uint64_t x) { return (unsigned)__builtin_ctzll(x); }
PA_INLINE unsigned pa_clz64(uint64_t x) { return (unsigned)__builtin_clzll(x); }
/* Index of the highest set bit: floor(log2 x). */
PA_INLINE unsigned pa_log2_floor(uint64_t x) { return 63u - pa_clz64(x); }
PA_INLINE unsigned pa_popcount64(uint64_t x) { return (unsigned)__builtin_popcountll(x); }

/* The n low bits set, 0 <= n <= 64. */
PA_INLINE uint64_t pa_mask64(unsigned n) { return n >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << n) - 1; }

#endif
