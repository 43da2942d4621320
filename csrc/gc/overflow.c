/* overflow.c - finding the grey objects that nobody could write down.
 *
 * Owns nothing.  When work buffers could not be had, marked objects exist whose pointers nobody followed
 * (world/gcwork.c).  In a stop, with nothing else grey, this goes through all marked objects of the heap and looks
 * through them again, emptying its buffers after each piece, which fits into one.  What is found marked already costs a
 * look.  Buffers may run out again on the way; then more objects are marked than before and one more walk is
 * needed, so there are at most as many walks as objects, and one or two in practice.
 */
#include "gc/gc.h"
#include "heap/managed.h"

/* A buffer's worth of pointers at most. */
#define PIECE_BYTES ((uintptr_t)PA_WORKBUF_ENTRIES / 2 * sizeof(void *))

static void scan_slot_again(pa_marker *m, const pa_span *s, uint32_t idx)
{
    uintptr_t nbytes = pa_span_element_bytes(s), base = s->base + idx * nbytes;
    pa_objref o;
    bool ok = pa_object_resolve(base, &o);
    PA_CHECK(ok);
    for (uintptr_t at = base; at < base + nbytes; at += PIECE_BYTES) {
        pa_mark_scan_again(m, &o, at, base + nbytes - at > PIECE_BYTES ? at + PIECE_BYTES : base + nbytes);
        pa_mark_drain(m, UINT64_MAX / 2);
        if (o.kind == PA_KIND_SCAN && pa_object_layout(&o) >= PA_LAYOUT_FIRST_TYPE)
            return;
    }
}

static void scan_span_again(void *marker, pa_span *s)
{
    pa_marker *m = marker;
    const uint64_t *marks = pa_gcside_bits(pa_gcside_of(s->base), m->plane, s->size_class, s->base);
    if (s->kind == PA_KIND_NOSCAN)
        return;
    for (uint32_t i = 0; i < s->nelems; i++)
        if (pa_racy_load(&marks[i / 64]) >> i % 64 & 1 && pa_span_is_handed_out(s, i))
            scan_slot_again(m, s, i);
}

bool pa_overflow_rescan_stw(pa_marker *m)
{
    if (!pa_workpool_take_overflow(m->work->pool, &m->marked_bytes))
        return false;
    for (pa_arena *a = pa_the_heap.arenas; a; a = a->next)
        pa_managed_walk(a->base, a->base + PA_ARENA_BYTES, scan_span_again, m);
    return true;
}
