/* weak.c - pyalloc.weakref: weak references to managed objects, and is_alive().
 *
 * They follow the object, not the Python reference to it (which the standard module weakref would): the object
 * may be reachable from other managed objects only.  The collector clears them when it finds the object
 * unreachable, before any cleanup of it is queued.
 *
 * Calling one makes the new reference's handle before leaving, so the object cannot go in between.
 *
 * Locks: the GIL; pa_weak_* bring their own.  Go counterpart: the package weak.
 */
#include "python/weak.h"

#include <errno.h>

#include "python/managed_doc.h"

typedef struct pa_weakref {
    PyObject_HEAD
    pa_weak *weak;          /* never NULL */
} pa_weakref;

static PyObject *weakref_make(PyTypeObject *type, PyObject *reference)
{
    if (!pa_managed_check(reference)) {
        PyErr_Format(PyExc_TypeError, "weakref() takes a managed object, not '%.200s'", Py_TYPE(reference)->tp_name);
        return NULL;
    }
    pa_weakref *self = PyObject_New(pa_weakref, type);
    if (self == NULL)
        return NULL;
    self->weak = NULL;
    bool entered = pa_inside_enter();
    if (entered) {
        self->weak = pa_weak_new(pa_managed_object(reference));
        pa_inside_leave();
        if (self->weak == NULL)
            PyErr_NoMemory();
    }
    if (self->weak == NULL)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static PyObject *weakref_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "weakref() takes no keyword arguments");
        return NULL;
    }
    PyObject *reference;
    if (!PyArg_UnpackTuple(args, "weakref", 1, 1, &reference))
        return NULL;
    return weakref_make(type, reference);
}

static void weakref_dealloc(PyObject *object)
{
    pa_weakref *self = (pa_weakref *)object;
    if (self->weak != NULL)
        pa_weak_free(self->weak);
    PyObject_Free(self);
}

PyObject *pa_weakref_target(pa_weak *weak)
{
    pa_managed *blank = pa_managed_blank();
    if (blank == NULL)
        return NULL;
    if (!pa_inside_enter()) {
        pa_managed_drop_blank(blank);
        return NULL;
    }
    void *target = pa_weak_get(weak);
    pa_handle *handle = target != NULL ? pa_handle_new(target) : NULL;
    pa_inside_leave();
    if (handle != NULL)
        return pa_managed_finish(blank, target, handle, false);
    pa_managed_drop_blank(blank);
    if (target != NULL)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *weakref_call(PyObject *object, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_GET_SIZE(args) != 0 || (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0)) {
        PyErr_SetString(PyExc_TypeError, "a weakref takes no arguments");
        return NULL;
    }
    return pa_weakref_target(((pa_weakref *)object)->weak);
}

static PyObject *weakref_repr(PyObject *object)
{
    PyObject *target = pa_weakref_target(((pa_weakref *)object)->weak);
    if (target == NULL)
        return NULL;
    PyObject *text = target == Py_None
        ? PyUnicode_FromFormat("<pyalloc.weakref at %p; dead>", object)
        : PyUnicode_FromFormat("<pyalloc.weakref at %p; to '%s' at %p>", object, Py_TYPE(target)->tp_name,
                               pa_managed_object(target));
    Py_DECREF(target);
    return text;
}

static PyObject *weakref_reduce(PyObject *object, PyObject *unused)
{
    (void)object;
    (void)unused;
    PyErr_SetString(PyExc_TypeError, "cannot pickle or copy a weakref: make a new one, weakref(old())");
    return NULL;
}

static PyObject *py_is_alive(PyObject *module, PyObject *object)
{
    (void)module;
    if (!Py_IS_TYPE(object, &pa_weakref_type)) {
        PyErr_Format(PyExc_TypeError, "is_alive() takes a pyalloc.weakref, not '%.200s'", Py_TYPE(object)->tp_name);
        return NULL;
    }
    if (!pa_inside_enter())
        return NULL;
    bool alive = pa_weak_get(((pa_weakref *)object)->weak) != NULL;
    pa_inside_leave();
    return PyBool_FromLong(alive);
}

static PyMethodDef weakref_methods[] = {
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, weakref_class_getitem_doc},
    {"__reduce__", weakref_reduce, METH_NOARGS, managed_reduce_doc},
    {"__reduce_ex__", weakref_reduce, METH_O, managed_reduce_ex_doc},
    {NULL, NULL, 0, NULL},
};

PyTypeObject pa_weakref_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pyalloc.weakref",
    .tp_doc = weakref_doc,
    .tp_basicsize = sizeof(pa_weakref),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = weakref_new,
    .tp_dealloc = weakref_dealloc,
    .tp_call = weakref_call,
    .tp_repr = weakref_repr,
    .tp_methods = weakref_methods,
};

PyMethodDef pa_weak_methods[] = {
    {"is_alive", py_is_alive, METH_O, is_alive_doc},
    {NULL, NULL, 0, NULL},
};
