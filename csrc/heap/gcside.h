/* gcside.h - what the collector knows of an arena, outside the objects.
 *
 * One side table an arena, mapped with the arena's first managed span, or when huge pages are asked for there, and
 * touched page by page as spans come:
 *
 *     page           64 KiB   8 bytes a page: what it belongs to (class, kind, distance to the span's first page)
 *                             and the layout that all objects of its span share, if they do
 *     plane[0..1]   256 KiB   one bit an object, 32 bytes a page: allocation and mark bits, which change places
 *                             at each sweep (Go: gcBits, runtime/mheap.go)
 *     plane[2]      256 KiB   the second opinion of checkmark
 *     crowded[0..2]   1 MiB   the same planes, 128 bytes a page, for the classes of 8 and 16 bytes, whose
 *                             spans have more than 256 objects (at most 1024)
 *     pointer_bits    1 MiB   one bit a word, is it a pointer?, for spans of several layouts (Go: heapBits,
 *                             runtime/mbitmap.go)
 *
 * The markers find everything about a pointer here - no span header is read - so that a mark costs two
 * cache lines beside the object, out of 64 bytes for 8 KiB of heap.  An object's bit is its index in the span,
 * counted from the slice of the span's first page.
 */
#ifndef PA_GCSIDE_H
#define PA_GCSIDE_H

#include "heap/heap.h"

enum {
    PA_PLANE_WORDS_PER_PAGE = 4,        /* 256 objects */
    PA_CROWDED_WORDS_PER_PAGE = 16,     /* 1024 objects */
    PA_CROWDED_CLASS_MAX = 2,           /* 16 bytes: 512 objects a span */
    PA_POINTER_WORDS_PER_PAGE = 16,
    PA_LAYOUTS = 4096,
    PA_PLANE_CHECK = 2,
    PA_PLANES = 3,
    PA_INFO_KIND_SHIFT = 7,
    PA_INFO_OFFSET_SHIFT = 9,
};
#define PA_HUGE_PAGE_BYTES (2 * PA_MIB) /* an arena begins and ends on one */
_Static_assert(PA_ARENA_BYTES / PA_HUGE_PAGE_BYTES == 32, "a bit each in pa_gcside.forbidden");
/* The distance has 23 bits: managed objects end at 64 GiB. */
#define PA_MANAGED_MAX_PAGES ((size_t)1 << 23)

/* How the markers find the pointers of a span's objects: PA_LAYOUT_BITMAP, PA_LAYOUT_ALL, or the mask of one type
 * of up to 64 words. Most spans hold objects of one type; then no bitmap is written or read. */
typedef enum pa_layout {
    PA_LAYOUT_BITMAP,       /* mixed: pointer_bits say */
    PA_LAYOUT_UNSET,        /* no object yet */
    PA_LAYOUT_ALL,          /* every word */
    PA_LAYOUT_FIRST_TYPE    /* from here on: pa_layout_masks */
} pa_layout;

/* A bit a word. Written once, before the layout's number is given to anybody. */
extern PA_HIDDEN uint64_t pa_layout_masks[PA_LAYOUTS];

typedef struct pa_gcpage {
    /* 0: no managed span. Written by who formats or frees the span (release), read by anybody. */
    _Atomic uint32_t info;
    /* Written by the P that has the span (release), before it publishes an object to which it matters; read by
     * markers (acquire: the bitmap, once it counts, was written before). */
    uint32_t layout;
} pa_gcpage;

typedef struct pa_gcside {
    pa_gcpage page[PA_ARENA_PAGES];
    uint64_t plane[PA_PLANES][PA_ARENA_PAGES * PA_PLANE_WORDS_PER_PAGE];
    uint64_t crowded[PA_PLANES][PA_ARENA_PAGES * PA_CROWDED_WORDS_PER_PAGE];
    /* Written by the P that allocates the object, before it is published; read by markers, relaxed. */
    uint64_t pointer_bits[PA_ARENA_PAGES * PA_POINTER_WORDS_PER_PAGE];
    /* Managed spans may come: counted whole in pa_heap.side_bytes, else only the page that holds what follows. Set
     * once, under mheap's lock; read racily. */
    bool managed;
    /* Somebody is telling, and then: the kernel was told to use huge pages in the arena. By who formats its first
     * managed span, on request of a large block's owner, or when it is mapped (PYALLOC_HUGE_PAGES); read by who
     * releases; relaxed: seen too late, one release leaves a huge page behind. */
    _Atomic bool advising, advised;
    /* And then to use small ones again: a bit a huge page. Set by who releases memory there, when it was done; relaxed:
     * done twice does no harm. */
    _Atomic uint32_t forbidden;
    /* And then the end of it was given back (pa_release_tails); relaxed. */
    _Atomic uint32_t trimmed;
} pa_gcside;

