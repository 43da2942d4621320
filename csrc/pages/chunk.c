/* chunk.c - bit operations on the leaves of the page allocator.
 *
 * Owns nothing, takes no lock. Ideas: Go's pallocBits and pallocData (runtime/mpallocbits.go,
 * runtime/mgcscavenge.go).
 */
#include "pages/chunk.h"

#include "base/assert.h"
#include "base/bits.h"

/* Mask of the part of word w that lies in bits [first, end). */
static uint64_t part(unsigned w, unsigned first, unsigned end)
{
    unsigned lo = first > w * 64 ? first - w * 64 : 0;
    unsigned hi = end - w * 64 < 64 ? end - w * 64 : 64;
    return pa_mask64(hi) & ~pa_mask64(lo);
}

void pa_bits512_set(uint64_t *words, unsigned first, unsigned n)
{
    PA_ASSERT(n > 0 && first + n <= 512);
    for (unsigned w = first / 64; w <= (first + n - 1) / 64; w++)
        words[w] |= part(w, first, first + n);
}

void pa_bits512_clear(uint64_t *words, unsigned first, unsigned n)
{
    PA_ASSERT(n > 0 && first + n <= 512);
    for (unsigned w = first / 64; w <= (first + n - 1) / 64; w++)
        words[w] &= ~part(w, first, first + n);
}

unsigned pa_bits512_count(const uint64_t *words, unsigned first, unsigned n)
{
    PA_ASSERT(n > 0 && first + n <= 512);
    unsigned count = 0;
    for (unsigned w = first / 64; w <= (first + n - 1) / 64; w++)
        count += pa_popcount64(words[w] & part(w, first, first + n));
    return count;
}

/* Bits of x that start a run of at least n ones inside x, 1 <= n <= 64. */
static uint64_t runs_of(uint64_t x, unsigned n)
{
    for (unsigned have = 1; have < n && x;) {
        unsigned step = have < n - have ? have : n - have;
        x &= x >> step;
        have += step;
    }
    return x;
}

unsigned pa_bits512_find_clear(const uint64_t *words, unsigned from, unsigned n)
{
    unsigned run_start = from, run = 0;
    for (unsigned w = from / 64; w < PA_CHUNK_WORDS; w++) {
        uint64_t clear = ~words[w];
        if (w == from / 64)
            clear &= ~pa_mask64(from % 64);
        if (clear == 0) {
            run = 0;
            continue;
        }
        if (run == 0)
            run_start = w * 64;
        unsigned head = ~clear ? pa_ctz64(~clear) : 64;
        if (run + head >= n)
            return run == 0 ? w * 64 : run_start;
        if (head == 64) {
            run += 64;
            continue;
        }
        if (n <= 64) {
            uint64_t starts = runs_of(clear, n);
            if (starts)
                return w * 64 + pa_ctz64(starts);
        }
        run = pa_clz64(~clear);
        run_start = w * 64 + 64 - run;
    }
    return 512;
}

/* Longest run of ones in x, known to be longer than at_least; else at_least. */
static unsigned longest_run_above(uint64_t x, unsigned at_least)
{
    if (at_least >= 64)
        return at_least;
    x = runs_of(x, at_least + 1);
    unsigned n = at_least;
    while (x) {
        n++;
        x &= x >> 1;
    }
    return n;
}

pa_summary pa_chunk_summarize(const pa_chunk *c)
{
    unsigned start = 512, max = 0, run = 0;
    for (unsigned w = 0; w < PA_CHUNK_WORDS; w++) {
        uint64_t used = c->alloc[w];
        if (used == 0) {
            run += 64;
            continue;
        }
        run += pa_ctz64(used);
        if (start == 512)
            start = run;
        if (run > max)
            max = run;
        run = pa_clz64(used);
    }
    if (start == 512) /* no word was in use */
        return pa_summary_all_free(PA_CHUNK_PAGES_SHIFT);
    if (run > max)
        max = run;
    for (unsigned w = 0; w < PA_CHUNK_WORDS; w++)
        max = longest_run_above(~c->alloc[w], max);
    return pa_summary_pack(start, max, run);
}

unsigned pa_chunk_find_backed(const pa_chunk *c, unsigned below, unsigned max, unsigned align, unsigned *first)
{
    PA_ASSERT(pa_is_pow2(align) && align <= 64 && below <= 512);
    unsigned end = 0, length = 0; /* run [end - length, end) growing downwards */
    unsigned i = below & ~(align - 1);
    while (i > 0) {
        i -= align;
        uint64_t busy = (c->alloc[i / 64] | c->scavenged[i / 64]) >> (i % 64) & pa_mask64(align);
        if (busy == 0) {
            if (length == 0)
                end = i + align;
            length += align;
            if (length + align > max)
                break;
        } else if (length) {
            break;
        } else if (i % 64 == 0 && align < 64) {
            while (i >= 64 && (c->alloc[i / 64 - 1] | c->scavenged[i / 64 - 1]) == ~(uint64_t)0)
                i -= 64;
        }
    }
    *first = end - length;
    return length;
}
