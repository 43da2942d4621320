/* chunk.c - bit operations on the leaves of the page allocator.
 *
 * Owns nothing: a pa_chunk belongs to the page allocator, and its caller's lock guards it.
 * Invariant (kept by the callers): a page's scavenged bit is 0 while its alloc bit is 1.
 *
 * Everything goes by words of 64 pages.  A run that crosses words is followed by counting zeros at ends;
 * one inside a word is found by folding the word onto itself: x & x >> 1 leaves the starts of runs of at
 * least two, and folds by 1, 2, 4 ... and a rest reach any length in log2 steps.  The longest run of a
 * chunk costs one fold a word, and more only where a word beats the best so far.
 *
 * Ideas: Go's pallocBits and pallocData (runtime/mpallocbits.go, runtime/mgcscavenge.go); the fold is
 * folklore (Hacker's Delight, 6-2).
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

uint64_t pa_word_runs(uint64_t x, unsigned n)
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
            uint64_t starts = pa_word_runs(clear, n);
            if (starts)
                return w * 64 + pa_ctz64(starts);
        }
        run = pa_clz64(~clear);
        run_start = w * 64 + 64 - run;
    }
    return 512;
}

/* Longest run of ones in x, if longer than at_least (< 64); else at_least. */
static unsigned longest_run_above(uint64_t x, unsigned at_least)
{
    x = pa_word_runs(x, at_least + 1);
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
    for (unsigned w = 0; w < PA_CHUNK_WORDS && max < 62; w++) /* a run that touches no edge has at most 62 */
        max = longest_run_above(~c->alloc[w], max);
    return pa_summary_pack(start, max, run);
}

static uint64_t backed_word(const pa_chunk *c, unsigned w)
{
    return ~(c->alloc[w] | c->scavenged[w]);
}

bool pa_chunk_has_backed(const pa_chunk *c)
{
    uint64_t any = 0;
    for (unsigned w = 0; w < PA_CHUNK_WORDS; w++)
        any |= backed_word(c, w);
    return any != 0;
}

/* One past the highest page below limit that is (backed) or is not (!backed) free and backed; 0: none. */
static unsigned highest_below(const pa_chunk *c, unsigned limit, bool backed)
{
    while (limit) {
        unsigned w = (limit - 1) / 64;
        uint64_t word = (backed ? backed_word(c, w) : ~backed_word(c, w)) & pa_mask64(limit - w * 64);
        if (word)
            return w * 64 + pa_log2_floor(word) + 1;
        limit = w * 64;
    }
    return 0;
}

unsigned pa_chunk_find_backed(const pa_chunk *c, unsigned below, unsigned max, unsigned align, unsigned *first)
{
    PA_ASSERT(pa_is_pow2(align) && align <= 64 && below <= 512);
    unsigned end;
    while ((end = highest_below(c, below, true)) != 0) {
        unsigned start = highest_below(c, end, false);
        end &= ~(align - 1);
        if (end > start) {
            unsigned length = (end - start < max ? end - start : max) & ~(align - 1);
            *first = end - length;
            if (length)
                return length;
        }
        below = start;
    }
    *first = 0;
    return 0;
}
