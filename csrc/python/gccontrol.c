/* gccontrol.c - the module functions behind collect(), the collector's settings and its statistics.
 *
 * Plain numbers in and out; pyalloc/_gc.py gives them names and reads "512MiB" and the like.  Each function
 * lets the GIL go while the core works, because the core may stop the world or wait for a cycle to end, and
 * threads that it waits for may need the GIL to get to their next poll.
 *
 * No state and no locks.  Go counterpart: runtime.GC and runtime/debug.
 */
#include "python/gccontrol.h"

#include "python/managed_doc.h"

enum { PAUSES_MAX = 1024 };

static PyObject *py_collect(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PA_OUTSIDE();
    Py_BEGIN_ALLOW_THREADS
    pa_gc();
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static int read_int(PyObject *arg, int *out)
{
    long value = PyLong_AsLong(arg);
    if (value == -1 && PyErr_Occurred())
        return -1;
    if (value > INT_MAX || value < INT_MIN) {
        PyErr_SetString(PyExc_OverflowError, "the number does not fit an int");
        return -1;
    }
    *out = (int)value;
    return 0;
}

/* Calls a setter of the core that takes and gives an int, without the GIL. */
static PyObject *set_int(PyObject *arg, int (*set)(int))
{
    int value;
    if (read_int(arg, &value) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    value = set(value);
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(value);
}

static PyObject *py_set_percent(PyObject *module, PyObject *arg)
{
    (void)module;
    return set_int(arg, pa_set_gc_percent);
}

static PyObject *py_set_mode(PyObject *module, PyObject *arg)
{
    (void)module;
    return set_int(arg, pa_set_gc_mode);
}

static PyObject *py_set_trace(PyObject *module, PyObject *arg)
{
    (void)module;
    return set_int(arg, pa_set_gctrace);
}

static PyObject *py_set_madvdontneed(PyObject *module, PyObject *arg)
{
    (void)module;
    return set_int(arg, pa_set_madvdontneed);
}

static PyObject *py_set_limit(PyObject *module, PyObject *arg)
{
    (void)module;
    int64_t value = PyLong_AsLongLong(arg);
    if (value == -1 && PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    value = pa_set_memory_limit(value);
    Py_END_ALLOW_THREADS
    return PyLong_FromLongLong(value);
}

PyObject *pa_gc_stats_row(const pa_gc_stats *s)
{
    return Py_BuildValue("(KKKKKKKKKKKKKKKKKKiiLIId)", s->cycles, s->forced_cycles, s->pause_total_ns, s->pause_count,
                         s->last_gc_unix_ns, s->next_gc_bytes, s->heap_live_bytes, s->heap_marked_bytes,
                         s->total_alloc_bytes, s->mallocs, s->frees, s->assist_ns, s->background_ns, s->idle_ns,
                         s->stopped_ns, s->unbarriered_bytes, s->handles, s->weak_handles, (int)s->mode,
                         (int)s->gc_percent, (long long)s->memory_limit, s->phase, s->processors, s->cpu_fraction);
}

static PyObject *py_stats_row(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    pa_gc_stats s = {0};
    pa_read_gc_stats(&s);
    return pa_gc_stats_row(&s);
}

static PyObject *py_pauses(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    uint64_t lengths[PAUSES_MAX], ends[PAUSES_MAX];
    size_t count = pa_read_gc_pauses(lengths, ends, PAUSES_MAX);
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < count; i++)
        list = pa_list_append_new(list, Py_BuildValue("(KK)", lengths[i], ends[i]));
    return list;
}

PyMethodDef pa_gccontrol_methods[] = {
    {"gc_collect", py_collect, METH_NOARGS, gc_collect_doc},
    {"gc_set_percent", py_set_percent, METH_O, gc_set_percent_doc},
    {"set_madvdontneed", py_set_madvdontneed, METH_O,
     "set_madvdontneed($module, on, /)\n--\n\nSee pyalloc.set_madvdontneed(); -1 only asks."},
    {"gc_set_memory_limit", py_set_limit, METH_O, gc_set_memory_limit_doc},
    {"gc_set_mode", py_set_mode, METH_O, gc_set_mode_doc},
    {"gc_set_trace", py_set_trace, METH_O, gc_set_trace_doc},
    {"gc_stats_row", py_stats_row, METH_NOARGS, gc_stats_row_doc},
    {"gc_pauses", py_pauses, METH_NOARGS, gc_pauses_doc},
    {NULL, NULL, 0, NULL},
};
