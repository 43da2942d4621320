/* barrier.c - shading pointers while marking.
 *
 * Owns each P's barrier buffer (its thread only, or who stopped it).  A shaded pointer goes into the buffer; a full
 * buffer is looked through at once (world/gcproc.c): what is marked already is dropped, the rest becomes mark work.
 * Most pointers that a program stores while it builds something are to what it allocated just now, black: those into
 * the span that it took last of those that were empty when taken, while marking, do not get that far (black_base).
 *
 * Hybrid (Clements and Hudson, Go proposal 17503): the old value is shaded so that nothing reachable when marking
 * began can be hidden by being moved into a scanned frame (Yuasa), the new one so that nothing only a
 * not-yet-scanned frame holds can be hidden in a black object (Dijkstra).  Both always, since objects have no
 * frame to ask.  Insertion: the new value only.
 */
#include "gc/barrier.h"

#include "gc/mark.h"

void pa_barrier_mark_new(uintptr_t obj)
{
    unsigned plane = pa_mark_plane(atomic_load_explicit(&pa_the_heap.sweepgen, memory_order_relaxed));
    pa_objref o;
    bool ok = pa_object_resolve(obj, &o);
    PA_CHECK(ok);
    pa_mark_set(pa_object_bit_word(&o, plane), pa_object_bit(&o));
}
