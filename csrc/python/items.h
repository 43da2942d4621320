/* items.h - managed arrays and bytes: an object of 24 bytes with class id and length, and its items apart. */
#ifndef PA_PYTHON_ITEMS_H
#define PA_PYTHON_ITEMS_H

#include "python/managed.h"

/* From here on making one lets the GIL go: zeroing it may take longer than a thread should wait. */
#define PA_ITEMS_GIL_FREE_BYTES PA_MIB

extern PyTypeObject pa_refarray_type;
extern PyTypeObject pa_bytes_type;

/* Module functions ref_array() and managed_bytes(). */
extern PyMethodDef pa_items_methods[];

/* A new reference to a zeroed array of length pointers (PA_CLASS_REF_ARRAY) or bytes (PA_CLASS_BYTES).  May let
 * the GIL go. */
PyObject *pa_items_new(uint32_t class_id, uint32_t element_id, Py_ssize_t length);

static inline pa_items *pa_items_of(PyObject *reference)
{
    return pa_managed_object(reference);
}

PyObject *pa_refarray_make(PyObject *module, PyObject *const *args, Py_ssize_t positional, PyObject *kwnames);
PyObject *pa_bytes_make(PyObject *module, PyObject *arg);

#endif
