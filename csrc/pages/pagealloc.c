/* pagealloc.c - which pages are free, and the first fit among them.
 *
 * Owns its metadata: one reservation with five levels of summaries, the chunk bitmaps and the scavenge
 * index, committed where arenas are.  No lock of its own (mheap's is held).
 *
 * Search (find_run): an entry of a level says how long its free runs are at the start, at most, and at the end.
 * Going through the entries of one level in address order, either a run that crosses entries is long
 * enough: done; or an entry holds one: go down into its eight children; or go on.  At the leaf the
 * bitmap has it.  Nothing below `search_page` is free, so each level starts there.
 *
 * Invariants: level[4][c] summarizes chunk c; an entry above is the merge of its eight children; entries of
 * ranges that were never grown are 0 and, but for level 0, may be uncommitted: they are never read,
 * because a child group is read only below an entry that is not 0, or when one of the group was grown;
 * the eight entries of a group share an OS page.
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
        out[l] = (region){(void **)&p->level[l], (chunks >> (LEAF - l) * PA_SUMMARY_LEVEL_BITS) * sizeof(pa_summary)};
    out[LEAF + 1] = (region){(void **)&p->chunks, chunks * sizeof(pa_chunk)};
    out[LEAF + 2] = (region){(void **)&p->scavindex.chunks, pa_div_ceil(chunks, 64) * 8};
    out[LEAF + 3] = (region){(void **)&p->scavindex.words, pa_div_ceil(chunks, 4096) * 8};
}

static bool commit(pa_pagealloc *p, unsigned r, void *addr, size_t nbytes)
{
    pa_extent *e = &p->committed[r];
    uintptr_t lo = pa_round_down((uintptr_t)addr, 4096), hi = pa_round_up((uintptr_t)addr + nbytes, 4096);
    if (lo >= e->lo && hi <= e->hi)
        return true;
    if (lo >= e->lo && lo < e->hi) /* the common case: the heap grows upwards */
        lo = e->hi;
    if (!p->hooks.commit(p->hooks.context, (void *)lo, hi - lo))
        return false;
    p->metadata_bytes += hi - lo;
    if (lo == e->hi)
        e->hi = hi;
    else
        *e = (pa_extent){lo, hi};
    return true;
}

bool pa_pagealloc_init(pa_pagealloc *p, uintptr_t window_base, unsigned window_bits, const pa_page_hooks *hooks)
{
    PA_CHECK(window_bits >= PA_ROOT_SHIFT && window_bits <= PA_ADDRESS_BITS);
    PA_CHECK(window_base % ((uintptr_t)1 << PA_ROOT_SHIFT) == 0);
    *p = (pa_pagealloc){.base = window_base, .window_bits = window_bits, .hooks = *hooks, .search_page = SIZE_MAX};
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
    if (commit(p, 0, p->level[0], regions[0].nbytes) && commit(p, LEAF + 3, p->scavindex.words, regions[LEAF + 3].nbytes))
        return true;
    pa_pagealloc_destroy(p);
    return false;
}

void pa_pagealloc_destroy(pa_pagealloc *p)
{
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
           commit(p, LEAF + 2, &p->scavindex.chunks[first / 64], ((end - 1) / 64 - first / 64 + 1) * 8);
}

bool pa_pagealloc_grow(pa_pagealloc *p, uintptr_t base, size_t nbytes)
{
    PA_CHECK(base % PA_CHUNK_BYTES == 0 && nbytes % PA_CHUNK_BYTES == 0 && nbytes != 0);
    size_t first = pa_page_index(p, base) >> PA_CHUNK_PAGES_SHIFT;
    size_t end = first + (nbytes >> PA_CHUNK_SHIFT);
    PA_CHECK(base >= p->base && end <= (size_t)1 << (p->window_bits - PA_CHUNK_SHIFT));
    if (!commit_for_chunks(p, first, end))
        return false;
    for (size_t c = first; c < end; c++) {
        memset(p->chunks[c].alloc, 0, sizeof p->chunks[c].alloc);
        memset(p->chunks[c].scavenged, 0xff, sizeof p->chunks[c].scavenged);
    }
    if (p->first_chunk == p->end_chunk) {
        p->first_chunk = first;
        p->end_chunk = end;
    } else {
        p->first_chunk = first < p->first_chunk ? first : p->first_chunk;
        p->end_chunk = end > p->end_chunk ? end : p->end_chunk;
    }
    size_t npages = nbytes >> PA_PAGE_SHIFT, page = first << PA_CHUNK_PAGES_SHIFT;
    p->grown_pages += npages;
    p->free_pages += npages;
    p->scavenged_pages += npages;
    if (page < p->search_page)
        p->search_page = page;
    pa_pagealloc_update(p, page, npages);
    return true;
}

