/* pagealloc.c - which pages are free, and the first fit among them.
 *
 * Owns its metadata: one reservation with five levels of summaries, the chunk bitmaps and the scavenge
 * index, committed where arenas are.  No lock of its own (mheap's is held).
 *
 * Search (find_run): an entry of a level says how long its free runs are at the start, at most and at the
 * end.
 * Going through the entries of one level in address order, either a run that crosses entries is long
 * enough: done; or an entry holds one: go down into its eight children; or go on.  At the leaf the
 * bitmap has it.  Nothing below `search_page` is free, so each level starts there.  A change of a bitmap is
 * carried upwards until a level's summaries stay as they were.
 *
 * A heap of a few arenas in a row is flat: its leaf summaries are few enough to be gone through, and each level above
 * would cost a page of memory (docs/decisions/054-fixed-cost.md). The tree is made once the heap outgrows that.
 *
 * Invariants: level[4][c] summarizes chunk c; an entry above is the merge of its eight children, or 0 and never read
 * where the heap is flat; entries of ranges that were never grown are 0 and, but for level 0, may be uncommitted: they
 * are never read, because a child group is read only below an entry that is not 0, or when one of the group was grown;
 * the eight entries of a group share an OS page.  The counters are sums over the bitmaps of `grown`; a
 * chunk with a free and backed page is in the scavenge index; an allocated page is not marked scavenged.
 *
 * Source of the idea: Go's pageAlloc (runtime/mpagealloc.go) and its design document "Scaling the Go
 * Page Allocator". Here the chunk bitmaps are one flat reserved array and the search narrows its hint
 * only along the path that it takes.
 */
#include "pages/pagealloc.h"

#include <string.h>

#include "base/assert.h"
#include "sys/vm.h"

enum { LEAF = PA_SUMMARY_LEVELS - 1, GROUP = 1 << PA_SUMMARY_LEVEL_BITS, REGION_ALIGN_BYTES = 65536 };
enum { SKIP_CHUNKS = 4096 }; /* without a dense run that a search passes by before it gives up: some 10 us */

static void *vm_reserve(void *context, size_t nbytes)
{
    (void)context;
    return pa_vm_reserve(nbytes, false);
}

static bool vm_commit(void *context, void *addr, size_t nbytes)
{
    (void)context;
    return pa_vm_commit(addr, nbytes);
}

static void vm_unreserve(void *context, void *addr, size_t nbytes)
{
    (void)context;
    pa_vm_unmap(addr, nbytes);
}

const pa_page_hooks pa_page_hooks_vm = {vm_reserve, vm_commit, vm_unreserve, NULL};

/* ---- Metadata ---- */

typedef struct region {
    void **start;
    size_t nbytes;
} region;

static void regions_of(pa_pagealloc *p, region out[PA_PAGEALLOC_REGIONS])
{
    size_t chunks = (size_t)1 << (p->window_bits - PA_CHUNK_SHIFT);
    for (unsigned l = 0; l < PA_SUMMARY_LEVELS; l++)
        out[l] = (region){(void **)&p->level[l],
                          (chunks >> (LEAF - l) * PA_SUMMARY_LEVEL_BITS) * sizeof(pa_summary)};
    out[LEAF + 1] = (region){(void **)&p->chunks, chunks * sizeof(pa_chunk)};
    out[LEAF + 2] = (region){(void **)&p->scavindex.chunks, pa_div_ceil(chunks, 64) * 8};
    out[LEAF + 3] = (region){(void **)&p->scavindex.words, pa_div_ceil(chunks, 4096) * 8};
    /* Ranges do not touch, so at most every other chunk starts one; one more for a commit ahead. */
    out[LEAF + 4] = (region){(void **)&p->many_ranges, (chunks / 2 + 1) * sizeof(pa_addrrange)};
}

