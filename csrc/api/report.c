/* report.c - statistics as snapshots: MemStats and the table of classes.
 *
 * Owns nothing.  Page-level figures are copied under mheap's lock; object counts come from a walk over the
 * spans that stops nobody (heap/walk.h).  heap_idle is what is not in use, so that the identities of
 * docs/statistics.md hold in every snapshot by construction.
 */
#include "heap/mcentral.h"
#include "heap/walk.h"
#include "include/pyalloc.h"
#include "sys/vm.h"
#include "world/proc.h"

typedef struct totals {
    uint64_t objects, alloc_bytes, manual_pages, cached_pages;
    uint64_t managed_objects, managed_bytes;
} totals;

static uint64_t element_bytes(const pa_span_view *v)
{
    return v->size_class ? pa_class_object_bytes[v->size_class] : v->npages << PA_PAGE_SHIFT;
}

static bool add_span(void *context, const pa_span_view *v)
{
    totals *t = context;
    if (v->state == PA_SPAN_CACHED) {
        t->cached_pages += v->npages;
        return true;
    }
    if (v->state == PA_SPAN_MANAGED) {
        t->managed_objects += v->live;
        t->managed_bytes += v->live * element_bytes(v);
        return true;
    }
    t->manual_pages += v->npages;
    t->objects += v->live;
    t->alloc_bytes += v->live * element_bytes(v);
    return true;
}

/* Blocks that are free but not yet back in their spans, by class. */
static void count_pending(uint64_t pending[PA_SIZE_CLASSES])
{
    for (pa_proc *p = __atomic_load_n(&pa_the_procs.all, __ATOMIC_ACQUIRE); p; p = p->next_all)
        pa_mcache_count_pending(&p->cache, pending);
    pa_mcentral_count_pending(&pa_the_heap, pending);
}

static uint64_t less(uint64_t x, uint64_t y)
{
    return x > y ? x - y : 0;
}

static uint64_t at_most(uint64_t x, uint64_t limit)
{
    return x < limit ? x : limit;
}

PA_EXPORT void pa_read_mem_stats(pa_mem_stats *out)
{
    pa_heap *h = &pa_the_heap;
    *out = (pa_mem_stats){0};
    if (!h->initialised)
        return;
    totals t = {0};
    uint64_t pending[PA_SIZE_CLASSES] = {0};
    pa_heap_walk(h, add_span, &t);
    count_pending(pending);
    for (unsigned c = 1; c < PA_SIZE_CLASSES; c++) {
        t.objects = less(t.objects, pending[c]);
        t.alloc_bytes = less(t.alloc_bytes, pending[c] * pa_class_object_bytes[c]);
    }

    pa_lock_acquire(&h->lock);
    uint64_t inuse = atomic_load_explicit(&h->inuse_pages, memory_order_relaxed) << PA_PAGE_SHIFT;
    out->arenas = h->arena_count;
    out->heap_sys = h->arena_count << PA_ARENA_SHIFT;
    out->heap_inuse = inuse;
    out->heap_idle = out->heap_sys - inuse;
    out->heap_released = at_most(h->pages.scavenged_pages << PA_PAGE_SHIFT, out->heap_idle);
    out->heap_released_total = h->released_bytes_total;
    out->mspan_inuse = h->span_headers.inuse_count * sizeof(pa_span);
    out->mspan_sys = h->span_headers.total_count * sizeof(pa_span);
    out->gc_sys = h->pages.metadata_bytes + h->side_bytes + h->arena_count * PA_ARENA_PAGES * sizeof(pa_span *);
    out->mheap_lock_acquisitions = h->lock.acquisitions;
    pa_lock_release(&h->lock);

    out->spans_allocated = atomic_load_explicit(&h->spans_allocated, memory_order_relaxed);
    out->spans_freed = atomic_load_explicit(&h->spans_freed, memory_order_relaxed);
    out->heap_mmaps = pa_vm_heap_mmaps();
    out->threads = pa_racy_load(&pa_the_procs.attached_count);
    out->mcache_inuse = out->threads * sizeof(pa_proc);
    out->mcache_sys = pa_racy_load(&pa_the_procs.count) * sizeof(pa_proc);
    uint64_t offheap = pa_racy_load(&h->offheap.sys_bytes), named = out->mspan_sys + out->mcache_sys;
    out->other_sys = offheap > named ? offheap - named : 0;
    out->sys = out->heap_sys + out->mspan_sys + out->mcache_sys + out->gc_sys + out->other_sys;

    out->explicit_objects = t.objects;
    out->explicit_alloc = at_most(t.alloc_bytes, inuse);
    out->heap_objects = t.objects + t.managed_objects;
    out->heap_alloc = at_most(t.alloc_bytes + t.managed_bytes, inuse);
    out->explicit_inuse = at_most((t.manual_pages + t.cached_pages) << PA_PAGE_SHIFT, inuse);
    out->explicit_cached = at_most(t.cached_pages << PA_PAGE_SHIFT, out->explicit_inuse);
}

static bool add_to_class(void *context, const pa_span_view *v)
{
    pa_class_stats *all = context;
    if (v->state != PA_SPAN_MANUAL || v->size_class >= PA_SIZE_CLASSES)
        return true;
    pa_class_stats *one = &all[v->size_class];
    one->spans++;
    one->span_bytes += v->npages << PA_PAGE_SHIFT;
    one->objects += v->live;
    return true;
}

PA_EXPORT int pa_read_class_stats(pa_class_stats *out, int capacity)
{
    pa_class_stats all[PA_SIZE_CLASSES] = {{0}};
    if (pa_the_heap.initialised)
        pa_heap_walk(&pa_the_heap, add_to_class, all);
    uint64_t pending[PA_SIZE_CLASSES] = {0};
    if (pa_the_heap.initialised)
        count_pending(pending);
    int n = capacity < PA_SIZE_CLASSES ? capacity : PA_SIZE_CLASSES;
    for (int c = 0; c < n; c++) {
        all[c].objects = less(all[c].objects, pending[c]);
        all[c].object_bytes = c ? pa_class_object_bytes[c] : 0;
        out[c] = all[c];
    }
    return n < 0 ? 0 : n;
}
