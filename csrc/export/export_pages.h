/* export_pages.h - the pages layer for tests: page allocators over addresses with nothing behind them.
 *
 * Addresses are plain integers; a page allocator's metadata is real (reserved without access, committed
 * piece by piece), so that a read of what was never grown faults as it would in the library.
 */
#ifndef PA_EXPORT_PAGES_H
#define PA_EXPORT_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* cffi: begin */

typedef struct pa_xpages pa_xpages;

typedef struct pa_xcache {
    uintptr_t base;
    uint64_t free;
    uint64_t scavenged;
} pa_xcache;

typedef struct pa_xcounters {
    uint64_t free_pages;
    uint64_t scavenged_pages;
    uint64_t grown_pages;
    uint64_t metadata_bytes;
    uint64_t search_page;
    uint64_t commits; /* calls of the commit hook */
} pa_xcounters;

/* NULL when the reservation is refused; refuse != 0 makes the hook refuse it. */
pa_xpages *pa_xpages_new(uintptr_t window_base, unsigned window_bits, int refuse);
void pa_xpages_delete(pa_xpages *x);
/* The nth commit from now (1 = the next) and all after it fail; 0: none. */
void pa_xpages_fail_commit(pa_xpages *x, long nth);
bool pa_xpages_grow(pa_xpages *x, uintptr_t base, size_t nbytes);
uintptr_t pa_xpages_alloc(pa_xpages *x, size_t npages, size_t *scavenged_pages);
bool pa_xpages_alloc_at(pa_xpages *x, uintptr_t addr, size_t npages, size_t *scavenged_pages);
void pa_xpages_free(pa_xpages *x, uintptr_t addr, size_t npages);
void pa_xpages_free_scavenged(pa_xpages *x, uintptr_t addr, size_t npages);
uintptr_t pa_xpages_find_backed(pa_xpages *x, size_t max_pages, size_t align_pages, uintptr_t below,
                                size_t *npages);
uintptr_t pa_xpages_find_dense(pa_xpages *x, size_t min_pages, size_t max_pages, uintptr_t below, size_t *npages);
uintptr_t pa_xpages_find_dense_aligned(pa_xpages *x, size_t min_pages, size_t max_pages, size_t align_pages,
                                       uintptr_t below, size_t *npages);
size_t pa_xpages_widen(pa_xpages *x, uintptr_t *addr, size_t *npages, size_t align_pages, size_t block_pages);
size_t pa_xpages_take_tail(pa_xpages *x, uintptr_t block, size_t block_pages, size_t step, uintptr_t *addr);
pa_xcounters pa_xpages_counters(pa_xpages *x);
/* The broken invariant, or NULL. */
const char *pa_xpages_check(pa_xpages *x);
/* Breaks one thing on purpose, so that tests see the check find it. The chunk of addr must be grown:
 * "alloc" flips the page's alloc bit, "scavenged" its scavenged bit, "summary<level>" its entry's low bit,
 * "scavindex" unmarks its chunk, "free", "scav", "grown" add 1 to a counter, "search" sets the hint
 * behind the page. False for another word. */
bool pa_xpages_break(pa_xpages *x, const char *what, uintptr_t addr);

pa_xcache pa_xcache_fill(pa_xpages *x);
uintptr_t pa_xcache_alloc(pa_xcache *c, size_t npages, size_t *scavenged_pages);
void pa_xcache_flush(pa_xcache *c, pa_xpages *x);
bool pa_xcache_empty(const pa_xcache *c);

/* Copies of a grown chunk's words. */
void pa_xpages_alloc_bits(pa_xpages *x, uintptr_t addr, uint64_t words[8]);
void pa_xpages_scavenged_bits(pa_xpages *x, uintptr_t addr, uint64_t words[8]);
uint64_t pa_xpages_summary(pa_xpages *x, unsigned level, size_t index);

uint64_t pa_xsummary_pack(size_t start, size_t max, size_t end);
size_t pa_xsummary_start(uint64_t s);
size_t pa_xsummary_max(uint64_t s);
size_t pa_xsummary_end(uint64_t s);
uint64_t pa_xsummary_all_free(unsigned log2_pages);
uint64_t pa_xsummary_merge(const uint64_t *children, unsigned count, unsigned log2_pages_per_child);

void pa_xbits_set(uint64_t *words, unsigned first, unsigned n);
void pa_xbits_clear(uint64_t *words, unsigned first, unsigned n);
unsigned pa_xbits_count(const uint64_t *words, unsigned first, unsigned n);
unsigned pa_xbits_find_clear(const uint64_t *words, unsigned from, unsigned n);
uint64_t pa_xword_runs(uint64_t x, unsigned n);
uint64_t pa_xchunk_summarize(const uint64_t *alloc);
unsigned pa_xchunk_find_backed(const uint64_t *alloc, const uint64_t *scavenged, unsigned below, unsigned max,
                               unsigned align, unsigned *first);

typedef struct pa_xscavindex pa_xscavindex;
pa_xscavindex *pa_xscavindex_new(size_t chunk_count);
void pa_xscavindex_delete(pa_xscavindex *x);
void pa_xscavindex_mark(pa_xscavindex *x, size_t chunk);
void pa_xscavindex_clear(pa_xscavindex *x, size_t chunk);
bool pa_xscavindex_test(const pa_xscavindex *x, size_t chunk);
bool pa_xscavindex_consistent(const pa_xscavindex *x, size_t chunk);
size_t pa_xscavindex_highest(const pa_xscavindex *x, size_t lo, size_t hi);

typedef struct pa_xranges pa_xranges;
pa_xranges *pa_xranges_new(size_t capacity);
void pa_xranges_delete(pa_xranges *x);
void pa_xranges_add(pa_xranges *x, size_t first_chunk, size_t end_chunk);
bool pa_xranges_contains(const pa_xranges *x, size_t first_chunk, size_t end_chunk);
bool pa_xranges_overlaps(const pa_xranges *x, size_t first_chunk, size_t end_chunk);
bool pa_xranges_check(const pa_xranges *x);
/* Writes first, end, first, end, ... of at most capacity ranges; returns how many ranges there are. */
size_t pa_xranges_list(const pa_xranges *x, uint32_t *out, size_t capacity);

/* cffi: end */

#endif
