/* checkmark.c - marking again from scratch, in the final stop, into a plane of its own (Go: debug.gccheckmark).
 *
 * Owns plane 2 of the side tables, which is clear outside this file.  An object that the second marking reaches
 * and the cycle did not mark would be freed though it is in use: the process ends with one line.
 */
#include "gc/gc.h"
#include "heap/managed.h"

static void compare_span(void *context, pa_span *s)
{
    (void)context;
    pa_gcside *side = pa_gcside_of(s->base);
    uint64_t *again = pa_gcside_bits(side, PA_PLANE_CHECK, s->size_class, s->base);
    for (size_t i = 0; i < pa_div_ceil(s->nelems, 64); i++) {
        uint64_t lost = again[i] & ~s->mark_bits[i];
        if (lost)
            pa_abort_pointer("checkmark: the object at",
                             (void *)(s->base + (i * 64 + pa_ctz64(lost)) * pa_span_element_bytes(s)),
                             "is reachable, but was not marked");
        again[i] = 0;
    }
}

void pa_checkmark_run_stw(void)
{
    pa_gcwork work = {.pool = &pa_the_procs.workpool};
    pa_marker m = {.work = &work, .plane = PA_PLANE_CHECK};
    work.pool->in_checkmark = true;
    pa_roots_scan_all_stw(&m);
    do
        pa_mark_drain(&m, UINT64_MAX / 2);
    while (pa_overflow_rescan_stw(&m));
    pa_gcwork_flush(&work);
    work.pool->in_checkmark = false;
    for (pa_arena *a = pa_the_heap.arenas; a; a = a->next)
        pa_managed_walk(a->base, a->base + PA_ARENA_BYTES, compare_span, NULL);
}
