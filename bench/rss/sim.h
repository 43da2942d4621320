/* sim.h - what the small allocators of waste.c share: pages from an ideal page layer, and one table a design.
 *
 * The page layer hands out runs of OS pages anywhere and takes them back whole; what it has out is what an
 * allocator holds.  So the designs are compared by what they do inside their pages, not by how well pages are
 * found. Tables that a design keeps outside its blocks (bitmaps, span headers) are not counted for any of
 * them.
 */
#ifndef PA_RSS_SIM_H
#define PA_RSS_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SIM_PAGE_BYTES = 4096 };

/* Pages, aligned to align (a power of two, at least a page). Never fails: ends the program. */
char *sim_take(size_t nbytes, size_t align);
void sim_give(char *p, size_t nbytes);
uint64_t sim_held_bytes(void);
/* A word that an allocator keeps for each 4 KiB page. */
void **sim_page_word(const void *p);

typedef struct sim_design {
    const char *name, *about;
    void *(*take)(size_t nbytes);
    void (*give)(void *p, size_t nbytes);   /* nbytes: as asked for */
    size_t (*cost)(size_t nbytes);          /* bytes that a block of nbytes occupies, header included */
} sim_design;

extern const sim_design sim_classes, sim_slab, sim_buddy, sim_kr, sim_region;

static inline size_t sim_round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

#endif
