/* summary.c - merging the summaries of neighbours into their parent's.
 *
 * Owns nothing, takes no lock.  One pass: the start run grows while every range so far was wholly free, the
 * end run starts anew at every range that is not, and the longest run is the longest of the
 * children's own and of those that cross a border. Idea: Go's mergeSummaries (runtime/mpagealloc.go).
 */
#include "pages/summary.h"

pa_summary pa_summary_merge(const pa_summary *children, unsigned count, unsigned log2_pages_per_child)
{
    size_t child_pages = (size_t)1 << log2_pages_per_child;
    size_t start = 0, max = 0, end = 0;
    bool all_free_so_far = true;
    for (unsigned i = 0; i < count; i++) {
        pa_summary s = children[i];
        if (s == 0) {
            all_free_so_far = false;
            end = 0;
            continue;
        }
        size_t s_start = pa_summary_start(s), s_max = pa_summary_max(s);
        if (all_free_so_far)
            start += s_start;
        size_t crossing = end + s_start;
        if (s_max > max)
            max = s_max;
        if (crossing > max)
            max = crossing;
        if (s_start == child_pages) {
            end += child_pages;
        } else {
            all_free_so_far = false;
            end = pa_summary_end(s);
        }
    }
    return pa_summary_pack(start, max, end);
}
