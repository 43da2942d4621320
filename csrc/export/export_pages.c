/* export_pages.c - white-box constructors of the pages layer; compiled only into the test extension.
 *
 * Owns the page allocators, indexes and lists that it hands to tests; no lock, one thread at a time.
 * A pa_xpages has hooks that count commits and fail on demand; its metadata comes from sys/vm, so memory that
 * was not committed faults when it is read.  Everything else is a plain call of the function of that name.
 */
#include "export/export_pages.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "pages/pagealloc.h"
#include "pages/pagecache.h"
#include "sys/vm.h"

struct pa_xpages {
    pa_pagealloc pages;
    bool refuse;
    long fail_in; /* 0: never; 1: the next commit and all after it */
    uint64_t commits;
};

struct pa_xscavindex {
    pa_scavindex index;
};

struct pa_xranges {
    pa_addrranges list;
    size_t capacity;
};

static void *need(size_t count, size_t nbytes)
{
    void *p = calloc(count, nbytes);
    PA_CHECK(p);
    return p;
}

static void *reserve(void *context, size_t nbytes)
{
    pa_xpages *x = context;
    return x->refuse ? NULL : pa_vm_reserve(nbytes, false);
}

static bool commit(void *context, void *addr, size_t nbytes)
{
    pa_xpages *x = context;
    x->commits++;
    if (x->fail_in > 1)
        x->fail_in--;
    else if (x->fail_in == 1)
        return false;
    return pa_vm_commit(addr, nbytes);
}

static void unreserve(void *context, void *addr, size_t nbytes)
{
    (void)context;
    pa_vm_unmap(addr, nbytes);
}

pa_xpages *pa_xpages_new(uintptr_t window_base, unsigned window_bits, int refuse)
{
    pa_xpages *x = need(1, sizeof *x);
    x->refuse = refuse != 0;
    pa_page_hooks hooks = {.reserve = reserve, .commit = commit, .unreserve = unreserve, .context = x};
    if (pa_pagealloc_init(&x->pages, window_base, window_bits, &hooks))
        return x;
    free(x);
    return NULL;
}

void pa_xpages_delete(pa_xpages *x)
{
    pa_pagealloc_destroy(&x->pages);
    free(x);
}

void pa_xpages_fail_commit(pa_xpages *x, long nth)
{
    x->fail_in = nth;
}

bool pa_xpages_grow(pa_xpages *x, uintptr_t base, size_t nbytes)
{
    return pa_pagealloc_grow(&x->pages, base, nbytes);
}

uintptr_t pa_xpages_alloc(pa_xpages *x, size_t npages, size_t *scavenged_pages)
{
    return pa_pagealloc_alloc(&x->pages, npages, scavenged_pages);
}

bool pa_xpages_alloc_at(pa_xpages *x, uintptr_t addr, size_t npages, size_t *scavenged_pages)
{
    return pa_pagealloc_alloc_at(&x->pages, addr, npages, scavenged_pages);
}

void pa_xpages_free(pa_xpages *x, uintptr_t addr, size_t npages)
{
    pa_pagealloc_free(&x->pages, addr, npages);
}

void pa_xpages_free_scavenged(pa_xpages *x, uintptr_t addr, size_t npages)
{
    pa_pagealloc_free_scavenged(&x->pages, addr, npages);
}

uintptr_t pa_xpages_find_backed(pa_xpages *x, size_t max_pages, size_t align_pages, uintptr_t below,
                                size_t *npages)
{
    return pa_pagealloc_find_dense(&x->pages, 1, max_pages, align_pages, below, npages);
}

uintptr_t pa_xpages_find_dense(pa_xpages *x, size_t min_pages, size_t max_pages, uintptr_t below, size_t *npages)
{
    return pa_pagealloc_find_dense(&x->pages, min_pages, max_pages, 1, below, npages);
}

uintptr_t pa_xpages_find_dense_aligned(pa_xpages *x, size_t min_pages, size_t max_pages, size_t align_pages,
                                       uintptr_t below, size_t *npages)
{
    return pa_pagealloc_find_dense(&x->pages, min_pages, max_pages, align_pages, below, npages);
}

size_t pa_xpages_widen(pa_xpages *x, uintptr_t *addr, size_t *npages, size_t align_pages, size_t block_pages)
{
    return pa_pagealloc_widen(&x->pages, addr, npages, align_pages, block_pages);
}

