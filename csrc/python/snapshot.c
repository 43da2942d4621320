/* snapshot.c - the module functions behind read_mem_stats(), class_stats(), metrics() and heap_map().
 *
 * No locks: each function asks the core once and builds Python objects afterwards.  The GIL is held: nobody whom
 * the core waits for needs it, and letting it go would cost more than the reading - unless there are so many spans
 * to walk over that other threads would notice.
 * Structures that are all uint64_t go out as tuples in declaration order; pyalloc/_stats.py gives the fields
 * their names, and tests/api/test_stats.py compares those with the header.  A snapshot is some 10 KiB: on the
 * stack.
 */
#include "python/snapshot.h"

#include "python/gccontrol.h"

enum { ARENA_PAGES = 8192 };

_Static_assert(sizeof(pa_mem_stats) % sizeof(uint64_t) == 0, "pa_mem_stats is all uint64_t");
_Static_assert(sizeof(pa_class_stats) % sizeof(uint64_t) == 0, "pa_class_stats is all uint64_t");

/* Some 100,000 spans, a millisecond. */
static const uint64_t many_span_bytes = (uint64_t)16 << 20;
static uint64_t last_mspan_inuse; /* as of the last reading; under the GIL */

static PyThreadState *let_go_for_a_walk(void)
{
    return last_mspan_inuse > many_span_bytes ? PyEval_SaveThread() : NULL;
}

static void take_again(PyThreadState *state)
{
    if (state != NULL)
        PyEval_RestoreThread(state);
}

static void read_snapshot(pa_snapshot *s)
{
    PyThreadState *state = let_go_for_a_walk();
    pa_read_snapshot(s);
    take_again(state);
    last_mspan_inuse = s->mem.mspan_inuse;
}

static PyObject *tuple_of(const uint64_t *values, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *value = PyLong_FromUnsignedLongLong(values[i]);
        if (value == NULL)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, i, value);
    }
    return tuple;
}

static PyObject *tuple_of_doubles(const double *values, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *value = PyFloat_FromDouble(values[i]);
        if (value == NULL)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, i, value);
    }
    return tuple;
}

static PyObject *class_rows(const pa_class_stats *classes, int count)
{
    PyObject *list = PyList_New(0);
    for (int c = 0; list != NULL && c < count; c++)
        list = pa_list_append_new(list, tuple_of((const uint64_t *)&classes[c], sizeof *classes / sizeof(uint64_t)));
    return list;
}

static PyObject *py_page_stats(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    pa_mem_stats stats;
    pa_read_page_stats(&stats);
    return tuple_of((const uint64_t *)&stats, sizeof stats / sizeof(uint64_t));
}

static PyObject *py_class_stats(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    pa_class_stats classes[PA_SNAPSHOT_CLASSES];
    PyThreadState *state = let_go_for_a_walk();
    int count = pa_read_class_stats(classes, PA_SNAPSHOT_CLASSES);
    take_again(state);
    return class_rows(classes, count);
}

static PyObject *bytes_of(const void *data, size_t nbytes)
{
    return PyBytes_FromStringAndSize(data, (Py_ssize_t)nbytes);
}

/* The rows that few callers look at go out as they are, for pyalloc/_stats.py to unpack when asked. */
static PyObject *py_snapshot(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    pa_snapshot s;
    read_snapshot(&s);
    return Py_BuildValue("(NNNNN)", tuple_of((const uint64_t *)&s.mem, sizeof s.mem / sizeof(uint64_t)),
                         pa_gc_stats_row(&s.gc), bytes_of(s.classes, sizeof s.classes),
                         bytes_of(s.pause_ns, sizeof s.pause_ns),
                         bytes_of(s.pause_end_unix_ns, sizeof s.pause_end_unix_ns));
}

/* ---- Metrics ---- */

static PyObject *metric_value(const pa_metric_info *info, const pa_metric_value *v)
{
    if (info->kind == PA_METRIC_COUNT)
        return PyLong_FromUnsignedLongLong(v->count);
    if (info->kind == PA_METRIC_REAL)
        return PyFloat_FromDouble(v->real);
    return Py_BuildValue("(NN)", tuple_of(v->counts, (Py_ssize_t)v->buckets),
                         tuple_of_doubles(v->bounds, (Py_ssize_t)v->buckets + 1));
}

