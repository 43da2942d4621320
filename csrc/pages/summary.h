/* summary.h - one word that says where the long free runs of an address range are.
 *
 * pa_summary packs three page counts in 21 bits each: free pages at the start, the longest free run
 * anywhere, free pages at the end.  A range of exactly 2^21 free pages (a root entry, 16 GiB) needs one
 * value more than 21 bits hold: bit 63 stands for "all 2^21 pages free".  0 means "nothing free".
 * (Go: pallocSum, runtime/mpagealloc.go.) Pure functions.
 */
#ifndef PA_SUMMARY_H
#define PA_SUMMARY_H

#include "base/config.h"

typedef uint64_t pa_summary;

enum { PA_SUMMARY_BITS = 21 };
#define PA_SUMMARY_MAX_PAGES ((size_t)1 << PA_SUMMARY_BITS)
#define PA_SUMMARY_ALL_FREE ((pa_summary)1 << 63)

PA_INLINE pa_summary pa_summary_pack(size_t start, size_t max, size_t end)
{
    if (max == PA_SUMMARY_MAX_PAGES)
        return PA_SUMMARY_ALL_FREE;
    return (pa_summary)start | (pa_summary)max << PA_SUMMARY_BITS | (pa_summary)end << (2 * PA_SUMMARY_BITS);
}

PA_INLINE size_t pa_summary_field(pa_summary s, unsigned shift)
{
    return s & PA_SUMMARY_ALL_FREE ? PA_SUMMARY_MAX_PAGES : (size_t)(s >> shift) & (PA_SUMMARY_MAX_PAGES - 1);
}

PA_INLINE size_t pa_summary_start(pa_summary s) { return pa_summary_field(s, 0); }
PA_INLINE size_t pa_summary_max(pa_summary s) { return pa_summary_field(s, PA_SUMMARY_BITS); }
PA_INLINE size_t pa_summary_end(pa_summary s) { return pa_summary_field(s, 2 * PA_SUMMARY_BITS); }

/* Summary of 2^log2_pages pages that are all free. */
PA_INLINE pa_summary pa_summary_all_free(unsigned log2_pages)
{
    size_t n = (size_t)1 << log2_pages;
    return pa_summary_pack(n, n, n);
}

/* Summary of `count` neighbouring ranges of 2^log2_pages_per_child pages each. */
pa_summary pa_summary_merge(const pa_summary *children, unsigned count, unsigned log2_pages_per_child);

#endif
