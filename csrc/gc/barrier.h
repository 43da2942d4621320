/* barrier.h - the write barrier (Go: runtime/mwbbuf.go). */
#ifndef PA_BARRIER_H
#define PA_BARRIER_H

#include "world/stw.h"

/* Shades one pointer whatever the mode. gc's thread is inside and marking. */
PA_INLINE void pa_barrier_shade(pa_gcproc *gc, const void *value)
{
    if (!value || (uintptr_t)value - gc->black_base < gc->black_bytes)
        return;
    if (PA_UNLIKELY(gc->barrier_count == PA_BARRIER_ENTRIES))
        pa_gcproc_flush_barrier(gc);
    gc->barrier[gc->barrier_count++] = (uintptr_t)value;
}

/* Shades what a store replaces and brings, as the mode asks. */
PA_INLINE void pa_barrier_store(pa_gcproc *gc, const void *old_value, const void *new_value)
{
    if (gc->marking == PA_MARKING_HYBRID)
        pa_barrier_shade(gc, old_value);
    pa_barrier_shade(gc, new_value);
}

/* Sets the mark of a fresh object: allocated black. */
void pa_barrier_mark_new(uintptr_t obj);

#endif
