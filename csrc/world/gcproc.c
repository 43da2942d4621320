/* gcproc.c - emptying the managed half of a P: into the work pool, into the mcentrals.
 *
 * Owns nothing.  The caller is the P's thread, inside, or has stopped it (world/stw.h).
 */
#include "heap/managed.h"
#include "heap/object.h"
#include "world/roots.h"
#include "world/stw.h"

void pa_gcproc_flush_barrier(pa_gcproc *gc)
{
    unsigned plane = pa_mark_plane(atomic_load_explicit(&pa_the_heap.sweepgen, memory_order_relaxed));
    for (uint32_t i = 0; i < gc->barrier_count; i++) {
        pa_objref o;
        if (pa_object_resolve(gc->barrier[i], &o) && !pa_object_is_set(&o, plane))
            pa_gcwork_put(&gc->work, gc->barrier[i]);
    }
    gc->barrier_count = 0;
}

bool pa_gcproc_flush_work(pa_proc *p)
{
    pa_gcproc_flush_barrier(p->cache.gc);
    return pa_gcwork_flush(&p->cache.gc->work);
}

void pa_gcproc_flush_spans(pa_proc *p)
{
    for (unsigned k = 0; k < PA_MANAGED_KINDS; k++)
        for (unsigned c = 1; c < PA_SIZE_CLASSES; c++) {
            pa_span *s = p->cache.gc->alloc[k][c];
            if (s == PA_EMPTY_SPAN)
                continue;
            p->cache.gc->alloc[k][c] = PA_EMPTY_SPAN;
            if (p->cache.gc->marking)
                pa_managed_unmark_ahead(s);
            pa_gcproc_account(p, s);
            pa_managed_uncache_span(p->cache.heap, s);
        }
    p->cache.gc->tiny = 0;
    p->cache.gc->tiny_offset = PA_TINY_BYTES;
}

void pa_gcproc_account(pa_proc *p, pa_span *s)
{
    uint32_t n = s->alloc_count - s->count_at_refill;
    uint64_t nbytes = (uint64_t)n * pa_class_object_bytes[s->size_class];
    s->count_at_refill = (uint16_t)s->alloc_count;
    pa_owner_add(&p->cache.gc->mallocs, n);
    pa_owner_add(&p->cache.gc->alloc_bytes, nbytes);
    atomic_fetch_add_explicit(&p->cache.heap->managed_live_bytes, nbytes, memory_order_relaxed);
}

static void give_all_back(pa_proc *p)
{
    p->cache.gc->frames = NULL;
    p->cache.gc->frames_unscanned = false;
    p->cache.gc->depth = 0;
    pa_gcproc_flush_work(p);
    pa_gcproc_flush_spans(p);
    pa_roots_return_handles(p);
}

void pa_gcproc_detach(pa_proc *p)
{
    if (!pa_gcproc_is_real(p->cache.gc))
        return;
    pa_world_enter(p);
    give_all_back(p);
    pa_world_leave(p);
}

void pa_gcproc_detach_vanished(pa_proc *p)
{
    if (pa_gcproc_is_real(p->cache.gc))
        give_all_back(p);
}
