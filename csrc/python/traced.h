/* traced.h - Buffers as tracemalloc sees them: traces in a domain of their own, with the length that was asked for.
 *
 * tracemalloc follows PyMem_* by itself; memory from elsewhere it has to be told of (PyTraceMalloc_Track).  While it is
 * off, create costs one call that returns after a load and a branch, and drop a test of the Buffer's own flag.
 * Inline for the same reason as block.h.  Everything but pa_traced_remove needs the GIL.
 */
#ifndef PA_PYTHON_TRACED_H
#define PA_PYTHON_TRACED_H

#include "python/core.h"

/* pyalloc.TRACEMALLOC_DOMAIN: "pa" in ASCII. */
enum { PA_TRACED_DOMAIN = 0x7061, PA_TRACED_OFF = -2 };

/* Is tracemalloc tracing?  There is no question to ask of CPython, but both calls answer it, and this one has the
 * shorter way out: 6 or 12 instructions, 16 for PyTraceMalloc_Track.  No block has the address 0. */
static inline bool pa_traced_is_on(void)
{
    return PyTraceMalloc_Untrack(PA_TRACED_DOMAIN, 0) != PA_TRACED_OFF;
}

/* Traces the block, or again with another length; true when it has a trace now. */
static inline bool pa_traced_add(const void *data, Py_ssize_t nbytes)
{
    return PyTraceMalloc_Track(PA_TRACED_DOMAIN, (uintptr_t)data, (size_t)nbytes) == 0;
}

/* Any thread, GIL or not, also after Python has ended: then it does nothing. */
static inline void pa_traced_remove(const void *data)
{
    PyTraceMalloc_Untrack(PA_TRACED_DOMAIN, (uintptr_t)data);
}

#endif