static bool commit(pa_pagealloc *p, unsigned r, void *addr, size_t nbytes)
{
    pa_extent *e = &p->committed[r];
    uintptr_t lo = pa_round_down((uintptr_t)addr, 4096), hi = pa_round_up((uintptr_t)addr + nbytes, 4096);
    if (lo >= e->lo && hi <= e->hi)
        return true;
    if (lo >= e->lo && lo < e->hi) /* the common case: the heap grows upwards */
        lo = e->hi;
    else if (hi > e->lo && hi <= e->hi)
        hi = e->lo;
    if (!p->hooks.commit(p->hooks.context, (void *)lo, hi - lo))
        return false;
    p->metadata_bytes += hi - lo;
    if (lo == e->hi)
        e->hi = hi;
    else if (hi == e->lo)
        e->lo = lo;
    else
        *e = (pa_extent){lo, hi};
    return true;
}

bool pa_pagealloc_init(pa_pagealloc *p, uintptr_t window_base, unsigned window_bits, const pa_page_hooks *hooks)
{
    PA_CHECK(window_bits >= PA_ROOT_SHIFT && window_bits <= PA_ADDRESS_BITS);
    PA_CHECK(window_base % ((uintptr_t)1 << PA_ROOT_SHIFT) == 0);
    *p = (pa_pagealloc){.base = window_base, .window_bits = window_bits, .hooks = *hooks};
    p->search_page = SIZE_MAX;
    p->grown.ranges = p->few;
    p->flat = true;
    region regions[PA_PAGEALLOC_REGIONS];
    regions_of(p, regions);
    for (unsigned r = 0; r < PA_PAGEALLOC_REGIONS; r++)
        p->reserved_bytes += pa_round_up(regions[r].nbytes, REGION_ALIGN_BYTES);
    char *at = p->reservation = p->hooks.reserve(p->hooks.context, p->reserved_bytes);
    if (!at)
        return false;
    for (unsigned r = 0; r < PA_PAGEALLOC_REGIONS; r++) {
        *regions[r].start = at;
        at += pa_round_up(regions[r].nbytes, REGION_ALIGN_BYTES);
    }
    /* The root level and the upper scavenge index are read anywhere between the first and the last arena. */
    if (commit(p, 0, p->level[0], regions[0].nbytes) &&
        commit(p, LEAF + 3, p->scavindex.words, regions[LEAF + 3].nbytes))
        return true;
    pa_pagealloc_destroy(p);
    return false;
}

void pa_pagealloc_destroy(pa_pagealloc *p)
{
    if (p->hooks.unreserve)
        p->hooks.unreserve(p->hooks.context, p->reservation, p->reserved_bytes);
    *p = (pa_pagealloc){0};
}

static bool commit_for_chunks(pa_pagealloc *p, size_t first, size_t end)
{
    for (unsigned l = 1; l < PA_SUMMARY_LEVELS; l++) {
        unsigned shift = (LEAF - l) * PA_SUMMARY_LEVEL_BITS;
        size_t lo = (first >> shift) & ~(size_t)(GROUP - 1), hi = ((end - 1) >> shift | (GROUP - 1)) + 1;
        if (!commit(p, l, &p->level[l][lo], (hi - lo) * sizeof(pa_summary)))
            return false;
    }
    return commit(p, LEAF + 1, &p->chunks[first], (end - first) * sizeof(pa_chunk)) &&
           commit(p, LEAF + 2, &p->scavindex.chunks[first / 64], ((end - 1) / 64 - first / 64 + 1) * 8) &&
           commit(p, LEAF + 4, p->many_ranges, (p->grown.count + 1) * sizeof(pa_addrrange));
}

static void add_range(pa_pagealloc *p, size_t first, size_t end)
{
    if (p->grown.count == PA_PAGEALLOC_FEW && p->grown.ranges == p->few) {
        memcpy(p->many_ranges, p->few, sizeof p->few);
        p->grown.ranges = p->many_ranges;
    }
    pa_addrranges_add(&p->grown, first, end);
    p->first_chunk = p->grown.ranges[0].first_chunk;
    p->end_chunk = p->grown.ranges[p->grown.count - 1].end_chunk;
}

