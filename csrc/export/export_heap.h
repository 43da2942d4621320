/* export_heap.h - sys/ and heap/ for tests: spans over any address, lists, bins, off-heap memory, the OS contract. */
#ifndef PA_EXPORT_HEAP_H
#define PA_EXPORT_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* cffi: begin */

/* ---- The contract of sys/vm.h ---- */

size_t pa_xvm_page_size(void);
void *pa_xvm_reserve(size_t nbytes, bool readable);
bool pa_xvm_commit(uintptr_t addr, size_t nbytes);
void *pa_xvm_map(size_t nbytes);
uintptr_t pa_xvm_map_heap(uintptr_t hint, size_t nbytes, size_t align);
void pa_xvm_unmap(uintptr_t addr, size_t nbytes);
bool pa_xvm_release(uintptr_t addr, size_t nbytes);
uint64_t pa_xvm_heap_mmaps(void);
void pa_xvm_inject_failure(long nth);

/* ---- Off-heap memory ---- */

typedef struct pa_xoffheap pa_xoffheap; /* an off-heap arena and one fixalloc on it */

pa_xoffheap *pa_xoffheap_new(size_t object_bytes, size_t align, bool by_page);
void pa_xoffheap_delete(pa_xoffheap *x); /* the blocks stay mapped: off-heap memory is never given back */
void *pa_xoffheap_alloc(pa_xoffheap *x, size_t nbytes, size_t align);
uint64_t pa_xoffheap_sys_bytes(const pa_xoffheap *x);
void *pa_xfixalloc_alloc(pa_xoffheap *x);
void pa_xfixalloc_free(pa_xoffheap *x, void *object);
size_t pa_xfixalloc_release(pa_xoffheap *x);
uint64_t pa_xfixalloc_inuse(const pa_xoffheap *x);
uint64_t pa_xfixalloc_total(const pa_xoffheap *x);

/* ---- Spans: headers of their own, outside any page table ---- */

typedef struct pa_xspan pa_xspan;

typedef struct pa_xspan_view {
    uintptr_t base, limit, tail, free, remote, owner;
    uint64_t magic;
    uint32_t live, npages, state, free_idx;
    uint8_t size_class, kind, listed, needs_zero, bin;
} pa_xspan_view;

size_t pa_xspan_header_bytes(void);
/* base may be an address with nothing behind it unless the span is carved. */
pa_xspan *pa_xspan_new(uintptr_t base, uint32_t npages);
void pa_xspan_delete(pa_xspan *s);
pa_xspan_view pa_xspan_look(const pa_xspan *s);
void pa_xspan_format_explicit(pa_xspan *s, unsigned size_class);
void pa_xspan_format_large(pa_xspan *s);
/* Pretends that everything up to tail was carved. */
void pa_xspan_set_tail(pa_xspan *s, uintptr_t tail);
void pa_xspan_set_live(pa_xspan *s, uint32_t live);
bool pa_xspan_carve(pa_xspan *s);
/* Takes the whole free list away; returns its length, the first capacity blocks in out. */
size_t pa_xspan_take_free(pa_xspan *s, uintptr_t *out, size_t capacity);
bool pa_xspan_is_element(const pa_xspan *s, uintptr_t p);
bool pa_xspan_is_carved_element(const pa_xspan *s, uintptr_t p);
/* First offset below npages * 8192 where a span's two block tests and division disagree, or that length. */
size_t pa_xspan_first_wrong_offset(const pa_xspan *s);
bool pa_xspan_push_remote(pa_xspan *s, uintptr_t first, uintptr_t last);
uint32_t pa_xspan_collect_remote(pa_xspan *s);
bool pa_xspan_abandon(pa_xspan *s);

/* Managed allocation bits; the bits stay the caller's. */
void pa_xspan_set_bits(pa_xspan *s, uint64_t *alloc_bits, uint32_t nelems, uint32_t free_idx);
/* Slots of the window, 0: none; *first: the index of the first. */
uint32_t pa_xspan_open_window(pa_xspan *s, uint32_t most, uint32_t *first);
void pa_xspan_hand_out(pa_xspan *s, uint32_t count);
void pa_xspan_close_window(pa_xspan *s);
uint32_t pa_xspan_handed_out_count(const pa_xspan *s);

/* ---- Lists and bins ---- */

typedef struct pa_xspanlist pa_xspanlist;

pa_xspanlist *pa_xspanlist_new(void);
void pa_xspanlist_delete(pa_xspanlist *l);
void pa_xspanlist_push_back(pa_xspanlist *l, pa_xspan *s);
void pa_xspanlist_remove(pa_xspanlist *l, pa_xspan *s);
pa_xspan *pa_xspanlist_pop_front(pa_xspanlist *l);
/* Spans in order; 0 when the links backwards are not the mirror image. */
size_t pa_xspanlist_spans(const pa_xspanlist *l, pa_xspan **out, size_t capacity);

unsigned pa_xbin_of(size_t npages);
unsigned pa_xbin_count(void);
size_t pa_xbin_max_pages(void);

/* ---- The one heap of this extension ---- */

/* Base addresses of the arenas in order of growth; returns how many there are. */
size_t pa_xheap_arenas(uintptr_t *out, size_t capacity);
unsigned pa_xheap_window_bits(void);
/* The span of an address, NULL for none: for pa_xspan_look. */
pa_xspan *pa_xheap_span_of(uintptr_t addr);
/* Pages taken from the page allocator that are neither in a span nor in a thread's page cache: 0 when none is lost. */
int64_t pa_xheap_lost_pages(void);

/* What the walk over all spans counts, by state; each visit in address order. */
typedef struct pa_xwalk {
    uint64_t spans, manual_pages, cached_pages, live, bytes_live;
    bool ascending;
} pa_xwalk;

pa_xwalk pa_xheap_walk(void);

/* Ps: how many exist, how many have a thread, and the size of one. */
uint64_t pa_xprocs_count(void);
uint64_t pa_xprocs_attached(void);
size_t pa_xproc_bytes(void);
/* The calling thread's mcache, 0 when it has none. */
uintptr_t pa_xproc_current(void);

/* ---- Locks ---- */

/* Takes locks of the given ranks in that order (equal ranks: ascending addresses when up, else descending), then
 * gives them back. Ends the process when the order is wrong. */
void pa_xlocks_take(const unsigned *ranks, size_t count, bool up);
unsigned pa_xlock_rank_count(void);

/* cffi: end */

#endif
