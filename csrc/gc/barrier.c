/* barrier.c - shading pointers while marking.
 *
 * Owns each P's barrier buffer (its thread only, or who stopped it).  A shaded pointer goes into the buffer; a full
 * buffer is looked through at once (world/gcproc.c): what is marked already is dropped, the rest becomes mark work.
 *
 * Hybrid (Clements and Hudson, Go proposal 17503): the old value is shaded so that nothing reachable when marking
 * began can be hidden by being moved into a scanned frame (Yuasa), the new one so that nothing only a
 * not-yet-scanned frame holds can be hidden in a black object (Dijkstra).  Both always, since objects have no
 * frame to ask.  Insertion: the new value only.
 */
#include "gc/barrier.h"

#include "gc/mark.h"

void pa_barrier_shade(pa_gcproc *gc, void *value)
{
    if (!value)
        return;
    if (PA_UNLIKELY(gc->barrier_count == PA_BARRIER_ENTRIES))
        pa_gcproc_flush_barrier(gc);
    gc->barrier[gc->barrier_count++] = (uintptr_t)value;
}

void pa_barrier_store(pa_gcproc *gc, void *old_value, void *new_value)
{
    if (gc->marking == PA_MARKING_HYBRID)
        pa_barrier_shade(gc, old_value);
    pa_barrier_shade(gc, new_value);
}

void pa_barrier_mark_new(uintptr_t obj)
{
    unsigned plane = pa_mark_plane(atomic_load_explicit(&pa_the_heap.sweepgen, memory_order_relaxed));
    pa_objref o;
    bool ok = pa_object_resolve(obj, &o);
    PA_CHECK(ok);
    pa_mark_set(pa_object_bit_word(&o, plane), pa_object_bit(&o));
}