/* ---- Repairing the tree ---- */

static pa_summary merge_children(const pa_pagealloc *p, unsigned level, size_t i)
{
    return pa_summary_merge(&p->level[level + 1][i * GROUP], GROUP, pa_level_log2_pages(level + 1));
}

void pa_pagealloc_update(pa_pagealloc *p, size_t first_page, size_t npages)
{
    size_t lo = first_page >> PA_CHUNK_PAGES_SHIFT, hi = (first_page + npages - 1) >> PA_CHUNK_PAGES_SHIFT;
    bool changed = false;
    for (size_t c = lo; c <= hi; c++) {
        pa_summary s = pa_chunk_summarize(&p->chunks[c]);
        changed |= s != p->level[LEAF][c];
        p->level[LEAF][c] = s;
    }
    if (p->flat)
        return;
    for (unsigned l = LEAF; changed && l-- > 0;) {
        changed = false;
        lo >>= PA_SUMMARY_LEVEL_BITS;
        hi >>= PA_SUMMARY_LEVEL_BITS;
        for (size_t i = lo; i <= hi; i++) {
            pa_summary s = merge_children(p, l, i);
            changed |= s != p->level[l][i];
            p->level[l][i] = s;
        }
    }
}

/* The heap has outgrown the leaf level: makes those above. */
static void plant_tree(pa_pagealloc *p)
{
    p->flat = false;
    for (size_t r = 0; r < p->grown.count; r++) {
        size_t lo = p->grown.ranges[r].first_chunk, hi = p->grown.ranges[r].end_chunk - 1;
        for (unsigned l = LEAF; l-- > 0;) {
            lo >>= PA_SUMMARY_LEVEL_BITS;
            hi >>= PA_SUMMARY_LEVEL_BITS;
            for (size_t i = lo; i <= hi; i++)
                p->level[l][i] = merge_children(p, l, i);
        }
    }
}

/* ---- Growing ---- */

bool pa_pagealloc_grow(pa_pagealloc *p, uintptr_t base, size_t nbytes)
{
    PA_CHECK(base % PA_CHUNK_BYTES == 0 && nbytes % PA_CHUNK_BYTES == 0 && nbytes != 0);
    size_t first = pa_page_index(p, base) >> PA_CHUNK_PAGES_SHIFT;
    size_t end = first + (nbytes >> PA_CHUNK_SHIFT);
    PA_CHECK(base >= p->base && end <= (size_t)1 << (p->window_bits - PA_CHUNK_SHIFT));
    PA_CHECK(base != 0 && !pa_addrranges_overlaps(&p->grown, first, end));
    if (!commit_for_chunks(p, first, end))
        return false;
    for (size_t c = first; c < end; c++) {
        memset(p->chunks[c].alloc, 0, sizeof p->chunks[c].alloc);
        memset(p->chunks[c].scavenged, 0xff, sizeof p->chunks[c].scavenged);
    }
    add_range(p, first, end);
    size_t npages = nbytes >> PA_PAGE_SHIFT, page = first << PA_CHUNK_PAGES_SHIFT;
    p->grown_pages += npages;
    p->free_pages += npages;
    p->scavenged_pages += npages;
    if (page < p->search_page)
        p->search_page = page;
    pa_pagealloc_update(p, page, npages);
    if (p->flat && (p->grown.count > 1 || p->end_chunk - p->first_chunk > PA_PAGEALLOC_FLAT_CHUNKS))
        plant_tree(p);
    return true;
}

/* The part of a run that lies in one chunk. */
typedef struct piece {
    size_t chunk;
    unsigned first, n;
} piece;

