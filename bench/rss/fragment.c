/* fragment.c - fills the heap of this process with blocks of one size and drops most of them; a library for
 * fragment.py.
 *
 * No loop of Python's: each function does all blocks in one call. The table of blocks comes from mmap.
 */
#include <sys/mman.h>

#include "include/pyalloc.h"
#include "observe.h"

static char **blocks;
static size_t count;

uint64_t fragment_rss(void) { return rss_bytes(); }

/* count_ blocks of nbytes, every OS page written. 0, or -1 when memory is out. */
int fragment_fill(size_t count_, size_t nbytes)
{
    count = count_;
    blocks = mmap(NULL, count * sizeof *blocks, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (blocks == MAP_FAILED)
        return -1;
    for (size_t i = 0; i < count; i++) {
        if (!(blocks[i] = pa_malloc(nbytes)))
            return -1;
        for (size_t at = 0; at < nbytes; at += 4096)
            ((volatile char *)blocks[i])[at] = 1;
    }
    return 0;
}

/* Frees a share of the blocks: chosen one by one (random), or the first ones. Returns how many are left. */
size_t fragment_drop(double share, int random, uint64_t seed)
{
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        double draw = random ? (double)(next_random(&seed) >> 11) * 0x1p-53 : (double)i / (double)count;
        if (draw < share) {
            pa_free(blocks[i]);
            blocks[i] = NULL;
        } else {
            left++;
        }
    }
    return left;
}

void fragment_clear(void)
{
    for (size_t i = 0; i < count; i++)
        pa_free(blocks[i]);
    munmap(blocks, count * sizeof *blocks);
    count = 0;
}