static PyObject *py_metric_infos(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *list = PyList_New(0);
    pa_metric_info info;
    for (int i = 0; list != NULL && pa_metric(i, &info); i++)
        list = pa_list_append_new(list, Py_BuildValue("(siNs)", info.name, (int)info.kind,
                                                      PyBool_FromLong(info.cumulative), info.doc));
    return list;
}

static PyObject *py_metric_values(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    pa_snapshot s;
    read_snapshot(&s);
    PyObject *list = PyList_New(0);
    pa_metric_info info;
    pa_metric_value value;
    for (int i = 0; list != NULL && pa_metric(i, &info) && pa_metric_of(&s, i, &value); i++)
        list = pa_list_append_new(list, metric_value(&info, &value));
    return list;
}

/* ---- Heap map ---- */

enum { BYTE_COLUMNS = 4, COLUMNS = 6 };

static PyObject *arena_row(uintptr_t address, const pa_page_info *pages, Py_ssize_t count)
{
    PyObject *columns[COLUMNS] = {NULL};
    for (int i = 0; i < COLUMNS; i++) {
        Py_ssize_t width = i < BYTE_COLUMNS ? 1 : (Py_ssize_t)sizeof(uint32_t);
        if ((columns[i] = PyBytes_FromStringAndSize(NULL, count * width)) == NULL)
            goto fail;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyBytes_AS_STRING(columns[0])[i] = (char)pages[i].state;
        PyBytes_AS_STRING(columns[1])[i] = (char)pages[i].size_class;
        PyBytes_AS_STRING(columns[2])[i] = (char)pages[i].first;
        PyBytes_AS_STRING(columns[3])[i] = (char)pages[i].huge;
        memcpy(PyBytes_AS_STRING(columns[4]) + i * 4, &pages[i].live, 4);
        memcpy(PyBytes_AS_STRING(columns[5]) + i * 4, &pages[i].capacity, 4);
    }
    return Py_BuildValue("(KNNNNNN)", (unsigned long long)address, columns[0], columns[1], columns[2], columns[3],
                         columns[4], columns[5]);
fail:
    for (int i = 0; i < COLUMNS; i++)
        Py_XDECREF(columns[i]);
    return NULL;
}

static PyObject *py_arena_maps(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *list = PyList_New(0);
    pa_page_info *pages = PyMem_RawMalloc(ARENA_PAGES * sizeof *pages);
    if (pages == NULL) {
        Py_XDECREF(list);
        return PyErr_NoMemory();
    }
    uintptr_t address;
    for (int i = 0; list != NULL && (address = pa_arena_address(i)) != 0; i++) {
        size_t count = pa_read_arena_map(i, pages, ARENA_PAGES);
        list = pa_list_append_new(list, arena_row(address, pages, (Py_ssize_t)count));
    }
    PyMem_RawFree(pages);
    return list;
}

PyMethodDef pa_snapshot_methods[] = {
    {"page_stats_row", py_page_stats, METH_NOARGS,
     "page_stats_row($module, /)\n--\n\npa_mem_stats in declaration order, object counts 0."},
    {"class_stats_rows", py_class_stats, METH_NOARGS,
     "class_stats_rows($module, /)\n--\n\n"
     "pa_class_stats of class 0, 1, ... in declaration order; see class_stats()."},
    {"snapshot_rows", py_snapshot, METH_NOARGS,
     "snapshot_rows($module, /)\n--\n\n"
     "Of one pa_snapshot: mem, gc, and as they are classes, pause_ns, pause_end_unix_ns."},
    {"metric_infos", py_metric_infos, METH_NOARGS,
     "metric_infos($module, /)\n--\n\nEach metric: name, kind, cumulative, doc."},
    {"metric_values", py_metric_values, METH_NOARGS,
     "metric_values($module, /)\n--\n\nEach metric's value in one pa_snapshot, in the same order."},
    {"arena_map_rows", py_arena_maps, METH_NOARGS,
     "arena_map_rows($module, /)\n--\n\n"
     "Each arena: address and, a page, state, class, first, huge (bytes), live, capacity (uint32)."},
    {NULL, NULL, 0, NULL},
};