PA_INLINE piece piece_at(size_t page, size_t end)
{
    unsigned first = (unsigned)(page & (PA_CHUNK_PAGES - 1));
    size_t room = PA_CHUNK_PAGES - first, left = end - page;
    return (piece){page >> PA_CHUNK_PAGES_SHIFT, first, (unsigned)(left < room ? left : room)};
}

/* The next piece of a run that ends before page end; n is 0 behind the last one. */
PA_INLINE piece piece_next(piece k, size_t end)
{
    size_t page = (k.chunk << PA_CHUNK_PAGES_SHIFT) + k.first + k.n;
    return page < end ? piece_at(page, end) : (piece){0};
}

/* Marks free pages allocated; returns how many of them were not backed. */
static size_t take(pa_pagealloc *p, size_t page, size_t npages)
{
    size_t scavenged = 0, end = page + npages;
    for (piece k = piece_at(page, end); k.n; k = piece_next(k, end)) {
        pa_chunk *chunk = &p->chunks[k.chunk];
        PA_INVARIANT(pa_bits512_count(chunk->alloc, k.first, k.n) == 0);
        pa_bits512_set(chunk->alloc, k.first, k.n);
        unsigned s = pa_bits512_count(chunk->scavenged, k.first, k.n);
        if (s)
            pa_bits512_clear(chunk->scavenged, k.first, k.n);
        scavenged += s;
    }
    p->free_pages -= npages;
    p->scavenged_pages -= scavenged;
    if (page == p->search_page)
        p->search_page = page + npages;
    pa_pagealloc_update(p, page, npages);
    return scavenged;
}

static void give_back(pa_pagealloc *p, uintptr_t addr, size_t npages, bool scavenged)
{
    PA_ASSERT(npages > 0 && addr >= p->base && addr % PA_PAGE_BYTES == 0);
    size_t page = pa_page_index(p, addr), end = page + npages;
    PA_ASSERT(pa_addrranges_contains(&p->grown, page >> PA_CHUNK_PAGES_SHIFT,
                                     ((end - 1) >> PA_CHUNK_PAGES_SHIFT) + 1));
    for (piece k = piece_at(page, end); k.n; k = piece_next(k, end)) {
        pa_chunk *chunk = &p->chunks[k.chunk];
        PA_ASSERT(pa_bits512_count(chunk->alloc, k.first, k.n) == k.n); /* else a double free */
        pa_bits512_clear(chunk->alloc, k.first, k.n);
        if (scavenged)
            pa_bits512_set(chunk->scavenged, k.first, k.n);
        else
            pa_scavindex_mark(&p->scavindex, k.chunk);
    }
    p->free_pages += npages;
    if (scavenged)
        p->scavenged_pages += npages;
    if (page < p->search_page)
        p->search_page = page;
    pa_pagealloc_update(p, page, npages);
}

/* ---- First fit ---- */

/* Page index of the first run of npages free pages, SIZE_MAX when there is none. */
static size_t find_run(pa_pagealloc *p, size_t npages)
{
    if (p->free_pages < npages)
        return SIZE_MAX;
    unsigned top = p->flat ? LEAF : 0;
    size_t group = p->flat ? p->first_chunk : 0; /* index of the first entry looked at */
    bool narrowing = true; /* all before the path is taken: its first entry not 0 bounds search_page */
    for (unsigned l = top; l < PA_SUMMARY_LEVELS; l++) {
        unsigned log2_pages = pa_level_log2_pages(l);
        size_t entry_pages = (size_t)1 << log2_pages;
        size_t i = p->search_page >> log2_pages, end = group + GROUP;
        if (l == top)
            end = ((p->end_chunk - 1) >> ((LEAF - top) * PA_SUMMARY_LEVEL_BITS)) + 1;
        if (i < group)
            i = group;
        size_t run_start = 0, run = 0;
        bool descend = false, seen = false;
        for (; i < end; i++) {
            pa_summary s = p->level[l][i];
            if (s == 0) {
                run = 0;
                continue;
            }
            if (narrowing && !seen) {
                seen = true;
                size_t bound = i << log2_pages;
                if (bound > p->search_page)
                    p->search_page = bound;
            } else if (seen) {
                narrowing = false;
            }
            size_t start = pa_summary_start(s);
            if (run + start >= npages)
                return run ? run_start : i << log2_pages;
            if (pa_summary_max(s) >= npages) {
                descend = true;
                break;
            }
            if (start == entry_pages) {
                if (run == 0)
                    run_start = i << log2_pages;
                run += entry_pages;
            } else {
                run = pa_summary_end(s);
                run_start = ((i + 1) << log2_pages) - run;
            }
        }
        if (!descend) {
            PA_CHECK(l == top); /* a parent promised a run that its children do not have */
            return SIZE_MAX;
        }
        group = i * GROUP;
    }
    size_t chunk = group / GROUP;
    unsigned bit = pa_bits512_find_clear(p->chunks[chunk].alloc, 0, (unsigned)npages);
    PA_CHECK(bit < PA_CHUNK_PAGES);
    return (chunk << PA_CHUNK_PAGES_SHIFT) + bit;
}

