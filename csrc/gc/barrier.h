/* barrier.h - the write barrier's out-of-line half (Go: runtime/mwbbuf.go). */
#ifndef PA_BARRIER_H
#define PA_BARRIER_H

#include "world/stw.h"

/* Shades what a store replaces and brings, as the mode asks. p is inside and marking. */
void pa_barrier_store(pa_gcproc *gc, void *old_value, void *new_value);
/* Shades one pointer whatever the mode. */
void pa_barrier_shade(pa_gcproc *gc, void *value);
/* Sets the mark of a fresh object: allocated black. */
void pa_barrier_mark_new(uintptr_t obj);

#endif
