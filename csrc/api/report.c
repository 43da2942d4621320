/* report.c - statistics as snapshots: memory by class of use, the collector, the table of size classes.
 *
 * Owns nothing, stops nobody.  A snapshot has three parts, taken in this order:
 *
 *   1. What was freed, then what was allocated of managed objects, from the heap and each thread (a sequence lock a
 *      thread, world/gcproc.c).  Where a thread is interrupted
 *      in the middle of accounting, the last figures seen stand in, and never fewer objects than were freed.
 *   2. Explicit blocks: a walk over the spans (heap/walk.h) and over frees on their way (heap/pending.h).  The fast
 *      paths keep no counters, so this is the one part whose cost grows with the heap.
 *   3. Page-level figures and the collector's, copied while the locks of collector, thread list, mheap and off-heap
 *      memory are all held: one instant.  heap_idle is what is not in use and explicit_inuse what is not managed, so
 *      that the identities of docs/statistics.md hold in every snapshot by construction.  inuse_pages moves without
 *      mheap's lock when page caches hand out spans; it is read once.
 *
 * Object counts of parts 1 and 2 were true a moment before part 3; where threads run, heap_alloc is therefore
 * cut to what part 3 found in use.
 */
#include "api/report.h"

#include <string.h>

#include "base/lockstat.h"
#include "gc/gc.h"
#include "heap/mcentral.h"
#include "heap/pending.h"
#include "heap/walk.h"
#include "sys/vm.h"

_Static_assert((int)PA_SNAPSHOT_CLASSES == (int)PA_SIZE_CLASSES, "a row a class");
_Static_assert((int)PA_SNAPSHOT_PAUSES == (int)PA_PAUSE_HISTORY, "the collector's rings");
_Static_assert((int)PA_SNAPSHOT_PAUSE_BUCKETS == (int)PA_PAUSE_BUCKETS, "the collector's buckets");

static uint64_t less(uint64_t x, uint64_t y)
{
    return x > y ? x - y : 0;
}

static uint64_t at_most(uint64_t x, uint64_t limit)
{
    return x < limit ? x : limit;
}

static uint64_t at_least(uint64_t x, uint64_t limit)
{
    return x > limit ? x : limit;
}

/* What parts 1 and 2 find. */
typedef struct objects {
    pa_class_stats classes[PA_SIZE_CLASSES];
    uint64_t pending[PA_SIZE_CLASSES];
    uint64_t cached_pages;
    uint64_t managed_alloc_bytes, managed_freed_bytes; /* cumulative */
} objects;

/* ---- Managed objects ---- */

