/* gcproc.c - the managed half of a P: making it, emptying it into the work pool and the mcentrals, and its accounts.
 *
 * Owns nothing.  Who makes, empties or accounts is the P's thread, inside, or has stopped it (world/stw.h); the
 * accounts are read by anybody.
 */
#include "heap/managed.h"
#include "heap/object.h"
#include "heap/sampling.h"
#include "world/roots.h"
#include "world/stw.h"

const pa_gcproc pa_gcproc_outside;

pa_gcproc *pa_gcproc_make_locked(pa_proc *p)
{
    pa_gcproc *gc = pa_offheap_alloc(&p->cache.heap->offheap, sizeof *gc, PA_CACHE_LINE_BYTES);
    if (!gc)
        return NULL;
    for (unsigned k = 0; k < PA_MANAGED_KINDS; k++)
        for (unsigned c = 0; c < PA_SIZE_CLASSES; c++)
            gc->alloc[k][c] = PA_EMPTY_SPAN;
    gc->tiny_offset = PA_TINY_BYTES;
    gc->marking = pa_the_procs.marking;
    gc->work.pool = &pa_the_procs.workpool;
    gc->no_fence = pa_the_world.asymmetric && !PA_TSAN;
    atomic_store_explicit(&gc->stop, pa_the_world.stopped, memory_order_relaxed);
    __atomic_store_n(&p->cache.gc, gc, __ATOMIC_RELEASE);
    return gc;
}

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
    p->cache.gc->black_bytes = 0;
    for (unsigned k = 0; k < PA_MANAGED_KINDS; k++)
        for (unsigned c = 1; c < PA_SIZE_CLASSES; c++) {
            pa_span *s = p->cache.gc->alloc[k][c];
            if (s == PA_EMPTY_SPAN)
                continue;
            if (PA_UNLIKELY(p->cache.managed_sampler != NULL))
                pa_sampling_settle(p->cache.managed_sampler, s, true);
            if (p->cache.gc->marking)
                pa_managed_unmark_ahead(s);
            pa_gcproc_account(p, s);
            pa_owner_set(&p->cache.gc->alloc[k][c], PA_EMPTY_SPAN);
            pa_span_close_window(s);
            pa_managed_uncache_span(p->cache.heap, s);
        }
    p->cache.gc->tiny = 0;
    p->cache.gc->tiny_offset = PA_TINY_BYTES;
}

/* ---- What was allocated ----
 *
 * Written by whoever runs for the P, in slow paths; read by anybody.  account_round is a sequence lock: odd
 * while a count moves from a span (its handed_out_count - count_at_refill) to the P, so that a reader counts it once,
 * and while a window is opened, which changes the parts of that count together.
 */

static void begin_accounting(pa_gcproc *gc)
{
    uint32_t round = atomic_load_explicit(&gc->account_round, memory_order_relaxed);
    atomic_store_explicit(&gc->account_round, round + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}

static void end_accounting(pa_gcproc *gc)
{
    uint32_t round = atomic_load_explicit(&gc->account_round, memory_order_relaxed);
    atomic_store_explicit(&gc->account_round, round + 1, memory_order_release);
}

static void count(pa_proc *p, unsigned size_class, uint64_t objects, uint64_t nbytes)
{
    pa_owner_add(&p->cache.gc->mallocs[size_class], objects);
    pa_owner_add(&p->cache.gc->alloc_bytes, nbytes);
    atomic_fetch_add_explicit(&p->cache.heap->managed_live_bytes, nbytes, memory_order_relaxed);
}

void pa_gcproc_account(pa_proc *p, pa_span *s)
{
    uint32_t handed_out = pa_span_handed_out_count(s), n = handed_out - s->count_at_refill;
    begin_accounting(p->cache.gc);
    pa_owner_set(&s->count_at_refill, (uint16_t)handed_out);
    count(p, s->size_class, n, (uint64_t)n * pa_class_object_bytes[s->size_class]);
    end_accounting(p->cache.gc);
}

bool pa_gcproc_open_window(pa_gcproc *gc, pa_span *s, unsigned most)
{
    begin_accounting(gc);
    bool opened = pa_span_open_window(s, most);
    end_accounting(gc);
    if (opened && gc->marking)
        pa_managed_mark_ahead(s);
    return opened;
}

void pa_gcproc_account_large(pa_proc *p, uint64_t nbytes)
{
    begin_accounting(p->cache.gc);
    count(p, 0, 1, nbytes);
    end_accounting(p->cache.gc);
}

typedef struct allocs {
    uint64_t mallocs[PA_SIZE_CLASSES], nbytes;
} allocs;

static void read_accounted(const pa_gcproc *gc, allocs *out)
{
    for (unsigned c = 0; c < PA_SIZE_CLASSES; c++)
        out->mallocs[c] = pa_racy_load(&gc->mallocs[c]);
    out->nbytes = pa_racy_load(&gc->alloc_bytes);
}

static void add_unaccounted(const pa_gcproc *gc, allocs *out)
{
    for (unsigned k = 0; k < PA_MANAGED_KINDS; k++)
        for (unsigned c = 1; c < PA_SIZE_CLASSES; c++) {
            const pa_span *s = __atomic_load_n(&gc->alloc[k][c], __ATOMIC_ACQUIRE);
            if (s == PA_EMPTY_SPAN)
                continue;
            uint32_t n = pa_span_handed_out_count(s) - pa_racy_load(&s->count_at_refill);
            out->mallocs[c] += n;
            out->nbytes += (uint64_t)n * pa_class_object_bytes[c];
        }
}

static uint64_t raise(_Atomic uint64_t *seen, uint64_t value)
{
    uint64_t before = atomic_load_explicit(seen, memory_order_relaxed);
    while (before < value &&
           !atomic_compare_exchange_weak_explicit(seen, &before, value, memory_order_relaxed, memory_order_relaxed))
        continue;
    return before > value ? before : value;
}

void pa_gcproc_read_allocs(pa_gcproc *gc, uint64_t mallocs[PA_SIZE_CLASSES], uint64_t *bytes)
{
    enum { TRIES = 10 }; /* a thread that was interrupted while it accounts will not be back soon */
    allocs found = {{0}, 0};
    bool whole = false;
    for (int i = 0; i < TRIES && !whole; i++) {
        uint32_t round = atomic_load_explicit(&gc->account_round, memory_order_acquire);
        read_accounted(gc, &found);
        add_unaccounted(gc, &found);
        atomic_thread_fence(memory_order_acquire);
        whole = !(round & 1) && atomic_load_explicit(&gc->account_round, memory_order_relaxed) == round;
    }
    if (!whole)
        found = (allocs){{0}, 0};
    for (unsigned c = 0; c < PA_SIZE_CLASSES; c++)
        mallocs[c] += raise(&gc->seen_mallocs[c], found.mallocs[c]);
    *bytes += raise(&gc->seen_bytes, found.nbytes);
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