size_t pa_xpages_take_tail(pa_xpages *x, uintptr_t block, size_t block_pages, size_t step, uintptr_t *addr)
{
    return pa_pagealloc_take_tail(&x->pages, block, block_pages, step, addr);
}

pa_xcounters pa_xpages_counters(pa_xpages *x)
{
    const pa_pagealloc *p = &x->pages;
    return (pa_xcounters){
        .free_pages = p->free_pages,
        .scavenged_pages = p->scavenged_pages,
        .grown_pages = p->grown_pages,
        .metadata_bytes = p->metadata_bytes,
        .search_page = p->search_page,
        .commits = x->commits,
    };
}

const char *pa_xpages_check(pa_xpages *x)
{
    const char *broken;
    pa_pagealloc_check(&x->pages, &broken);
    return broken;
}

bool pa_xpages_break(pa_xpages *x, const char *what, uintptr_t addr)
{
    pa_pagealloc *p = &x->pages;
    size_t page = pa_page_index(p, addr), chunk = page >> PA_CHUNK_PAGES_SHIFT;
    uint64_t bit = (uint64_t)1 << (page % 64);
    size_t word = page % PA_CHUNK_PAGES / 64;
    if (strcmp(what, "alloc") == 0) {
        p->chunks[chunk].alloc[word] ^= bit;
    } else if (strcmp(what, "scavenged") == 0) {
        p->chunks[chunk].scavenged[word] ^= bit;
    } else if (strncmp(what, "summary", 7) == 0 && what[7] >= '0' && what[7] < '0' + PA_SUMMARY_LEVELS) {
        unsigned level = (unsigned)(what[7] - '0');
        p->level[level][page >> pa_level_log2_pages(level)] ^= 1;
    } else if (strcmp(what, "scavindex") == 0) {
        pa_scavindex_clear(&p->scavindex, chunk);
    } else if (strcmp(what, "free") == 0) {
        p->free_pages++;
    } else if (strcmp(what, "scav") == 0) {
        p->scavenged_pages++;
    } else if (strcmp(what, "grown") == 0) {
        p->grown_pages++;
    } else if (strcmp(what, "search") == 0) {
        p->search_page = page + 1;
    } else {
        return false;
    }
    return true;
}

static pa_xcache out_of(pa_pagecache c)
{
    return (pa_xcache){c.base, c.free, c.scavenged};
}

static pa_pagecache into(const pa_xcache *c)
{
    return (pa_pagecache){c->base, c->free, c->scavenged};
}

pa_xcache pa_xcache_fill(pa_xpages *x)
{
    return out_of(pa_pagealloc_alloc_to_cache(&x->pages));
}

uintptr_t pa_xcache_alloc(pa_xcache *c, size_t npages, size_t *scavenged_pages)
{
    pa_pagecache cache = into(c);
    uintptr_t addr = pa_pagecache_alloc(&cache, npages, scavenged_pages);
    *c = out_of(cache);
    return addr;
}

void pa_xcache_flush(pa_xcache *c, pa_xpages *x)
{
    pa_pagecache cache = into(c);
    pa_pagecache_flush(&cache, &x->pages);
    *c = out_of(cache);
}

bool pa_xcache_empty(const pa_xcache *c)
{
    pa_pagecache cache = into(c);
    return pa_pagecache_empty(&cache);
}

static const pa_chunk *chunk_of(const pa_xpages *x, uintptr_t addr)
{
    return &x->pages.chunks[pa_page_index(&x->pages, addr) >> PA_CHUNK_PAGES_SHIFT];
}

void pa_xpages_alloc_bits(pa_xpages *x, uintptr_t addr, uint64_t words[8])
{
    memcpy(words, chunk_of(x, addr)->alloc, sizeof chunk_of(x, addr)->alloc);
}

void pa_xpages_scavenged_bits(pa_xpages *x, uintptr_t addr, uint64_t words[8])
{
    memcpy(words, chunk_of(x, addr)->scavenged, sizeof chunk_of(x, addr)->scavenged);
}

uint64_t pa_xpages_summary(pa_xpages *x, unsigned level, size_t index)
{
    PA_CHECK(level < PA_SUMMARY_LEVELS);
    return x->pages.level[level][index];
}

uint64_t pa_xsummary_pack(size_t start, size_t max, size_t end)
{
    return pa_summary_pack(start, max, end);
}
size_t pa_xsummary_start(uint64_t s)
{
    return pa_summary_start(s);
}
size_t pa_xsummary_max(uint64_t s)
{
    return pa_summary_max(s);
}
size_t pa_xsummary_end(uint64_t s)
{
    return pa_summary_end(s);
}
uint64_t pa_xsummary_all_free(unsigned log2_pages)
{
    return pa_summary_all_free(log2_pages);
}

