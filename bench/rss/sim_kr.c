/* sim_kr.c - one circular list of free blocks in address order, first fit from where the last search ended.
 *
 * Every block begins with a header of 16 bytes that holds its size in units of a header; a free joins its
 * neighbours. Memory is asked for in pieces of at least 16 KiB and never given back; neighbouring pieces are
 * one.  The design of B. Kernighan and D. Ritchie, The C Programming Language, section 8.7; written anew.
 */
#include "sim.h"

typedef struct header {
    struct header *next;
    size_t units;
} header;

enum { PIECE_BYTES = 16384 };
_Static_assert(sizeof(header) == 16, "a unit");

static header anchor = {&anchor, 0};
static header *rover = &anchor;

static size_t cost(size_t nbytes)
{
    return sim_round_up(nbytes ? nbytes : 1, sizeof(header)) + sizeof(header);
}

/* The free block before h in address order: the list wraps around at its highest address. */
static header *place_of(const header *h)
{
    header *at = rover;
    while (!(h > at && h < at->next) && !(at >= at->next && (h > at || h < at->next)))
        at = at->next;
    return at;
}

static void give(void *p, size_t nbytes)
{
    (void)nbytes;
    header *h = (header *)p - 1, *before = place_of(h);
    h->next = before->next;
    if (h + h->units == before->next) {
        h->units += before->next->units;
        h->next = before->next->next;
    }
    before->next = h;
    if (before + before->units == h) {
        before->units += h->units;
        before->next = h->next;
    }
    rover = before;
}

static void more(size_t units)
{
    size_t nbytes = sim_round_up(units * sizeof(header), PIECE_BYTES);
    header *h = (header *)sim_take(nbytes, SIM_PAGE_BYTES);
    h->units = nbytes / sizeof(header);
    give(h + 1, 0);
}

static void *take(size_t nbytes)
{
    size_t units = cost(nbytes) / sizeof(header);
    header *before = rover;
    for (header *h = before->next;; before = h, h = h->next) {
        if (h->units >= units) {
            if (h->units == units) {
                before->next = h->next;
            } else { /* the tail end, so that the list stays as it is */
                h->units -= units;
                h += h->units;
                h->units = units;
            }
            rover = before;
            return h + 1;
        }
        if (h == rover) {
            more(units);
            before = h = rover;
        }
    }
}

const sim_design sim_kr = {"K&R first fit", "one free list, headers of 16 bytes", take, give, cost};
