/* pagecache.h - 64 pages (512 KiB) that one thread allocates from without mheap's lock.
 *
 * Two bitmaps: which pages are free, and which of those are not backed.  The owner is one thread; taking a
 * block from and flushing it to the page allocator need mheap's lock.  (Go: runtime/mpagecache.go;
 * some texts call this unit a chunk, see docs/glossary.md.)
 */
#ifndef PA_PAGECACHE_H
#define PA_PAGECACHE_H

#include "pages/pagealloc.h"

typedef struct pa_pagecache {
    uintptr_t base;     /* of page 0; a multiple of 512 KiB from the window's start */
    uint64_t free;      /* bit i: page i is free */
    uint64_t scavenged; /* bit i: free and not backed */
} pa_pagecache;

PA_INLINE bool pa_pagecache_empty(const pa_pagecache *c) { return c->free == 0; }

/* Takes all free pages of the first aligned block that has any; an empty cache when there is none. */
pa_pagecache pa_pagealloc_alloc_to_cache(pa_pagealloc *p);
/* First fit of 1..64 pages; 0 when there is none. */
uintptr_t pa_pagecache_alloc(pa_pagecache *c, size_t npages, size_t *scavenged_pages);
/* Gives everything back; c is empty afterwards. */
void pa_pagecache_flush(pa_pagecache *c, pa_pagealloc *p);

#endif
