/* weak.h - pyalloc.weakref: an object that does not keep what it refers to. */
#ifndef PA_PYTHON_WEAK_H
#define PA_PYTHON_WEAK_H

#include "python/managed.h"

extern PyTypeObject pa_weakref_type;

/* Module function is_alive(). */
extern PyMethodDef pa_weak_methods[];

/* A new reference to the object behind it, or None; NULL with MemoryError.  May let the GIL go. */
PyObject *pa_weakref_target(pa_weak *weak);

#endif
