/* roots_scan.c - roots as mark work: jobs that markers share, frames on behalf of stopped threads.
 *
 * Owns the root jobs of the running cycle (pa_collector.next_chunk, ranges_taken).  Handles are read while others
 * write them through the barrier; frames only while their P is outside with its stop flag set, or by its own
 * thread; ranges under the roots' lock.  Handles made after the cycle began hold what the barrier shaded.
 */
#include "gc/gc.h"
#include "heap/managed.h"
#include "include/pyalloc.h"

void pa_roots_reset_jobs(void)
{
    atomic_store_explicit(&pa_the_gc.next_chunk, __atomic_load_n(&pa_the_roots.chunks, __ATOMIC_ACQUIRE),
                          memory_order_relaxed);
    atomic_store_explicit(&pa_the_gc.ranges_taken, false, memory_order_release);
}

bool pa_roots_jobs_left(void)
{
    return atomic_load_explicit(&pa_the_gc.next_chunk, memory_order_acquire) ||
           !atomic_load_explicit(&pa_the_gc.ranges_taken, memory_order_acquire);
}

static void scan_chunk(pa_marker *m, pa_handle_chunk *chunk)
{
    for (int i = 0; i < PA_HANDLES_PER_CHUNK; i++) {
        uintptr_t value = (uintptr_t)atomic_load_explicit(&chunk->handles[i].value, memory_order_acquire);
        if (pa_gcwork_may_point(value))
            pa_gcwork_put(m->work, value);
    }
    m->scanned_bytes += sizeof *chunk;
}

static void scan_range(void *marker, const pa_root_range *r, uintptr_t from, uintptr_t to)
{
    pa_mark_range(marker, from, to, r->flags != PA_ROOTS_CONSERVATIVE);
}

bool pa_roots_do_job(pa_marker *m)
{
    pa_collector *gc = &pa_the_gc;
    uint64_t before = m->scanned_bytes;
    pa_handle_chunk *chunk = atomic_load_explicit(&gc->next_chunk, memory_order_acquire);
    while (chunk && !atomic_compare_exchange_weak_explicit(&gc->next_chunk, &chunk, chunk->next,
                                                           memory_order_acq_rel, memory_order_acquire))
        continue;
    if (chunk)
        scan_chunk(m, chunk);
    else if (!atomic_exchange_explicit(&gc->ranges_taken, true, memory_order_acq_rel))
        pa_roots_visit_ranges(0, scan_range, m);
    else
        return false;
    atomic_fetch_add_explicit(&gc->root_scanned_bytes, m->scanned_bytes - before, memory_order_relaxed);
    return true;
}

void pa_roots_scan_frames(pa_proc *p, pa_gcwork *work)
{
    for (pa_frame *f = p->cache.gc->frames; f; f = f->up)
        for (size_t i = 0; i < f->count; i++)
            if (pa_gcwork_may_point((uintptr_t)f->slots[i]))
                pa_gcwork_put(work, (uintptr_t)f->slots[i]);
    p->cache.gc->frames_unscanned = false;
}

static void add_frame_bytes(pa_proc *p, void *total)
{
    for (pa_frame *f = p->cache.gc->frames; f; f = f->up)
        *(uint64_t *)total += f->count * sizeof(void *);
}

uint64_t pa_roots_frame_bytes(void)
{
    uint64_t total = 0;
    pa_world_each_stw(add_frame_bytes, &total);
    return total;
}

uint64_t pa_roots_global_bytes(void)
{
    return pa_racy_load(&pa_the_roots.handle_count) * sizeof(void *) + pa_racy_load(&pa_the_roots.range_bytes);
}

static void scan_frames_into(pa_proc *p, void *marker)
{
    pa_roots_scan_frames(p, ((pa_marker *)marker)->work);
}

void pa_roots_scan_all_stw(pa_marker *m)
{
    pa_world_each_stw(scan_frames_into, m);
    for (pa_handle_chunk *c = pa_the_roots.chunks; c; c = c->next)
        scan_chunk(m, c);
    pa_roots_visit_ranges(0, scan_range, m);
}

static void rescan_span(void *marker, pa_span *s)
{
    if (s->kind != PA_KIND_CONSERVATIVE)
        return;
    pa_marker *m = marker;
    size_t nbytes = pa_span_element_bytes(s);
    for (uint32_t i = 0; i < s->nelems; i++) /* workers mark meanwhile; they scan what they mark */
        if (pa_racy_load(&s->mark_bits[i / 64]) >> i % 64 & 1 && pa_span_is_handed_out(s, i))
            pa_mark_range(m, s->base + i * nbytes, s->base + (i + 1) * nbytes, false);
}

uint64_t pa_roots_rescan_unbarriered_stw(pa_marker *m)
{
    uint64_t before = m->scanned_bytes;
    if (pa_the_roots.unbarriered_bytes)
        pa_roots_visit_ranges(PA_ROOTS_UNBARRIERED, scan_range, m);
    if (atomic_load_explicit(&pa_the_heap.conservative_pages, memory_order_relaxed))
        for (pa_arena *a = pa_the_heap.arenas; a; a = a->next)
            pa_managed_walk(a->base, a->base + PA_ARENA_BYTES, rescan_span, m);
    return m->scanned_bytes - before;
}