uint64_t pa_xsummary_merge(const uint64_t *children, unsigned count, unsigned log2_pages_per_child)
{
    return pa_summary_merge(children, count, log2_pages_per_child);
}

void pa_xbits_set(uint64_t *words, unsigned first, unsigned n)
{
    pa_bits512_set(words, first, n);
}
void pa_xbits_clear(uint64_t *words, unsigned first, unsigned n)
{
    pa_bits512_clear(words, first, n);
}

unsigned pa_xbits_count(const uint64_t *words, unsigned first, unsigned n)
{
    return pa_bits512_count(words, first, n);
}

unsigned pa_xbits_find_clear(const uint64_t *words, unsigned from, unsigned n)
{
    return pa_bits512_find_clear(words, from, n);
}

uint64_t pa_xword_runs(uint64_t x, unsigned n)
{
    return pa_word_runs(x, n);
}

uint64_t pa_xchunk_summarize(const uint64_t *alloc)
{
    pa_chunk c = {0};
    memcpy(c.alloc, alloc, sizeof c.alloc);
    return pa_chunk_summarize(&c);
}

unsigned pa_xchunk_find_backed(const uint64_t *alloc, const uint64_t *scavenged, unsigned below, unsigned max,
                               unsigned align, unsigned *first)
{
    pa_chunk c;
    memcpy(c.alloc, alloc, sizeof c.alloc);
    memcpy(c.scavenged, scavenged, sizeof c.scavenged);
    return pa_chunk_find_backed(&c, below, max, align, first);
}

pa_xscavindex *pa_xscavindex_new(size_t chunk_count)
{
    pa_xscavindex *x = need(1, sizeof *x);
    x->index.chunks = need(chunk_count / 64 + 1, sizeof(uint64_t));
    x->index.words = need(chunk_count / 4096 + 1, sizeof(uint64_t));
    return x;
}

void pa_xscavindex_delete(pa_xscavindex *x)
{
    free(x->index.chunks);
    free(x->index.words);
    free(x);
}

void pa_xscavindex_mark(pa_xscavindex *x, size_t chunk)
{
    pa_scavindex_mark(&x->index, chunk);
}
void pa_xscavindex_clear(pa_xscavindex *x, size_t chunk)
{
    pa_scavindex_clear(&x->index, chunk);
}
bool pa_xscavindex_test(const pa_xscavindex *x, size_t chunk)
{
    return pa_scavindex_test(&x->index, chunk);
}

bool pa_xscavindex_consistent(const pa_xscavindex *x, size_t chunk)
{
    return pa_scavindex_consistent(&x->index, chunk);
}

size_t pa_xscavindex_highest(const pa_xscavindex *x, size_t lo, size_t hi)
{
    return pa_scavindex_highest(&x->index, lo, hi);
}

pa_xranges *pa_xranges_new(size_t capacity)
{
    pa_xranges *x = need(1, sizeof *x);
    x->list.ranges = need(capacity, sizeof *x->list.ranges);
    x->capacity = capacity;
    return x;
}

void pa_xranges_delete(pa_xranges *x)
{
    free(x->list.ranges);
    free(x);
}

void pa_xranges_add(pa_xranges *x, size_t first_chunk, size_t end_chunk)
{
    PA_CHECK(x->list.count < x->capacity);
    pa_addrranges_add(&x->list, first_chunk, end_chunk);
}

bool pa_xranges_contains(const pa_xranges *x, size_t first_chunk, size_t end_chunk)
{
    return pa_addrranges_contains(&x->list, first_chunk, end_chunk);
}

bool pa_xranges_overlaps(const pa_xranges *x, size_t first_chunk, size_t end_chunk)
{
    return pa_addrranges_overlaps(&x->list, first_chunk, end_chunk);
}

bool pa_xranges_check(const pa_xranges *x)
{
    return pa_addrranges_check(&x->list);
}

size_t pa_xranges_list(const pa_xranges *x, uint32_t *out, size_t capacity)
{
    for (size_t i = 0; i < x->list.count && i < capacity; i++) {
        out[2 * i] = x->list.ranges[i].first_chunk;
        out[2 * i + 1] = x->list.ranges[i].end_chunk;
    }
    return x->list.count;
}