static void read_managed(pa_heap *h, objects *o)
{
    uint64_t mallocs[PA_SIZE_CLASSES] = {0};
    for (unsigned c = 0; c < PA_SIZE_CLASSES; c++)
        o->classes[c].managed_frees = atomic_load_explicit(&h->managed_freed_objects[c], memory_order_relaxed);
    o->managed_freed_bytes = atomic_load_explicit(&h->managed_freed_bytes, memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
    for (pa_proc *p = __atomic_load_n(&pa_the_procs.all, __ATOMIC_ACQUIRE); p; p = p->next_all) {
        pa_gcproc *g = __atomic_load_n(&p->cache.gc, __ATOMIC_ACQUIRE);
        if (pa_gcproc_is_real(g))
            pa_gcproc_read_allocs(g, mallocs, &o->managed_alloc_bytes);
    }
    /* Figures that stand in may be older than the frees. */
    for (unsigned c = 0; c < PA_SIZE_CLASSES; c++)
        o->classes[c].managed_mallocs = at_least(mallocs[c], o->classes[c].managed_frees);
    o->managed_alloc_bytes = at_least(o->managed_alloc_bytes, o->managed_freed_bytes);
}

/* ---- Explicit blocks ---- */

static bool add_span(void *context, const pa_span_view *v)
{
    objects *o = context;
    pa_class_stats *one = &o->classes[v->size_class];
    uint64_t span_bytes = (uint64_t)v->npages << PA_PAGE_SHIFT;
    if (v->state == PA_SPAN_MANAGED) {
        one->managed_spans++;
        one->managed_span_bytes += span_bytes;
    } else if (v->state == PA_SPAN_CACHED) {
        o->cached_pages += v->npages;
    } else {
        one->spans++;
        one->span_bytes += span_bytes;
        one->objects += v->live;
        if (v->size_class)
            o->pending[v->size_class] += pa_pending_in_span(&pa_the_heap, v->span, v->size_class);
    }
    return true;
}

static void read_explicit(pa_heap *h, objects *o)
{
    pa_heap_walk(h, add_span, o);
    for (pa_proc *p = __atomic_load_n(&pa_the_procs.all, __ATOMIC_ACQUIRE); p; p = p->next_all)
        pa_pending_in_outbox(&p->cache, o->pending);
    for (unsigned c = 0; c < PA_SIZE_CLASSES; c++) {
        o->classes[c].objects = less(o->classes[c].objects, o->pending[c]);
        o->classes[c].object_bytes = pa_class_object_bytes[c];
    }
}

static void read_objects(pa_heap *h, objects *o)
{
    *o = (objects){0};
    read_managed(h, o);
    read_explicit(h, o);
}

/* ---- Pages, threads, metadata ---- */

/* mheap's and off-heap's locks held, and the thread list's. */
static void read_pages_locked(pa_heap *h, pa_mem_stats *out)
{
    uint64_t managed = atomic_load_explicit(&h->managed_pages, memory_order_relaxed) << PA_PAGE_SHIFT;
    uint64_t inuse = atomic_load_explicit(&h->inuse_pages, memory_order_relaxed) << PA_PAGE_SHIFT;
    out->arenas = h->arena_count;
    out->heap_sys = h->arena_count << PA_ARENA_SHIFT;
    out->heap_inuse = inuse;
    out->heap_idle = out->heap_sys - inuse;
    out->heap_released = h->pages.scavenged_pages << PA_PAGE_SHIFT;
    out->managed_inuse = at_most(managed, inuse); /* a span may be taken down between the two */
    out->explicit_inuse = inuse - out->managed_inuse;
    out->explicit_hollow = at_most(atomic_load_explicit(&h->hollow_bytes, memory_order_relaxed),
                                   out->explicit_inuse);
    out->heap_released_total = h->released_bytes_total;
    out->mspan_inuse = h->span_headers.inuse_count * sizeof(pa_span);
    out->mspan_sys = h->span_headers.total_count * sizeof(pa_span);
    out->mcache_inuse = pa_the_procs.attached_count * sizeof(pa_proc);
    out->mcache_sys = pa_the_procs.count * sizeof(pa_proc);
    out->gc_sys = h->pages.metadata_bytes + h->side_bytes + h->arena_count * PA_ARENA_PAGES * sizeof(pa_span *);
    out->other_sys = h->offheap.sys_bytes - out->mspan_sys - out->mcache_sys;
    out->sys = out->heap_sys + out->mspan_sys + out->mcache_sys + out->gc_sys + out->other_sys;
    out->threads = pa_the_procs.attached_count;
    out->mheap_lock_acquisitions = h->lock.acquisitions;
    out->heap_mmaps = pa_vm_heap_mmaps();
    out->spans_freed = atomic_load_explicit(&h->spans_freed, memory_order_acquire);
    out->spans_allocated = atomic_load_explicit(&h->spans_allocated, memory_order_relaxed);
}

static void read_pages(pa_heap *h, pa_mem_stats *out)
{
    pa_lock_acquire(&pa_the_procs.lock);
    pa_lock_acquire(&h->lock);
    pa_lock_acquire(&h->offheap.lock);
    read_pages_locked(h, out);
    pa_lock_release(&h->offheap.lock);
    pa_lock_release(&h->lock);
    pa_lock_release(&pa_the_procs.lock);
}

/* Object counts into a snapshot whose page-level part is there. */
static void sum_up(const objects *o, pa_mem_stats *out)
{
    uint64_t explicit_bytes = 0, managed_bytes = o->managed_alloc_bytes - o->managed_freed_bytes;
    for (unsigned c = 0; c < PA_SIZE_CLASSES; c++) {
        const pa_class_stats *one = &o->classes[c];
        out->explicit_objects += one->objects;
        explicit_bytes += c ? one->objects * one->object_bytes : one->span_bytes;
        out->mallocs += one->managed_mallocs;
        out->frees += one->managed_frees;
    }
    out->total_alloc = o->managed_alloc_bytes;
    out->heap_objects = out->explicit_objects + out->mallocs - out->frees;
    out->explicit_alloc = at_most(explicit_bytes, out->explicit_inuse);
    out->heap_alloc = out->explicit_alloc + at_most(managed_bytes, out->managed_inuse);
    out->explicit_cached = at_most(o->cached_pages << PA_PAGE_SHIFT, out->explicit_inuse - out->explicit_alloc);
}

PA_EXPORT void pa_read_mem_stats(pa_mem_stats *out)
{
    objects o;
    memset(out, 0, sizeof *out);
    if (!pa_the_heap.initialised)
        return;
    read_objects(&pa_the_heap, &o);
    read_pages(&pa_the_heap, out);
    sum_up(&o, out);
}

PA_EXPORT void pa_read_page_stats(pa_mem_stats *out)
{
    memset(out, 0, sizeof *out);
    if (pa_the_heap.initialised)
        read_pages(&pa_the_heap, out);
}

PA_EXPORT int pa_read_class_stats(pa_class_stats *out, int capacity)
{
    objects o = {0};
    if (pa_the_heap.initialised)
        read_objects(&pa_the_heap, &o);
    int n = capacity < PA_SIZE_CLASSES ? capacity : PA_SIZE_CLASSES;
    for (int c = 0; c < n; c++)
        out[c] = o.classes[c];
    return n < 0 ? 0 : n;
}

/* ---- The collector ---- */

static void read_collector_locked(pa_snapshot *out)
{
    const pa_collector *gc = &pa_the_gc;
    pa_gc_stats_locked(&out->gc);
    memcpy(out->pause_ns, gc->pause_ns, sizeof out->pause_ns);
    memcpy(out->pause_end_unix_ns, gc->pause_end_unix_ns, sizeof out->pause_end_unix_ns);
    memcpy(out->pauses, gc->pauses_by_length, sizeof out->pauses);
    memcpy(out->stoppings, gc->stoppings_by_length, sizeof out->stoppings);
    out->scan_heap_bytes = gc->pacer.heap_scanned;
    out->scan_frame_bytes = gc->last.frame_bytes;
    out->scan_global_bytes = gc->last.global_bytes;
}

/* What the collector's statistics take from the heap and the threads. */
static void read_collector_racy(const objects *o, pa_snapshot *out)
{
    pa_heap *h = &pa_the_heap;
    uint64_t spare_handles = 0;
    for (pa_proc *p = __atomic_load_n(&pa_the_procs.all, __ATOMIC_ACQUIRE); p; p = p->next_all) {
        spare_handles += pa_racy_load(&__atomic_load_n(&p->cache.gc, __ATOMIC_ACQUIRE)->free_handle_count);
        out->slow_path_entries += pa_racy_load(&p->cache.slow.acquisitions);
    }
    out->gc.handles = less(pa_racy_load(&pa_the_roots.handle_count), spare_handles);
    out->gc.weak_handles = pa_racy_load(&h->specials.weaks.inuse_count);
    out->gc.heap_live_bytes = atomic_load_explicit(&h->managed_live_bytes, memory_order_relaxed);
    out->gc.mode = atomic_load(&pa_the_gc.mode);
    out->gc.phase = atomic_load(&pa_the_gc.phase);
    out->cleanups_taken = pa_racy_load(&h->specials.taken_total);
    for (unsigned kind = 0; kind < PA_SPAN_KINDS; kind++)
        for (unsigned c = 0; c < PA_SIZE_CLASSES; c++)
            out->central_lock_acquisitions += pa_racy_load(&h->central[kind][c].lock.acquisitions);
    out->central_lock_acquisitions += pa_racy_load(&h->leavings.lock.acquisitions);
    out->cleanups_queued = pa_racy_load(&h->specials.queued_total);
    out->gc.total_alloc_bytes = o->managed_alloc_bytes;
    out->managed_live_bytes = o->managed_alloc_bytes - o->managed_freed_bytes;
    for (unsigned c = 0; c < PA_SIZE_CLASSES; c++) {
        out->gc.mallocs += o->classes[c].managed_mallocs;
        out->gc.frees += o->classes[c].managed_frees;
    }
}

PA_EXPORT void pa_read_snapshot(pa_snapshot *out)
{
    objects o;
    memset(out, 0, sizeof *out);
    pa_gc_configure();
    if (!pa_the_heap.initialised)
        return;
    read_objects(&pa_the_heap, &o);
    read_collector_racy(&o, out);
    memcpy(out->classes, o.classes, sizeof out->classes);
    pa_lock_acquire(&pa_the_gc.lock);
    read_collector_locked(out);
    read_pages(&pa_the_heap, &out->mem);
    pa_lock_release(&pa_the_gc.lock);
    pa_read_scavenge_stats(&out->scavenge);
    sum_up(&o, &out->mem);
}

/* ---- Locks ---- */

PA_EXPORT int pa_read_lock_stats(pa_lock_stats *out, int capacity)
{
    int n = 0;
    for (unsigned rank = PA_RANK_NONE + 1; rank <= PA_RANK_LEAF && n < capacity; rank++) {
        pa_lockstat s;
        const char *name = pa_lockstat_read(rank, &s);
        if (!name || s.acquisitions == 0)
            continue;
        out[n++] = (pa_lock_stats){
            .name = name,
            .shared = rank != PA_RANK_PROC_SLOW,
            .acquisitions = s.acquisitions,
            .waits = s.waits,
            .wait_ns = s.wait_ns,
            .wait_max_ns = s.wait_max_ns,
            .hold_ns = s.hold_ns,
            .hold_max_ns = s.hold_max_ns,
        };
    }
    return n;
}

/* ---- The collector alone ---- */

PA_EXPORT void pa_read_gc_stats(pa_gc_stats *out)
{
    objects o = {0};
    pa_snapshot s = {0};
    pa_gc_configure();
    if (pa_the_heap.initialised)
        read_managed(&pa_the_heap, &o);
    read_collector_racy(&o, &s);
    pa_lock_acquire(&pa_the_gc.lock);
    read_collector_locked(&s);
    pa_lock_release(&pa_the_gc.lock);
    *out = s.gc;
}
