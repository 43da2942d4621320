/* cleanup.c - what happens after an object became unreachable: ids from the collector to Python.
 *
 * The collector knows numbers only; the functions and their arguments are in a table of pyalloc/_cleanup.py.
 * When it has queued ids it calls notify, from any thread and without the GIL, which asks CPython to call
 * deliver in the main thread (Py_AddPendingCall).  CPython up to 3.11 does not interrupt a main thread that
 * keeps the GIL for a call that another thread added, so the next operation on managed objects, which has the
 * GIL, adds it again (pa_cleanup_kick).  CPython's queue of pending calls is short; when it is full the next
 * operation tries once more.  collect() delivers as well.
 *
 *              notify                       kick
 *   QUIET ---------------> NOTIFIED ---------------> KICKED
 *     ^                        |                        |
 *     +-------- deliver -------+-------- deliver -------+
 *
 * At exit Python code delivers once more and then calls cleanup_listen(None): from then on nobody is notified,
 * and a call that is still pending finds no receiver.
 *
 * The receiver, the numbers and the queue are one a process, and the table is one an interpreter, so cleanups are
 * the main interpreter's alone: in others add_cleanup() raises RuntimeError, and nothing there listens, takes ids, or
 * delivers.  They share the GIL with the main one (core.c), whose next operation makes up for theirs.
 *
 * Locks: the GIL for receiver; pa_cleanup_news is atomic.  Go counterpart: runtime.AddCleanup, whose goroutine is
 * the main thread here.
 */
#include "python/gccontrol.h"

#include "python/managed_doc.h"

enum { TAKE_AT_ONCE = 64 };

/* Called without arguments to deliver; NULL: nobody. */
static PyObject *receiver;

_Atomic int pa_cleanup_news;

static bool in_main_interpreter(void)
{
    return PyInterpreterState_Get() == PyInterpreterState_Main();
}

static int deliver(void *unused)
{
    (void)unused;
    if (!in_main_interpreter()) { /* the main thread, in another one: from CPython 3.12 on it makes all calls */
        atomic_store(&pa_cleanup_news, PA_CLEANUP_NOTIFIED);
        return 0;
    }
    atomic_store(&pa_cleanup_news, PA_CLEANUP_QUIET);
    if (receiver == NULL)
        return 0;
    PyObject *held = receiver;
    Py_INCREF(held);
    PyObject *result = PyObject_CallNoArgs(held);
    if (result == NULL)
        PyErr_WriteUnraisable(held);
    Py_XDECREF(result);
    Py_DECREF(held);
    return 0;
}

static void notify(void *unused)
{
    (void)unused;
    int quiet = PA_CLEANUP_QUIET;
    if (atomic_compare_exchange_strong(&pa_cleanup_news, &quiet, PA_CLEANUP_NOTIFIED))
        Py_AddPendingCall(deliver, NULL);       /* when it fails, kick makes up for it */
}

void pa_cleanup_kick(void)
{
    PA_OUTSIDE();
    int notified = PA_CLEANUP_NOTIFIED;
    if (in_main_interpreter() && /* CPython keeps the calls that are pending by interpreter */
        atomic_compare_exchange_strong(&pa_cleanup_news, &notified, PA_CLEANUP_KICKED) &&
        Py_AddPendingCall(deliver, NULL) != 0)
        atomic_store(&pa_cleanup_news, PA_CLEANUP_NOTIFIED);
}

static PyObject *py_cleanup_listen(PyObject *module, PyObject *callable)
{
    (void)module;
    if (!in_main_interpreter())
        Py_RETURN_NONE;
    PyObject *old = receiver;
    receiver = NULL;
    if (callable != Py_None) {
        Py_INCREF(callable);
        receiver = callable;
    }
    Py_XDECREF(old);
    bool listens = callable != Py_None;
    Py_BEGIN_ALLOW_THREADS
    pa_cleanup_on_queued(listens ? notify : NULL, NULL);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *py_cleanup_add(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 2 || !pa_managed_check(args[0])) {
        PyErr_Format(PyExc_TypeError, "add_cleanup() takes a managed object, not '%.200s'",
                     count > 0 ? Py_TYPE(args[0])->tp_name : "nothing");
        return NULL;
    }
    unsigned long long id = PyLong_AsUnsignedLongLong(args[1]);
    if (id == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    if (!in_main_interpreter()) {
        PyErr_SetString(PyExc_RuntimeError, "add_cleanup() works in the main interpreter only");
        return NULL;
    }
    if (!pa_inside_enter())
        return NULL;
    int error = pa_cleanup_add(pa_managed_object(args[0]), id);
    pa_inside_leave();
    if (error != 0)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *py_cleanup_take(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    uint64_t ids[TAKE_AT_ONCE];
    size_t count = in_main_interpreter() ? pa_cleanup_take(ids, TAKE_AT_ONCE) : 0;
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *id = PyLong_FromUnsignedLongLong(ids[i]);
        if (id == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, id);
    }
    return list;
}

/* An exception of a cleanup has nobody to go to: sys.unraisablehook gets it, as for __del__. */
static PyObject *py_call_cleanup(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 2 || !PyTuple_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "call_cleanup() takes a callable and a tuple");
        return NULL;
    }
    PyObject *result = PyObject_Call(args[0], args[1], NULL);
    if (result == NULL)
        PyErr_WriteUnraisable(args[0]);
    Py_XDECREF(result);
    Py_RETURN_NONE;
}

PyMethodDef pa_cleanup_methods[] = {
    {"cleanup_listen", py_cleanup_listen, METH_O, cleanup_listen_doc},
    {"cleanup_add", (PyCFunction)(void (*)(void))py_cleanup_add, METH_FASTCALL, cleanup_add_doc},
    {"call_cleanup", (PyCFunction)(void (*)(void))py_call_cleanup, METH_FASTCALL, call_cleanup_doc},
    {"cleanup_take", py_cleanup_take, METH_NOARGS, cleanup_take_doc},
    {NULL, NULL, 0, NULL},
};
