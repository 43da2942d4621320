/* sim_region.c - one region: blocks are cut off one after another and given back all together, at the end.
 *
 * No header, no search, no reuse.  (D. Hanson, Fast Allocation and Deallocation of Memory Based on Object
 * Lifetimes, 1990.)  A program that has one lifetime for everything is the worst case; it shows what a bump
 * pointer leaves to somebody else: to a copying collector, for instance.
 */
#include "sim.h"

enum { CHUNK_BYTES = 65536 };

static char *next, *end;

static size_t cost(size_t nbytes)
{
    return sim_round_up(nbytes ? nbytes : 1, 16);
}

static void *take(size_t nbytes)
{
    size_t size = cost(nbytes);
    if (size > (size_t)(end - next)) {
        size_t chunk = size > CHUNK_BYTES ? sim_round_up(size, SIM_PAGE_BYTES) : CHUNK_BYTES;
        next = sim_take(chunk, SIM_PAGE_BYTES);
        end = next + chunk;
    }
    void *p = next;
    next += size;
    return p;
}

static void give(void *p, size_t nbytes)
{
    (void)p, (void)nbytes;
}

const sim_design sim_region = {"region", "nothing is reused", take, give, cost};
