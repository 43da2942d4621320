/* pagecache.c - one aligned block of 64 pages, as two words.
 *
 * Owned by one thread.  Pages in a cache are allocated as far as the page allocator knows, with their
 * scavenged bits carried along; a flush puts both back. Invariant: scavenged is a subset of free.
 * Idea: Go's pageCache (runtime/mpagecache.go).
 */
#include "pages/pagecache.h"

#include "base/assert.h"
#include "base/bits.h"

pa_pagecache pa_pagealloc_alloc_to_cache(pa_pagealloc *p)
{
    size_t page = pa_pagealloc_find_first(p);
    if (page == SIZE_MAX)
        return (pa_pagecache){0};
    size_t block = page & ~(size_t)(PA_CACHE_PAGES - 1);
    pa_chunk *chunk = &p->chunks[page >> PA_CHUNK_PAGES_SHIFT];
    unsigned w = (unsigned)(page >> 6) % PA_CHUNK_WORDS;
    pa_pagecache c = {pa_page_address(p, block), ~chunk->alloc[w], chunk->scavenged[w]};
    PA_INVARIANT((c.scavenged & ~c.free) == 0);
    chunk->alloc[w] = ~(uint64_t)0;
    chunk->scavenged[w] = 0;
    p->free_pages -= pa_popcount64(c.free);
    p->scavenged_pages -= pa_popcount64(c.scavenged);
    p->search_page = block + PA_CACHE_PAGES; /* the block had the first free page */
    pa_pagealloc_update(p, block, PA_CACHE_PAGES);
    return c;
}

uintptr_t pa_pagecache_alloc(pa_pagecache *c, size_t npages, size_t *scavenged_pages)
{
    PA_ASSERT(npages >= 1 && npages <= PA_CACHE_PAGES);
    *scavenged_pages = 0;
    uint64_t starts = pa_word_runs(c->free, (unsigned)npages);
    if (!starts)
        return 0;
    unsigned i = pa_ctz64(starts);
    uint64_t run = pa_mask64((unsigned)npages) << i;
    *scavenged_pages = pa_popcount64(c->scavenged & run);
    c->free &= ~run;
    c->scavenged &= ~run;
    return c->base + ((uintptr_t)i << PA_PAGE_SHIFT);
}

void pa_pagecache_flush(pa_pagecache *c, pa_pagealloc *p)
{
    if (c->free) {
        size_t block = pa_page_index(p, c->base);
        pa_chunk *chunk = &p->chunks[block >> PA_CHUNK_PAGES_SHIFT];
        unsigned w = (unsigned)(block >> 6) % PA_CHUNK_WORDS;
        PA_ASSERT((chunk->alloc[w] & c->free) == c->free);
        chunk->alloc[w] &= ~c->free;
        chunk->scavenged[w] |= c->scavenged;
        p->free_pages += pa_popcount64(c->free);
        p->scavenged_pages += pa_popcount64(c->scavenged);
        if (c->free & ~c->scavenged)
            pa_scavindex_mark(&p->scavindex, block >> PA_CHUNK_PAGES_SHIFT);
        size_t first = block + pa_ctz64(c->free);
        if (first < p->search_page)
            p->search_page = first;
        pa_pagealloc_update(p, block, PA_CACHE_PAGES);
    }
    *c = (pa_pagecache){0};
}