/* Side tables for the pages of [base, base + nbytes) exist afterwards; false when out of memory. managed: for managed
 * spans, not only for what is noted of huge pages. mheap's lock. */
bool pa_gcside_ensure_locked(pa_heap *h, uintptr_t base, size_t nbytes, bool managed);

/* Asks for huge pages in the arenas of [base, base + nbytes), once each and never in the first. No lock. */
void pa_gcside_advise(uintptr_t base, size_t nbytes, uintptr_t first_arena);
bool pa_gcside_is_advised(uintptr_t addr);
/* The same for blocks that are not managed, in the first arena too: makes the side tables that the mark is kept in.
 * Best effort. Takes mheap's lock the first time. */
void pa_gcside_advise_explicit(pa_heap *h, uintptr_t base, size_t nbytes);

/* In an advised arena: huge pages that [base, base + nbytes) touches become small ones when next they are filled. For
 * who is about to release memory inside them: between the two, the kernel might fill the hole. No lock. */
void pa_gcside_forbid_huge(uintptr_t base, size_t nbytes);

/* Gives the OS what side tables hold of the pages [base, base + npages) of one arena, in whole OS pages: it reads
 * as zero then, "nothing managed". Precondition: the caller has taken them out of the page allocator. */
void pa_gcside_release(uintptr_t base, size_t npages);

/* Side table of the arena that holds addr; NULL where nothing managed ever was and no huge pages were asked
 * for. Any address. */
PA_INLINE pa_gcside *pa_gcside_of(uintptr_t addr)
{
    uintptr_t idx = (addr - pa_space.base) >> PA_ARENA_SHIFT;
    if (PA_UNLIKELY(idx >= __atomic_load_n(&pa_space.side_count, __ATOMIC_ACQUIRE)))
        return NULL;
    return (pa_gcside *)__atomic_load_n(&pa_space.sides[idx], __ATOMIC_ACQUIRE);
}

/* May there be managed spans in the arena of addr, and are their bits counted? */
PA_INLINE bool pa_gcside_is_managed(uintptr_t addr)
{
    const pa_gcside *side = pa_gcside_of(addr);
    return side && pa_racy_load(&side->managed);
}

PA_INLINE size_t pa_gcside_page_idx(uintptr_t addr) { return (addr & (PA_ARENA_BYTES - 1)) >> PA_PAGE_SHIFT; }
PA_INLINE pa_gcpage *pa_gcside_page(pa_gcside *side, uintptr_t addr) { return &side->page[pa_gcside_page_idx(addr)]; }

PA_INLINE uint32_t pa_info_of(unsigned size_class, unsigned kind, size_t offset_pages)
{
    return (uint32_t)(size_class | kind << PA_INFO_KIND_SHIFT | offset_pages << PA_INFO_OFFSET_SHIFT);
}
PA_INLINE unsigned pa_info_class(uint32_t info) { return info & 127; }
PA_INLINE unsigned pa_info_kind(uint32_t info) { return info >> PA_INFO_KIND_SHIFT & 3; }
PA_INLINE size_t pa_info_offset_pages(uint32_t info) { return info >> PA_INFO_OFFSET_SHIFT; }

/* Sets the layout of a span and its pages. */
void pa_gcside_set_layout(pa_span *s, uint32_t layout);

/* First word of a plane's slice for the span of size_class that starts at base. Precondition: the side table
 * exists. */
PA_INLINE uint64_t *pa_gcside_bits(pa_gcside *side, unsigned plane, unsigned size_class, uintptr_t base)
{
    size_t page = pa_gcside_page_idx(base);
    if (PA_UNLIKELY(size_class - 1 < PA_CROWDED_CLASS_MAX))
        return &side->crowded[plane][page * PA_CROWDED_WORDS_PER_PAGE];
    return &side->plane[plane][page * PA_PLANE_WORDS_PER_PAGE];
}

/* The plane of the allocation bits of swept spans, and of the next marks. */
PA_INLINE unsigned pa_alloc_plane(uint32_t sweepgen) { return sweepgen >> 1 & 1; }
PA_INLINE unsigned pa_mark_plane(uint32_t sweepgen) { return ~sweepgen >> 1 & 1; }

#endif