uintptr_t pa_pagealloc_alloc(pa_pagealloc *p, size_t npages, size_t *scavenged_pages)
{
    PA_ASSERT(npages > 0);
    *scavenged_pages = 0;
    size_t page = find_run(p, npages);
    if (page == SIZE_MAX)
        return 0;
    *scavenged_pages = take(p, page, npages);
    return pa_page_address(p, page);
}

size_t pa_pagealloc_find_first(pa_pagealloc *p)
{
    return find_run(p, 1);
}

/* Some page of the chunk is free. Chunks between arenas may be uncommitted, so come down from the root,
 * which is readable: below an entry that is not 0 the group of children is. */
static bool has_free(const pa_pagealloc *p, size_t chunk)
{
    if (p->flat)
        return chunk >= p->first_chunk && chunk < p->end_chunk && p->level[LEAF][chunk] != 0;
    for (unsigned l = 0; l <= LEAF; l++)
        if (p->level[l][chunk >> (LEAF - l) * PA_SUMMARY_LEVEL_BITS] == 0)
            return false;
    return true;
}

bool pa_pagealloc_alloc_at(pa_pagealloc *p, uintptr_t addr, size_t npages, size_t *scavenged_pages)
{
    PA_ASSERT(npages > 0 && addr % PA_PAGE_BYTES == 0);
    *scavenged_pages = 0;
    if (addr < p->base || npages > p->free_pages)
        return false;
    size_t page = pa_page_index(p, addr), end = page + npages;
    if (end > (size_t)1 << (p->window_bits - PA_PAGE_SHIFT))
        return false;
    for (piece k = piece_at(page, end); k.n; k = piece_next(k, end)) {
        if (!has_free(p, k.chunk) || pa_bits512_count(p->chunks[k.chunk].alloc, k.first, k.n) != 0)
            return false;
    }
    *scavenged_pages = take(p, page, npages);
    return true;
}

void pa_pagealloc_free(pa_pagealloc *p, uintptr_t addr, size_t npages)
{
    give_back(p, addr, npages, false);
}

void pa_pagealloc_free_scavenged(pa_pagealloc *p, uintptr_t addr, size_t npages)
{
    give_back(p, addr, npages, true);
}

/* ---- Finding memory to release ---- */

/* Free and backed pages of a chunk, at most max and, where the run has so many, at least min; 0: none. */
static unsigned find_in_chunk(const pa_chunk *chunk, unsigned end, unsigned min, unsigned max, unsigned align,
                              unsigned *first)
{
    unsigned n;
    while ((n = pa_chunk_find_backed(chunk, end, max, align, first)) != 0 && n < min)
        end = *first;
    return n;
}


