/* managed_bytes.c - pyalloc.ManagedBytes: collected memory without pointers, with the buffer protocol.
 *
 * The only managed objects whose memory Python code sees directly: there is nothing in it that the collector
 * reads, so writing it needs no barrier.  A view holds the reference, and so the memory, for as long as it
 * lives.  The length never changes, so nothing has to be refused while views exist.
 *
 * Locks: the GIL.  Go counterpart: make([]byte, n).
 */
#include "python/items.h"

#include <string.h>

#include "python/managed_doc.h"

static PyObject *from_buffer(PyObject *source)
{
    Py_buffer view;
    if (PyObject_GetBuffer(source, &view, PyBUF_FULL_RO) < 0)
        return NULL;
    PyObject *made = pa_items_new(PA_CLASS_BYTES, PA_CLASS_ANY, view.len);
    if (made != NULL && view.len > 0 && PyBuffer_ToContiguous(pa_items_of(made)->items, &view, view.len, 'C') < 0)
        Py_CLEAR(made);
    PyBuffer_Release(&view);
    return made;
}

PyObject *pa_bytes_make(PyObject *module, PyObject *arg)
{
    (void)module;
    if (PyObject_CheckBuffer(arg))
        return from_buffer(arg);
    if (!PyIndex_Check(arg)) {
        PyErr_Format(PyExc_TypeError, "managed_bytes() takes a length or an object with the buffer protocol, not "
                     "'%.200s'", Py_TYPE(arg)->tp_name);
        return NULL;
    }
    Py_ssize_t length;
    if (pa_args_size(arg, "length", &length) < 0)
        return NULL;
    return pa_items_new(PA_CLASS_BYTES, PA_CLASS_ANY, length);
}

static int bytes_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
    pa_items *items = pa_items_of(object);
    void *data = items->items != NULL ? items->items : items;      /* of length 0: any address that is not NULL */
    return PyBuffer_FillInfo(view, object, data, (Py_ssize_t)items->length, 0, flags);
}

static Py_ssize_t bytes_length(PyObject *object)
{
    return (Py_ssize_t)pa_items_of(object)->length;
}

static PyObject *bytes_repr(PyObject *object)
{
    return PyUnicode_FromFormat("<pyalloc.ManagedBytes of %zd bytes at %p>", bytes_length(object),
                                pa_managed_object(object));
}

static PySequenceMethods bytes_as_sequence = {.sq_length = bytes_length};
static PyBufferProcs bytes_as_buffer = {.bf_getbuffer = bytes_getbuffer};

PyTypeObject pa_bytes_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pyalloc.ManagedBytes",
    .tp_doc = bytes_doc,
    .tp_basicsize = sizeof(pa_managed),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_base = &pa_managed_type,
    .tp_repr = bytes_repr,
    .tp_as_sequence = &bytes_as_sequence,
    .tp_as_buffer = &bytes_as_buffer,
};
