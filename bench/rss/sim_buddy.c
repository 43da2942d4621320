/* sim_buddy.c - binary buddies: every block is a power of two, 16 bytes to 64 KiB; neighbours merge when both
 * are free.
 *
 * Chunks of 64 KiB, aligned, so that what is held beyond the blocks is little; the buddy of a block is at its
 * address with the bit of its size flipped.  A byte for each 16 bytes of a chunk says whether a free block of
 * which order begins there.  Larger blocks are pages, rounded up to a power of two as well.  (K. Knowlton 1965;
 * D. Knuth, The Art of Computer Programming 1, 2.5.)
 */
#include <stdlib.h>

#include "sim.h"

enum { MIN_ORDER = 4, MAX_ORDER = 16 };
#define CHUNK_BYTES ((size_t)1 << MAX_ORDER)

typedef struct block {
    struct block *next, *prev;
} block;

static block *free_blocks[MAX_ORDER + 1];

static unsigned order_of(size_t nbytes)
{
    unsigned order = MIN_ORDER;
    while ((size_t)1 << order < nbytes)
        order++;
    return order;
}

static size_t cost(size_t nbytes)
{
    return (size_t)1 << order_of(nbytes);
}

/* The byte of a block: 0, or the order of the free block that begins there. */
static unsigned char *mark_of(const void *p)
{
    uintptr_t chunk = (uintptr_t)p & ~(CHUNK_BYTES - 1);
    unsigned char *marks = *sim_page_word((void *)chunk);
    return &marks[((uintptr_t)p - chunk) >> MIN_ORDER];
}

static void put(void *p, unsigned order)
{
    block *b = p;
    *b = (block){.next = free_blocks[order]};
    if (b->next)
        b->next->prev = b;
    free_blocks[order] = b;
    *mark_of(p) = (unsigned char)order;
}

static void take_out(block *b, unsigned order)
{
    if (b->prev)
        b->prev->next = b->next;
    else
        free_blocks[order] = b->next;
    if (b->next)
        b->next->prev = b->prev;
    *mark_of(b) = 0;
}

static void add_chunk(void)
{
    char *chunk = sim_take(CHUNK_BYTES, CHUNK_BYTES);
    unsigned char *marks = calloc(CHUNK_BYTES >> MIN_ORDER, 1);
    if (!marks)
        abort();
    *sim_page_word(chunk) = marks;
    put(chunk, MAX_ORDER);
}

static void *take(size_t nbytes)
{
    unsigned wanted = order_of(nbytes), order = wanted;
    if (wanted > MAX_ORDER)
        return sim_take(cost(nbytes), SIM_PAGE_BYTES);
    while (order <= MAX_ORDER && !free_blocks[order])
        order++;
    if (order > MAX_ORDER) {
        add_chunk();
        order = MAX_ORDER;
    }
    char *p = (char *)free_blocks[order];
    take_out((block *)p, order);
    while (order > wanted)
        put(p + ((size_t)1 << --order), order);
    return p;
}

static void give(void *p, size_t nbytes)
{
    unsigned order = order_of(nbytes);
    if (order > MAX_ORDER) {
        sim_give(p, cost(nbytes));
        return;
    }
    for (; order < MAX_ORDER; order++) {
        void *buddy = (void *)((uintptr_t)p ^ (uintptr_t)1 << order);
        if (*mark_of(buddy) != order)
            break;
        take_out(buddy, order);
        p = buddy < p ? buddy : p;
    }
    if (order < MAX_ORDER) {
        put(p, order);
        return;
    }
    free(*sim_page_word(p));
    sim_give(p, CHUNK_BYTES);
}

const sim_design sim_buddy = {"buddy", "powers of two", take, give, cost};
