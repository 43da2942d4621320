/* args.c - arguments of the functions of pyalloc._core, taken apart by hand.
 *
 * alloc() and empty() cost about as much as the argument parser of CPython would on its own, so the
 * functions take METH_FASTCALL | METH_KEYWORDS and read the vector here.  No state, no locks; every
 * function needs the GIL and reports errors as Python exceptions.
 *
 * Integers go through __index__, so NumPy integers are accepted and floats are not, on every Python
 * from 3.9 on (PyLong_AsLongLong alone would still take a float there).
 */
#include "python/core.h"

int pa_args_size(PyObject *arg, const char *name, Py_ssize_t *out)
{
    PyObject *index = NULL;
    if (!PyLong_CheckExact(arg)) {
        index = PyNumber_Index(arg);
        if (index == NULL)
            return -1;
        arg = index;
    }
    int overflow = 0;
    long long value = PyLong_AsLongLongAndOverflow(arg, &overflow);
    Py_XDECREF(index);
    if (value == -1 && PyErr_Occurred())
        return -1;
    if (overflow > 0 || value > PY_SSIZE_T_MAX) {
        PyErr_Format(PyExc_OverflowError, "%s is too large: at most %zd bytes", name, PY_SSIZE_T_MAX);
        return -1;
    }
    if (overflow < 0 || value < 0) {
        PyErr_Format(PyExc_ValueError, "%s must not be negative", name);
        return -1;
    }
    *out = (Py_ssize_t)value;
    return 0;
}

bool pa_args_is(PyObject *keyword, const char *name)
{
    return PyUnicode_CompareWithASCIIString(keyword, name) == 0;
}

int pa_args_unknown(const char *function, PyObject *keyword)
{
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", function, keyword);
    return -1;
}

PyObject *pa_args_first(const char *function, const char *name, PyObject *const *args,
                        Py_ssize_t positional, PyObject *kwnames)
{
    PyObject *found = positional > 0 ? args[0] : NULL;
    if (positional > 1) {
        PyErr_Format(PyExc_TypeError, "%s() takes 1 positional argument but %zd were given", function,
                     positional);
        return NULL;
    }
    for (Py_ssize_t i = 0; kwnames != NULL && i < PyTuple_GET_SIZE(kwnames); i++) {
        if (!pa_args_is(PyTuple_GET_ITEM(kwnames, i), name))
            continue;
        if (found != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%s'", function, name);
            return NULL;
        }
        found = args[positional + i];
    }
    if (found == NULL)
        PyErr_Format(PyExc_TypeError, "%s() missing required argument '%s'", function, name);
    return found;
}
