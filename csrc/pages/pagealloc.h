/* pagealloc.h - the page allocator: a radix tree of summaries over bitmaps, address-ordered first fit.
 *
 * Takes no lock: the caller holds mheap's.  Touches the pages it manages never, so tests run it on
 * addresses that do not exist.  Addresses are multiples of 8 KiB, lengths are pages.
 */
#ifndef PA_PAGEALLOC_H
#define PA_PAGEALLOC_H

#include "pages/addrrange.h"
#include "pages/chunk.h"
#include "pages/scavindex.h"

/* Where the metadata lives: address space for all of it, made usable piece by piece. */
typedef struct pa_page_hooks {
    void *(*reserve)(void *context, size_t nbytes);            /* NULL when refused */
    bool (*commit)(void *context, void *addr, size_t nbytes);  /* false when refused */
    void (*unreserve)(void *context, void *addr, size_t nbytes);
    void *context;
} pa_page_hooks;

extern PA_HIDDEN const pa_page_hooks pa_page_hooks_vm; /* over sys/vm.h */

/* A committed stretch of metadata, so that growing next to it asks the OS only for what is new. */
typedef struct pa_extent {
    uintptr_t lo, hi;
} pa_extent;

enum {
    PA_PAGEALLOC_REGIONS = PA_SUMMARY_LEVELS + 4, /* levels, chunks, two of the scavenge index, ranges */
    PA_PAGEALLOC_FEW = 2,
    PA_PAGEALLOC_FLAT_CHUNKS = 32, /* 128 MiB: 256 bytes of summaries */
};

typedef struct pa_pagealloc {
    uintptr_t base;                        /* window start */
    unsigned window_bits;
    pa_summary *level[PA_SUMMARY_LEVELS];  /* level[4][i] is chunk i's summary */
    pa_chunk *chunks;
    pa_scavindex scavindex;
    pa_addrranges grown;                   /* the chunks that may be read */
    pa_addrrange *many_ranges;             /* where they lie if they are more */
    pa_addrrange few[PA_PAGEALLOC_FEW];    /* its first ranges lie here, so that most heaps need no page for them; so
                                              this is not to be copied or moved once it is initialised */
    bool flat;                             /* few chunks, in a row: only the leaf level is kept */
    pa_page_hooks hooks;
    void *reservation;
    size_t reserved_bytes;
    pa_extent committed[PA_PAGEALLOC_REGIONS];
    size_t first_chunk, end_chunk;         /* grown chunks lie in [first, end); equal: none */
    size_t search_page;                    /* no page below this index is free */
    uint64_t grown_pages;
    uint64_t free_pages;                   /* alloc bit clear */
    uint64_t scavenged_pages;              /* free and not backed */
    uint64_t metadata_bytes;               /* committed */
} pa_pagealloc;

/* Manages [window_base, window_base + 2^window_bits): base a multiple of 16 GiB, 34 <= bits <= 48. False
 * when the reservation is refused. */
bool pa_pagealloc_init(pa_pagealloc *p, uintptr_t window_base, unsigned window_bits,
                       const pa_page_hooks *hooks);
void pa_pagealloc_destroy(pa_pagealloc *p);
/* Adds [base, base + nbytes), multiples of 4 MiB, as free and scavenged pages. False and no page added when
 * metadata cannot be committed. */
bool pa_pagealloc_grow(pa_pagealloc *p, uintptr_t base, size_t nbytes);

/* First fit in address order; 0 when there is none. *scavenged_pages: how many were not backed. */
uintptr_t pa_pagealloc_alloc(pa_pagealloc *p, size_t npages, size_t *scavenged_pages);
/* Exactly these pages, if they are all free; any page address. */
bool pa_pagealloc_alloc_at(pa_pagealloc *p, uintptr_t addr, size_t npages, size_t *scavenged_pages);
/* Pages that are backed become free. */
void pa_pagealloc_free(pa_pagealloc *p, uintptr_t addr, size_t npages);
/* Pages that are not backed become free. */
void pa_pagealloc_free_scavenged(pa_pagealloc *p, uintptr_t addr, size_t npages);

/* For the scavenger: takes out the highest run of free and backed pages below an address, inside one
 * chunk, at least min_pages (or max_pages, if that is less) and at most max_pages long, start and length multiples of
 * align_pages (a power of two <= 64). The caller releases it without the lock and hands it back with one of the two
 * frees. 0: none; with min_pages > 1 perhaps only none in many chunks. Chunks whose backed pages are only misaligned
 * stay in the scavenge index. */
uintptr_t pa_pagealloc_find_dense(pa_pagealloc *p, size_t min_pages, size_t max_pages, size_t align_pages,
                                  uintptr_t below, size_t *npages);
/* A run that find_* took out with align_pages: takes the free pages around it too, backed or not, as far as the aligned
 * blocks of block_pages (a power of two, align_pages ... 512) that it touches. Start and length stay multiples of
 * align_pages. Returns how many of the pages added were backed. */
size_t pa_pagealloc_widen(pa_pagealloc *p, uintptr_t *addr, size_t *npages, size_t align_pages, size_t block_pages);

/* The pages at the end of an aligned block (block_pages as above) that are free and not backed, in steps of so many,
 * unless that is the whole block: takes them out. How many, from *addr on; 0: none. */
size_t pa_pagealloc_take_tail(pa_pagealloc *p, uintptr_t block, size_t block_pages, size_t step, uintptr_t *addr);

/* Recomputes everything; false: *broken (may be NULL) names the first broken invariant. */
bool pa_pagealloc_check(const pa_pagealloc *p, const char **broken);

/* For the page cache: pages [first, first + 64) of a chunk changed; repairs the tree above. */
void pa_pagealloc_update(pa_pagealloc *p, size_t first_page, size_t npages);

/* For the page cache: the first free page, SIZE_MAX when there is none. */
size_t pa_pagealloc_find_first(pa_pagealloc *p);

PA_INLINE size_t pa_page_index(const pa_pagealloc *p, uintptr_t addr)
{
    return (addr - p->base) >> PA_PAGE_SHIFT;
}
PA_INLINE uintptr_t pa_page_address(const pa_pagealloc *p, size_t page)
{
    return p->base + ((uintptr_t)page << PA_PAGE_SHIFT);
}

/* Pages covered by an entry of a level, as a power of two: 21, 18, 15, 12, 9. */
PA_INLINE unsigned pa_level_log2_pages(unsigned level)
{
    return PA_CHUNK_PAGES_SHIFT + (PA_SUMMARY_LEVELS - 1 - level) * PA_SUMMARY_LEVEL_BITS;
}

#endif