uintptr_t pa_pagealloc_find_dense(pa_pagealloc *p, size_t min_pages, size_t max_pages, size_t align_pages,
                                  uintptr_t below, size_t *npages)
{
    *npages = 0;
    if (max_pages < align_pages || p->first_chunk == p->end_chunk ||
        below <= pa_page_address(p, p->first_chunk << PA_CHUNK_PAGES_SHIFT))
        return 0;
    size_t limit = p->end_chunk << PA_CHUNK_PAGES_SHIFT; /* page index: runs end at or before it */
    if (below < pa_page_address(p, limit))
        limit = pa_page_index(p, below);
    unsigned max = max_pages < PA_CHUNK_PAGES ? (unsigned)max_pages : (unsigned)PA_CHUNK_PAGES;
    unsigned min = min_pages < max ? (unsigned)min_pages : max & ~((unsigned)align_pages - 1);
    for (unsigned skipped = 0; limit > p->first_chunk << PA_CHUNK_PAGES_SHIFT && skipped < SKIP_CHUNKS;) {
        size_t last = (limit - 1) >> PA_CHUNK_PAGES_SHIFT;
        size_t chunk = pa_scavindex_highest(&p->scavindex, p->first_chunk, last);
        if (chunk == SIZE_MAX)
            return 0;
        size_t chunk_page = chunk << PA_CHUNK_PAGES_SHIFT, in_chunk = limit - chunk_page;
        unsigned end = (unsigned)(in_chunk < PA_CHUNK_PAGES ? in_chunk : PA_CHUNK_PAGES), first;
        bool worth = pa_summary_max(p->level[LEAF][chunk]) >= min;
        unsigned n = !worth ? 0 : find_in_chunk(&p->chunks[chunk], end, min, max, (unsigned)align_pages, &first);
        if (n) {
            take(p, chunk_page + first, n);
            *npages = n;
            return pa_page_address(p, chunk_page + first);
        }
        if (min > 1)
            skipped++;
        else if (!pa_chunk_has_backed(&p->chunks[chunk]))
            pa_scavindex_clear(&p->scavindex, chunk);
        limit = chunk_page;
    }
    return 0;
}

size_t pa_pagealloc_widen(pa_pagealloc *p, uintptr_t *addr, size_t *npages, size_t align_pages, size_t block_pages)
{
    PA_ASSERT(pa_is_pow2(block_pages) && align_pages <= block_pages && block_pages <= PA_CHUNK_PAGES);
    size_t first = pa_page_index(p, *addr), end = first + *npages;
    size_t low = first & ~(block_pages - 1), high = ((end - 1) | (block_pages - 1)) + 1;
    const uint64_t *alloc = p->chunks[first >> PA_CHUNK_PAGES_SHIFT].alloc;
    PA_ASSERT(first >> PA_CHUNK_PAGES_SHIFT == (end - 1) >> PA_CHUNK_PAGES_SHIFT);
    size_t from = first, to = end, scavenged_pages = 0;
    unsigned step = (unsigned)align_pages;
    while (from > low && pa_bits512_count(alloc, (unsigned)((from - step) % PA_CHUNK_PAGES), step) == 0)
        from -= step;
    while (to < high && pa_bits512_count(alloc, (unsigned)(to % PA_CHUNK_PAGES), step) == 0)
        to += step;
    if (from < first)
        scavenged_pages += take(p, from, first - from);
    if (to > end)
        scavenged_pages += take(p, end, to - end);
    *addr = pa_page_address(p, from);
    *npages = to - from;
    return first - from + to - end - scavenged_pages;
}

size_t pa_pagealloc_take_tail(pa_pagealloc *p, uintptr_t block, size_t block_pages, size_t step, uintptr_t *addr)
{
    PA_ASSERT(pa_is_pow2(block_pages) && step <= block_pages && block_pages <= PA_CHUNK_PAGES);
    size_t first = pa_page_index(p, block), end = first + block_pages, from = end;
    const pa_chunk *chunk = &p->chunks[first >> PA_CHUNK_PAGES_SHIFT];
    while (from > first && pa_bits512_count(chunk->scavenged, (unsigned)((from - step) % PA_CHUNK_PAGES),
                                            (unsigned)step) == step)
        from -= step;
    if (from == first || from == end)
        return 0;
    take(p, from, end - from);
    *addr = pa_page_address(p, from);
    return end - from;
}

