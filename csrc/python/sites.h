/* sites.h - where Buffers and managed objects were made, and what holds them: off until somebody asks. */
#ifndef PA_PYTHON_SITES_H
#define PA_PYTHON_SITES_H

#include "python/core.h"

/* Written with the GIL; a load and a branch where something is made. */
extern PA_HIDDEN bool pa_sites_on;

/* A Buffer, or a reference to a managed object, was made; made: and the managed object with it. Outside, the object
 * whole. May run Python code (the collector of CPython); leaves no exception, and counts notes that it cannot make. */
PA_COLD void pa_sites_note_slow(PyObject *object, bool made);

static inline void pa_sites_note(PyObject *object, bool made)
{
    if (PA_UNLIKELY(pa_sites_on))
        pa_sites_note_slow(object, made);
}

extern PyMethodDef pa_sites_methods[];

#endif
