/* scavindex.c - finding the highest marked chunk. No lock, owns nothing; see scavindex.h.
 *
 * Words of the lower level are read only where the upper level says that they are not zero, because the rest
 * may be reserved address space that was never committed.
 */
#include "pages/scavindex.h"

size_t pa_scavindex_highest(const pa_scavindex *x, size_t lo, size_t hi)
{
    size_t w = hi / 64;
    uint64_t keep = pa_mask64((unsigned)(hi % 64) + 1);
    for (;;) {
        uint64_t above = x->words[w / 64] & pa_mask64((unsigned)(w % 64) + 1);
        if (above == 0) {
            if (w / 64 == lo / 4096)
                return SIZE_MAX;
            w = w / 64 * 64 - 1;
            keep = ~(uint64_t)0;
            continue;
        }
        size_t found = w / 64 * 64 + pa_log2_floor(above);
        uint64_t bits = x->chunks[found] & (found == w ? keep : ~(uint64_t)0);
        if (bits) {
            size_t chunk = found * 64 + pa_log2_floor(bits);
            return chunk >= lo ? chunk : SIZE_MAX;
        }
        if (found == 0)
            return SIZE_MAX;
        w = found - 1;
        keep = ~(uint64_t)0;
        if (w < lo / 64)
            return SIZE_MAX;
    }
}
