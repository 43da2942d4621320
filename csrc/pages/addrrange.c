/* addrrange.c - which address ranges the page allocator manages.
 *
 * Owns no memory: the list lies in the page allocator's reservation; its caller's lock guards it.
 *
 * A heap that grows upwards without foreign mappings in its way is one range for ever, so the list is a
 * plain sorted array: a binary search to look up, a move of the tail to insert.
 * Invariant: ranges are sorted, not empty, and neighbours have a gap between them.
 * Idea: Go's addrRanges (runtime/mranges.go).
 */
#include "pages/addrrange.h"

#include <string.h>

#include "base/assert.h"

/* Index of the first range that ends after chunk; count when there is none. */
static size_t first_ending_after(const pa_addrranges *r, size_t chunk)
{
    size_t lo = 0, hi = r->count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (r->ranges[mid].end_chunk > chunk)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

bool pa_addrranges_contains(const pa_addrranges *r, size_t first_chunk, size_t end_chunk)
{
    size_t i = first_ending_after(r, first_chunk);
    return i < r->count && r->ranges[i].first_chunk <= first_chunk && r->ranges[i].end_chunk >= end_chunk;
}

bool pa_addrranges_overlaps(const pa_addrranges *r, size_t first_chunk, size_t end_chunk)
{
    size_t i = first_ending_after(r, first_chunk);
    return i < r->count && r->ranges[i].first_chunk < end_chunk;
}

void pa_addrranges_add(pa_addrranges *r, size_t first_chunk, size_t end_chunk)
{
    PA_ASSERT(first_chunk < end_chunk && end_chunk <= UINT32_MAX);
    PA_ASSERT(!pa_addrranges_overlaps(r, first_chunk, end_chunk));
    size_t i = first_ending_after(r, first_chunk);
    bool joins_left = i > 0 && r->ranges[i - 1].end_chunk == first_chunk;
    bool joins_right = i < r->count && r->ranges[i].first_chunk == end_chunk;
    pa_addrrange *at = r->ranges + i;
    if (joins_left && joins_right) {
        at[-1].end_chunk = at->end_chunk;
        r->count--;
        memmove(at, at + 1, (r->count - i) * sizeof *at);
    } else if (joins_left) {
        at[-1].end_chunk = (uint32_t)end_chunk;
    } else if (joins_right) {
        at->first_chunk = (uint32_t)first_chunk;
    } else {
        memmove(at + 1, at, (r->count - i) * sizeof *at);
        *at = (pa_addrrange){(uint32_t)first_chunk, (uint32_t)end_chunk};
        r->count++;
    }
}

bool pa_addrranges_check(const pa_addrranges *r)
{
    for (size_t i = 0; i < r->count; i++) {
        if (r->ranges[i].first_chunk >= r->ranges[i].end_chunk)
            return false;
        if (i > 0 && r->ranges[i - 1].end_chunk >= r->ranges[i].first_chunk)
            return false;
    }
    return true;
}
