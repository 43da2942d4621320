/* core.h - what the files of pyalloc._core share.
 *
 * Everything here runs with the GIL held unless a comment says otherwise.
 */
#ifndef PA_PYTHON_CORE_H
#define PA_PYTHON_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "base/config.h"
#include "include/pyalloc.h"

/* pyalloc.OutOfMemoryError, a MemoryError; made by the module's initialisation. */
extern PyObject *pa_out_of_memory_error;

/* Non-negative integer argument that fits Py_ssize_t.  name is what the message calls it.  Returns
 * -1 with TypeError, ValueError (negative) or OverflowError set. */
int pa_args_size(PyObject *arg, const char *name, Py_ssize_t *out);
/* The argument count of a vectorcall with exactly one positional-or-keyword parameter: returns it,
 * borrowed, or NULL with TypeError.  Keywords after it are left to the caller. */
PyObject *pa_args_first(const char *function, const char *name, PyObject *const *args,
                        Py_ssize_t positional, PyObject *kwnames);
/* TypeError for a keyword that function does not have; always -1. */
int pa_args_unknown(const char *function, PyObject *keyword);
/* True when the keyword (an exact str) spells name. */
bool pa_args_is(PyObject *keyword, const char *name);

/* Appends item, a new reference or NULL, to list; NULL when either fails, list dropped. */
static inline PyObject *pa_list_append_new(PyObject *list, PyObject *item)
{
    int rc = item == NULL ? -1 : PyList_Append(list, item);
    Py_XDECREF(item);
    if (rc < 0)
        Py_CLEAR(list);
    return list;
}

/* heapinfo.c: the module functions that report on the heap. */
extern PyMethodDef pa_heapinfo_methods[];

#endif
