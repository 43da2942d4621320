/* heap.h - the root structure: one heap, everything hangs off it.
 *
 * A zeroed pa_heap is valid before pa_heap_init_locked: its locks are free and its lists empty.
 */
#ifndef PA_HEAP_H
#define PA_HEAP_H

#include "heap/arena.h"
#include "heap/decay.h"
#include "heap/idle.h"
#include "heap/leavings.h"
#include "heap/peak.h"
#include "heap/release.h"
#include "heap/spanlist.h"
#include "pages/pagealloc.h"
#include "sys/offheap.h"

/* One per class and kind. Padded: neighbours are locked by different threads. */
typedef struct PA_ALIGNED(64) pa_mcentral {
    pa_lock lock;
    pa_spanlist nonempty;   /* spans with free elements, unowned */
    pa_spanlist empty;      /* managed spans without: the sweeper must find them */
    uint32_t nonempty_count; /* written under lock; read racily to skip an empty list */
    uint32_t unswept_gen;   /* the sweep that `unswept` belongs to, by the heap's sweepgen */
    pa_span *unswept;       /* the first of `empty` that this sweep's refills have not looked at */
} pa_mcentral;

/* Weak handles and cleanups; see heap/special.h. All under lock; news is also read racily. */
typedef struct pa_specials {
    pa_lock lock;
    pa_fixalloc records, weaks;
    struct pa_special *queue, *queue_last; /* cleanups of dead objects, oldest first */
    bool news;                             /* queued since somebody asked */
    uint64_t queued_total, taken_total;    /* cleanups, ever; read racily */
} pa_specials;

typedef struct pa_heap {
    pa_lock lock;               /* mheap's global lock */
    bool initialised;
    pa_pagealloc pages;
    pa_fixalloc span_headers;
    pa_fixalloc arena_records;
    pa_arena *arenas;           /* first; published with release, walked by anybody */
    pa_arena *last_arena;
    pa_offheap offheap;
    uint64_t arena_count;
    uint64_t released_bytes_total;
    /* Pages in spans. Atomic: page caches hand out spans without the lock. */
    _Atomic uint64_t inuse_pages;
    /* Of those, OS pages of free blocks that were given back (heap/hollow.h), bytes. Relaxed. */
    _Atomic uint64_t hollow_bytes;
    _Atomic uint64_t peak_pages; /* highest inuse_pages since the last look of heap/decay.h; racily kept, so about */
    uint64_t taken_pages, taken_unbacked_pages; /* since the last look: from free pages, without backing; under lock */
    _Atomic uint64_t spans_allocated, spans_freed;
    _Atomic uint64_t traced_pages; /* inuse_pages when it was last put into the trace; relaxed, a race costs an event */
    pa_peak peak;               /* who wants to know of more than ever before */
    /* The collector's: + 2 a cycle, in the stop that ends marking. Read relaxed by who is inside or sweeps: it
     * does not change meanwhile. */
    _Atomic uint32_t sweepgen;
    _Atomic bool sweeping;      /* spans may need sweeping. Set in that stop, cleared when the sweep is complete;
                                   read relaxed by refills: a stale value costs a look or a span */
    uint64_t side_bytes;        /* side tables (heap/gcside.h) and what is used of their table; under lock */
    /* Managed objects: marked by the last cycle + allocated since, bytes; lags by the Ps' current spans. */
    _Atomic uint64_t managed_live_bytes;
    /* Cumulative, as spans are swept; the objects by size class. Relaxed: whoever sees a free has seen its malloc,
     * because a mark phase and its locks lie between the two. */
    _Atomic uint64_t managed_freed_bytes, managed_freed_objects[PA_SIZE_CLASSES];
    _Atomic uint64_t managed_pages; /* of inuse_pages */
    _Atomic uint64_t conservative_pages; /* of those: spans whose objects are scanned again in the final stop */
    /* Bumped to ask every thread to give back what it caches, at its next slow-path call. Written by
     * pa_free_os_memory, read relaxed by slow paths: late is fine. */
    _Atomic uint32_t trim_generation;
    pa_decay decay;             /* release of idle pages */
    /* Every mcache, linked through next_cache. Pushed under the P list's lock with release, walked by anybody. */
    _Atomic(pa_mcache *) mcaches;
    pa_idle idle;               /* flushing those of threads that sleep */
    pa_release release;         /* how, how much, and the memory limit */
    /* Explicit spans on all lists below, written under the list's lock; read relaxed, so that a program which never
     * leaves a span to others doesn't touch the lists' pages: a stale value costs a look or a span. */
    _Atomic uint32_t listed_explicit;
    pa_specials specials;
    pa_leavings leavings;       /* of threads that have exited */
    pa_mcentral central[PA_SPAN_KINDS][PA_SIZE_CLASSES];
} pa_heap;

/* Maps the first arena and reserves the tables. False when the OS refuses: may be tried again. */
bool pa_heap_init_locked(pa_heap *h);
/* Ranks are read by checked builds and lock statistics only; without them the lists' pages stay untouched. */
void pa_heap_rank_central_locks(pa_heap *h);
/* Free or backed pages became more: tells who wants to know (pa_decay.notify_due). mheap's lock held. */
void pa_heap_notice_idle_locked(pa_heap *h);

#endif