/* ---- Repairing the tree ---- */

void pa_pagealloc_update(pa_pagealloc *p, size_t first_page, size_t npages)
{
    size_t lo = first_page >> PA_CHUNK_PAGES_SHIFT, hi = (first_page + npages - 1) >> PA_CHUNK_PAGES_SHIFT;
    bool changed = false;
    for (size_t c = lo; c <= hi; c++) {
        pa_summary s = pa_chunk_summarize(&p->chunks[c]);
        changed |= s != p->level[LEAF][c];
        p->level[LEAF][c] = s;
    }
    for (unsigned l = LEAF; changed && l-- > 0;) {
        changed = false;
        lo >>= PA_SUMMARY_LEVEL_BITS;
        hi >>= PA_SUMMARY_LEVEL_BITS;
        for (size_t i = lo; i <= hi; i++) {
            pa_summary s = pa_summary_merge(&p->level[l + 1][i * GROUP], GROUP, pa_level_log2_pages(l + 1));
            changed |= s != p->level[l][i];
            p->level[l][i] = s;
        }
    }
}

/* Calls op for each chunk's part of a run of pages. */
#define FOR_EACH_CHUNK(page, npages, c, first, n)                                                              \
    for (size_t at_ = (page), end_ = (page) + (npages), c, first, n;                                           \
         at_ < end_ && (c = at_ >> PA_CHUNK_PAGES_SHIFT, first = at_ & (PA_CHUNK_PAGES - 1),                    \
                        n = PA_CHUNK_PAGES - first < end_ - at_ ? PA_CHUNK_PAGES - first : end_ - at_, true);   \
         at_ += n)

