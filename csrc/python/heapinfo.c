/* heapinfo.c - the module functions that ask the heap: owns, sizes, checks, release. Statistics: snapshot.c.
 *
 * No state and no locks: each function asks the C API once and builds Python objects afterwards, never
 * the other way round, so that no Python code runs in the middle of a reading.
 */
#include "python/buffer.h"

enum { MESSAGE_BYTES = 512 };

/* An address from an object with __index__: 1 and *address; 0 when there is none, also when the number is
 * negative or wider than an address; -1 with an exception. */
static int read_address(PyObject *arg, unsigned long long *address)
{
    PyObject *index = PyNumber_Index(arg);
    if (index == NULL)
        return -1;
    *address = PyLong_AsUnsignedLongLong(index);
    Py_DECREF(index);
    if (*address != (unsigned long long)-1 || !PyErr_Occurred())
        return 1;
    if (!PyErr_ExceptionMatches(PyExc_OverflowError))
        return -1;
    PyErr_Clear();
    return 0;
}

static PyObject *py_owns(PyObject *module, PyObject *arg)
{
    (void)module;
    if (Py_IS_TYPE(arg, &pa_buffer_type)) {
        const void *address = pa_buffer_address(arg);
        return PyBool_FromLong(address != NULL && pa_owns(address));
    }
    if (PyIndex_Check(arg)) {
        unsigned long long address;
        int found = read_address(arg, &address);
        if (found >= 0)
            return PyBool_FromLong(found && pa_owns((const void *)(uintptr_t)address));
        /* NumPy arrays have __index__ and refuse it: they are buffers. */
        if (!PyErr_ExceptionMatches(PyExc_TypeError) || !PyObject_CheckBuffer(arg))
            return NULL;
        PyErr_Clear();
    }
    if (PyObject_CheckBuffer(arg)) {
        Py_buffer view;
        if (PyObject_GetBuffer(arg, &view, PyBUF_FULL_RO) < 0)
            return NULL;
        bool owned = view.buf != NULL && pa_owns(view.buf);
        PyBuffer_Release(&view);
        return PyBool_FromLong(owned);
    }
    PyErr_Format(PyExc_TypeError, "owns() takes an address or an object with the buffer protocol, not '%s'",
                 Py_TYPE(arg)->tp_name);
    return NULL;
}

static PyObject *py_good_size(PyObject *module, PyObject *arg)
{
    (void)module;
    Py_ssize_t nbytes;
    if (pa_args_size(arg, "nbytes", &nbytes) < 0)
        return NULL;
    return PyLong_FromSize_t(pa_good_size((size_t)nbytes));
}

static PyObject *py_size_classes(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *list = PyList_New(0);
    pa_size_class_info info;
    for (int c = 1; list != NULL && c < pa_size_class_count(); c++) {
        if (!pa_size_class(c, &info))
            continue;
        PyObject *row = Py_BuildValue("(iKKKK)", c, (unsigned long long)info.object_bytes,
                                      (unsigned long long)info.span_bytes, (unsigned long long)info.objects,
                                      (unsigned long long)info.tail_waste_bytes);
        list = pa_list_append_new(list, row);
    }
    return list;
}

static PyObject *py_free_os_memory(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    size_t released;
    Py_BEGIN_ALLOW_THREADS
    released = pa_free_os_memory();
    Py_END_ALLOW_THREADS
    return PyLong_FromSize_t(released);
}

static PyObject *py_heap_check(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    char message[MESSAGE_BYTES] = "";
    if (pa_heap_check(message, sizeof message) == 0)
        Py_RETURN_NONE;
    PyErr_Format(PyExc_RuntimeError, "heap check failed: %s", message);
    return NULL;
}

static PyObject *py_core_version(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyUnicode_FromString(pa_version());
}

PyDoc_STRVAR(owns_doc,
"owns($module, address, /)\n--\n\n"
"True when the address lies in a span of this heap that is in use.\n\n"
"address: an int, a Buffer (False once freed), or any object with the buffer\n"
"protocol.  No address makes it fault.  A free slot of a span in use counts.\n"
"Raises TypeError for other objects.  Any thread.  Go counterpart: runtime.spanOf(p) != nil.");

PyDoc_STRVAR(good_size_doc,
"good_size($module, nbytes, /)\n--\n\n"
"Bytes that a request for nbytes makes usable: the size class, or whole 8 KiB\n"
"pages above 32 KiB.  0 when no request of that size can succeed.\n\n"
"Raises ValueError (negative) and OverflowError.  Any thread.\n"
"Go counterpart: runtime.roundupsize.");

PyDoc_STRVAR(free_os_memory_doc,
"free_os_memory($module, /)\n--\n\n"
"Returns every free page to the operating system now, with metadata that is not needed\n"
"for the rest; the result is bytes released. Where there are managed objects it collects\n"
"first. What other threads cache goes back too, if they are not at work in it.\n\n"
"Flushes the caches of the calling thread; other threads flush theirs at their\n"
"next slow-path call.  Lets the GIL go.  Any thread.\n"
"Go counterpart: runtime/debug.FreeOSMemory.");

PyDoc_STRVAR(heap_check_doc,
"heap_check($module, /)\n--\n\n"
"Walks every structure of the heap; for tests and for hunting corruption.\n\n"
"Raises RuntimeError that names the first broken invariant.  Holds the GIL; exact\n"
"only while no other thread is inside the allocator.  Go counterpart: none.");

PyMethodDef pa_heapinfo_methods[] = {
    {"owns", py_owns, METH_O, owns_doc},
    {"good_size", py_good_size, METH_O, good_size_doc},
    {"free_os_memory", py_free_os_memory, METH_NOARGS, free_os_memory_doc},
    {"heap_check", py_heap_check, METH_NOARGS, heap_check_doc},
    {"size_class_rows", py_size_classes, METH_NOARGS,
     "size_class_rows($module, /)\n--\n\n"
     "The rows behind size_classes(): class, object, span, objects, tail waste."},
    {"core_version", py_core_version, METH_NOARGS,
     "core_version($module, /)\n--\n\nVersion of the libpyalloc.so that is loaded, \"major.minor.patch\"."},
    {NULL, NULL, 0, NULL},
};
