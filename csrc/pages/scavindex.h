/* scavindex.h - which chunks may hold free pages that are still backed by memory.
 *
 * Two levels of bits, one bit a chunk below and one bit a word of that above, so that the scavenger finds
 * work without walking the heap.  A set bit is a hint, a clear bit is a promise.
 * (Go: scavengeIndex, runtime/mgcscavenge.go.) The page allocator owns and guards it.
 */
#ifndef PA_SCAVINDEX_H
#define PA_SCAVINDEX_H

#include "base/bits.h"

typedef struct pa_scavindex {
    uint64_t *chunks; /* bit c % 64 of word c / 64 */
    uint64_t *words;  /* bit w % 64 of word w / 64 */
} pa_scavindex;

PA_INLINE void pa_scavindex_mark(pa_scavindex *x, size_t chunk)
{
    x->chunks[chunk / 64] |= (uint64_t)1 << (chunk % 64);
    x->words[chunk / 4096] |= (uint64_t)1 << (chunk / 64 % 64);
}

PA_INLINE void pa_scavindex_clear(pa_scavindex *x, size_t chunk)
{
    if ((x->chunks[chunk / 64] &= ~((uint64_t)1 << (chunk % 64))) == 0)
        x->words[chunk / 4096] &= ~((uint64_t)1 << (chunk / 64 % 64));
}

PA_INLINE bool pa_scavindex_test(const pa_scavindex *x, size_t chunk)
{
    return x->chunks[chunk / 64] >> (chunk % 64) & 1;
}

/* The word of the upper level says truly whether the word that holds this chunk is 0. */
PA_INLINE bool pa_scavindex_consistent(const pa_scavindex *x, size_t chunk)
{
    return (x->words[chunk / 4096] >> (chunk / 64 % 64) & 1) == (x->chunks[chunk / 64] != 0);
}

/* Highest marked chunk in [lo, hi], or SIZE_MAX. Reads whole words of `words` from lo to hi only. */
size_t pa_scavindex_highest(const pa_scavindex *x, size_t lo, size_t hi);

#endif
