/* arena.h - 64 MiB heapArenas and the tables that turn an address into its span.
 *
 * One reserved range holds the page -> span table of a whole window of address space (47 bits where
 * the kernel lets us reserve it), so that address -> span is a subtraction, a bounds check and one
 * load.  Reads of the untouched parts see zero.  Where 128 GiB of address space are refused
 * (valgrind, ulimit -v) a smaller window around the first arena is chosen, once.
 */
#ifndef PA_ARENA_H
#define PA_ARENA_H

#include "heap/span.h"
#include "sys/offheap.h"

/* Metadata of one heapArena. Written under mheap's lock, immutable once linked but where said. */
typedef struct pa_arena {
    uintptr_t base;
    struct pa_arena *next;      /* all arenas, in order of growth; published with release */
    void *fixalloc_word;             /* last word: sys/offheap.h */
} pa_arena;

typedef struct pa_address_space {
    uintptr_t base;             /* start of the window, multiple of 16 GiB */
    uintptr_t limit_pages;      /* pages in the window; 0 before initialisation: everything is foreign */
    pa_span **table;            /* limit_pages entries, readable; an arena's slice is writable */
    unsigned window_bits;
    void **sides;               /* by arena: its pa_gcside (heap/gcside.h) or NULL; side_count last, with release */
    uintptr_t side_count;       /* arenas in the window; 0 before the first side table */
} pa_address_space;

/* Process-wide: a page belongs to one span whoever asks. Written once, under mheap's lock, limit_pages last
 * and with release; readers load limit_pages with acquire, so that a foreign pointer can be asked about
 * at any time. Slices are written by whoever owns the pages. */
extern PA_HIDDEN pa_address_space pa_space;

/* Span of the page that holds p, NULL for foreign addresses. Never faults. */
PA_INLINE pa_span *pa_span_of(const void *p)
{
    uintptr_t limit_pages = __atomic_load_n(&pa_space.limit_pages, __ATOMIC_ACQUIRE);
    uintptr_t idx = ((uintptr_t)p - pa_space.base) >> PA_PAGE_SHIFT;
    if (PA_UNLIKELY(idx >= limit_pages))
        return NULL;
    return __atomic_load_n(&pa_space.table[idx], __ATOMIC_RELAXED);
}

/* Start of the window of that many bits that holds first_arena. */
uintptr_t pa_space_base_for(uintptr_t first_arena, unsigned window_bits);
/* Reserves the table and publishes the window. False when refused, nothing changed. mheap's lock held. */
bool pa_space_init_locked(uintptr_t window_base, unsigned window_bits);
/* Makes the slice for [base, base + nbytes) writable. */
bool pa_space_commit(uintptr_t base, size_t nbytes);
/* Does the window hold [base, base + nbytes)? */
bool pa_space_contains(uintptr_t base, size_t nbytes);
/* Points all the pages of a span at s (release: its header is complete) or at nothing. */
void pa_space_set(const pa_span *s, pa_span *value);
/* Gives the OS the table's part for npages free pages, in whole OS pages: they point at nothing already. Precondition:
 * the caller has taken them out of the page allocator. Returns the bytes. */
size_t pa_space_release(uintptr_t base, size_t npages);

#endif