/* ---- Check ---- */

typedef struct sums {
    uint64_t grown, free, scavenged;
    size_t first_free;
} sums;

static const char *check_chunk(const pa_pagealloc *p, size_t c, sums *sum)
{
    const pa_chunk *chunk = &p->chunks[c];
    for (unsigned w = 0; w < PA_CHUNK_WORDS; w++) {
        if (chunk->alloc[w] & chunk->scavenged[w])
            return "pages: an allocated page is marked scavenged";
        sum->free += pa_popcount64(~chunk->alloc[w]);
        sum->scavenged += pa_popcount64(chunk->scavenged[w]);
        if (sum->first_free == SIZE_MAX && ~chunk->alloc[w])
            sum->first_free = (c << PA_CHUNK_PAGES_SHIFT) + w * 64 + pa_ctz64(~chunk->alloc[w]);
    }
    sum->grown += PA_CHUNK_PAGES;
    if (p->level[LEAF][c] != pa_chunk_summarize(chunk))
        return "pages: a leaf summary disagrees with its bitmap";
    if (pa_chunk_has_backed(chunk) && !pa_scavindex_test(&p->scavindex, c))
        return "pages: the scavenge index misses a chunk with free backed pages";
    if (!pa_scavindex_consistent(&p->scavindex, c))
        return "pages: the levels of the scavenge index disagree";
    return NULL;
}

static const char *check_range(const pa_pagealloc *p, pa_addrrange r, sums *sum)
{
    for (size_t c = r.first_chunk; c < r.end_chunk; c++) {
        const char *why = check_chunk(p, c, sum);
        if (why)
            return why;
    }
    size_t lo = r.first_chunk, hi = r.end_chunk - 1;
    for (size_t c = lo & ~(size_t)(GROUP - 1); c <= (hi | (GROUP - 1)); c++)
        if (p->level[LEAF][c] != 0 && !pa_addrranges_contains(&p->grown, c, c + 1))
            return "pages: a chunk that was never grown has free pages";
    for (unsigned l = LEAF; !p->flat && l-- > 0;) {
        lo >>= PA_SUMMARY_LEVEL_BITS;
        hi >>= PA_SUMMARY_LEVEL_BITS;
        for (size_t i = lo; i <= hi; i++)
            if (p->level[l][i] != merge_children(p, l, i))
                return "pages: a summary is not the merge of its children";
    }
    return NULL;
}

static const char *find_broken(const pa_pagealloc *p)
{
    sums sum = {.first_free = SIZE_MAX};
    if (!pa_addrranges_check(&p->grown))
        return "pages: the grown ranges are out of order";
    if (p->grown.count && (p->grown.ranges[0].first_chunk != p->first_chunk ||
                           p->grown.ranges[p->grown.count - 1].end_chunk != p->end_chunk))
        return "pages: the grown extent is not that of the ranges";
    for (size_t i = 0; i < p->grown.count; i++) {
        const char *why = check_range(p, p->grown.ranges[i], &sum);
        if (why)
            return why;
    }
    if (sum.grown != p->grown_pages)
        return "pages: grown pages are miscounted";
    if (sum.free != p->free_pages)
        return "pages: free pages are miscounted";
    if (sum.scavenged != p->scavenged_pages)
        return "pages: scavenged pages are miscounted";
    if (sum.first_free < p->search_page)
        return "pages: a free page below the search hint";
    return NULL;
}

bool pa_pagealloc_check(const pa_pagealloc *p, const char **broken)
{
    const char *why = find_broken(p);
    if (broken)
        *broken = why;
    return why == NULL;
}