/* Marks free pages allocated; returns how many of them were not backed. */
static size_t take(pa_pagealloc *p, size_t page, size_t npages)
{
    size_t scavenged = 0;
    FOR_EACH_CHUNK (page, npages, c, first, n) {
        pa_chunk *chunk = &p->chunks[c];
        PA_INVARIANT(pa_bits512_count(chunk->alloc, (unsigned)first, (unsigned)n) == 0);
        pa_bits512_set(chunk->alloc, (unsigned)first, (unsigned)n);
        unsigned s = pa_bits512_count(chunk->scavenged, (unsigned)first, (unsigned)n);
        if (s)
            pa_bits512_clear(chunk->scavenged, (unsigned)first, (unsigned)n);
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
    size_t page = pa_page_index(p, addr);
    FOR_EACH_CHUNK (page, npages, c, first, n) {
        pa_chunk *chunk = &p->chunks[c];
        PA_ASSERT(pa_bits512_count(chunk->alloc, (unsigned)first, (unsigned)n) == n);
        pa_bits512_clear(chunk->alloc, (unsigned)first, (unsigned)n);
        if (scavenged)
            pa_bits512_set(chunk->scavenged, (unsigned)first, (unsigned)n);
        else
            pa_scavindex_mark(&p->scavindex, c);
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
    size_t group = 0; /* index of the first entry looked at */
    bool narrowing = true; /* everything before the path is full: its first non-zero entry bounds search_page */
    for (unsigned l = 0; l < PA_SUMMARY_LEVELS; l++) {
        unsigned log2_pages = pa_level_log2_pages(l);
        size_t entry_pages = (size_t)1 << log2_pages;
        size_t i = p->search_page >> log2_pages, end = group + GROUP;
        if (l == 0)
            end = ((p->end_chunk - 1) >> (LEAF * PA_SUMMARY_LEVEL_BITS)) + 1;
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
            PA_CHECK(l == 0); /* a parent promised a run that its children do not have */
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
    size_t page = find_run(p, npages);
    if (page == SIZE_MAX)
        return 0;
    *scavenged_pages = take(p, page, npages);
    return pa_page_address(p, page);
}

static bool is_grown(const pa_pagealloc *p, size_t chunk)
{
    if (chunk < p->first_chunk || chunk >= p->end_chunk)
        return false;
    /* Ungrown chunks between arenas may be uncommitted: come down from the root, which is readable. */
    for (unsigned l = 0; l <= LEAF; l++)
        if (p->level[l][chunk >> (LEAF - l) * PA_SUMMARY_LEVEL_BITS] == 0)
            return false; /* not grown, or nothing free below: the same to our caller */
    return true;
}

bool pa_pagealloc_alloc_at(pa_pagealloc *p, uintptr_t addr, size_t npages, size_t *scavenged_pages)
{
    if (addr < p->base || pa_page_index(p, addr) + npages > (size_t)1 << (p->window_bits - PA_PAGE_SHIFT))
        return false;
    size_t page = pa_page_index(p, addr);
    FOR_EACH_CHUNK (page, npages, c, first, n) {
        if (!is_grown(p, c) || pa_bits512_count(p->chunks[c].alloc, (unsigned)first, (unsigned)n) != 0)
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

uintptr_t pa_pagealloc_find_backed(pa_pagealloc *p, size_t max_pages, size_t align_pages, uintptr_t below,
                                   size_t *npages)
{
    if (p->first_chunk == p->end_chunk || below <= pa_page_address(p, p->first_chunk << PA_CHUNK_PAGES_SHIFT))
        return 0;
    size_t limit = p->end_chunk << PA_CHUNK_PAGES_SHIFT; /* page index: runs end at or before it */
    if (below < pa_page_address(p, limit))
        limit = pa_page_index(p, below);
    unsigned max = max_pages < PA_CHUNK_PAGES ? (unsigned)max_pages : (unsigned)PA_CHUNK_PAGES;
    while (limit > p->first_chunk << PA_CHUNK_PAGES_SHIFT) {
        size_t chunk = pa_scavindex_highest(&p->scavindex, p->first_chunk, (limit - 1) >> PA_CHUNK_PAGES_SHIFT);
        if (chunk == SIZE_MAX)
            return 0;
        size_t chunk_page = chunk << PA_CHUNK_PAGES_SHIFT, in_chunk = limit - chunk_page;
        bool whole = in_chunk >= PA_CHUNK_PAGES;
        unsigned first, n = pa_chunk_find_backed(&p->chunks[chunk], whole ? (unsigned)PA_CHUNK_PAGES : (unsigned)in_chunk,
                                                 max, (unsigned)align_pages, &first);
        if (n) {
            take(p, chunk_page + first, n);
            *npages = n;
            return pa_page_address(p, chunk_page + first);
        }
        if (whole && align_pages == 1)
            pa_scavindex_clear(&p->scavindex, chunk);
        limit = chunk_page;
    }
    return 0;
}

/* ---- Check ---- */

static const char *find_broken(const pa_pagealloc *p)
{
    uint64_t free_pages = 0, scavenged_pages = 0;
    for (size_t root = p->first_chunk >> (LEAF * PA_SUMMARY_LEVEL_BITS);
         p->end_chunk > p->first_chunk && root <= (p->end_chunk - 1) >> (LEAF * PA_SUMMARY_LEVEL_BITS); root++) {
        /* Below a zero root entry there may be nothing to read; all its grown pages are allocated. */
        if (p->level[0][root] == 0)
            continue;
        size_t per_root = (size_t)1 << LEAF * PA_SUMMARY_LEVEL_BITS;
        for (size_t c = root * per_root; c < (root + 1) * per_root; c++) {
            if (c < p->first_chunk || c >= p->end_chunk || !is_grown(p, c))
                continue;
            const pa_chunk *chunk = &p->chunks[c];
            if (p->level[LEAF][c] != pa_chunk_summarize(chunk))
                return "pages: a leaf summary disagrees with its bitmap";
            bool backed = false;
            for (unsigned w = 0; w < PA_CHUNK_WORDS; w++) {
                if (chunk->alloc[w] & chunk->scavenged[w])
                    return "pages: an allocated page is marked scavenged";
                free_pages += pa_popcount64(~chunk->alloc[w]);
                scavenged_pages += pa_popcount64(chunk->scavenged[w]);
                backed |= ~(chunk->alloc[w] | chunk->scavenged[w]) != 0;
            }
            if (backed && !pa_scavindex_test(&p->scavindex, c))
                return "pages: the scavenge index misses a chunk with free backed pages";
            if (c << PA_CHUNK_PAGES_SHIFT < p->search_page) {
                unsigned first = pa_bits512_find_clear(chunk->alloc, 0, 1);
                if (first < PA_CHUNK_PAGES && (c << PA_CHUNK_PAGES_SHIFT) + first < p->search_page)
                    return "pages: a free page below the search hint";
            }
            for (unsigned l = 0; l < LEAF; l++) {
                size_t i = c >> (LEAF - l) * PA_SUMMARY_LEVEL_BITS;
                if (p->level[l][i] != pa_summary_merge(&p->level[l + 1][i * GROUP], GROUP, pa_level_log2_pages(l + 1)))
                    return "pages: a summary is not the merge of its children";
            }
        }
    }
    if (free_pages != p->free_pages)
        return "pages: free pages are miscounted";
    if (scavenged_pages != p->scavenged_pages)
        return "pages: scavenged pages are miscounted";
    return NULL;
}

bool pa_pagealloc_check(const pa_pagealloc *p, const char **broken)
{
    *broken = find_broken(p);
    return *broken == NULL;
}
