/* stress.h - what the stress programs share beyond ctest.h: "the heap is whole".
 */
#ifndef PA_STRESS_H
#define PA_STRESS_H

#include <inttypes.h>

#include "base/bits.h"
#include "ctest.h"
#include "heap/check.h"
#include "heap/mcache.h"
#include "include/pyalloc.h"
#include "world/proc.h"

/* ---- The heap is whole ---- */

static inline pa_mem_stats stats_now(void)
{
    pa_mem_stats stats;
    pa_read_mem_stats(&stats);
    return stats;
}

/* No other thread may be inside the allocator. Beyond pa_heap_check: every page that was ever grown is free, in a
 * thread's page stock, or in a span. */
static inline void heap_must_be_whole(void)
{
    char broken[200];
    REQUIRE(pa_heap_check(broken, sizeof broken) == 0, "%s", broken);
    uint64_t stocked_pages = 0;
    for (pa_proc *p = pa_the_procs.all; p; p = p->next_all)
        stocked_pages += pa_popcount64(p->cache.stock.cache.free);
    const pa_pagealloc *pages = &pa_the_heap.pages;
    uint64_t inuse_pages = atomic_load(&pa_the_heap.inuse_pages);
    REQUIRE(pages->grown_pages == pages->free_pages + stocked_pages + inuse_pages,
            "grown %" PRIu64 " free %" PRIu64 " stocked %" PRIu64 " in use %" PRIu64, pages->grown_pages,
            pages->free_pages, stocked_pages, inuse_pages);
}

/* Everything was freed and every other thread joined: nothing may be left in use after giving memory back. */
static inline void heap_must_be_empty(void)
{
    heap_must_be_whole();
    pa_free_os_memory(); /* collects what others freed, too: until then such blocks count as objects */
    heap_must_be_whole();
    pa_mem_stats s = stats_now();
    REQUIRE(s.explicit_objects == 0, "%" PRIu64 " objects", s.explicit_objects);
    REQUIRE(s.explicit_alloc == 0, "%" PRIu64 " bytes", s.explicit_alloc);
    REQUIRE(s.heap_inuse == 0, "%" PRIu64 " bytes in use", s.heap_inuse);
    REQUIRE(s.spans_allocated == s.spans_freed, "%" PRIu64 " %" PRIu64, s.spans_allocated, s.spans_freed);
    REQUIRE(s.heap_idle == s.heap_sys && s.heap_released == s.heap_sys,
            "idle %" PRIu64 " released %" PRIu64 " sys %" PRIu64,
            s.heap_idle, s.heap_released, s.heap_sys);
}

#endif
