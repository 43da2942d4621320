/* sites.c - the registry behind pyalloc_leakcheck: where Buffers and managed objects were made.
 *
 * While it is on, every Buffer, every managed object that Python makes, and every reference from Python to a managed
 * object (the collector's roots) has an entry: the calling Python frames, and a weak reference that tells whether it is
 * still there: CPython's for Buffers and references, the core's for managed objects, which may outlive the reference
 * that they were made with.  So nothing has to be told when something dies, and dropping costs nothing more.  Entries
 * of the dead go when the table has doubled.
 *
 * Off, the price is a load and a branch where a Buffer or a reference is made.
 *
 * Locks: the GIL.  Making an entry, weeding and listing may run Python code or let the GIL go (to enter while the world
 * is stopped), so entries may be added meanwhile by others, and the table may move; `busy` keeps them from being
 * removed.  Nothing is decremented while the table is not whole.  Go counterpart: none; the heap profile comes near.
 */
#include "python/sites.h"

#include <frameobject.h> /* PyFrame_GetBack, before 3.11 */
#include <pythread.h>

#include "python/buffer.h"
#include "python/managed.h"
#include "python/weak.h"

enum { FRAMES = 8, FIRST_ENTRIES = 256, POLL_EVERY = 1024 };

typedef struct entry {
    uint64_t serial;
    PyObject *weakref;          /* to the Buffer or the reference; strong */
    pa_weak *made;              /* the managed object that was made with the reference; NULL: none */
    bool gone;                  /* found dead: to be removed */
    uint8_t depth;
    int lines[FRAMES];          /* innermost first, as code */
    PyCodeObject *code[FRAMES]; /* strong */
} entry;

bool pa_sites_on;

static struct {
    entry *entries;
    size_t count, capacity;
    size_t weed_at;             /* entries at which the dead are looked for */
    uint64_t serial;            /* of the last entry */
    uint64_t missed;            /* for want of memory */
    bool busy;                  /* somebody walks the table: it may grow, and nothing is removed */
    unsigned long quiet_thread; /* its references are no entries; 0: none */
} the;

/* ---- Entries ---- */

static void entry_drop(entry *e)
{
    for (int i = 0; i < e->depth; i++)
        Py_DECREF(e->code[i]);
    Py_XDECREF(e->weakref);
    if (e->made != NULL)
        pa_weak_free(e->made);
}

static void note_frames(entry *e)
{
    PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get());
    while (frame != NULL && e->depth < FRAMES) {
        e->code[e->depth] = PyFrame_GetCode(frame);
        e->lines[e->depth++] = PyFrame_GetLineNumber(frame);
        PyFrameObject *back = PyFrame_GetBack(frame);
        Py_DECREF(frame);
        frame = back;
    }
    Py_XDECREF(frame);
}

static bool note_object(entry *e, PyObject *object)
{
    if (!pa_inside_enter())
        return false;
    e->made = pa_weak_new(pa_managed_object(object));
    pa_inside_leave();
    return e->made != NULL;
}

/* The Buffer or the reference, new; NULL when it is gone. Runs no Python code: that may be the decrement's, later. */
static PyObject *entry_object(const entry *e)
{
    PyObject *object = PyObject_CallObject(e->weakref, NULL);
    if (object == NULL)
        PyErr_Clear();
    if (object != Py_None)
        return object;
    Py_DECREF(object);
    return NULL;
}

/* ---- The table ---- */

/* Flags the entries whose objects are gone. The GIL may be let go: more entries may come. */
static void find_the_gone(void)
{
    for (size_t i = 0; i < the.count; i++) {
        PyObject *object = entry_object(&the.entries[i]);
        the.entries[i].gone = object == NULL;
        Py_XDECREF(object);
    }
    if (!pa_inside_enter()) {
        PyErr_Clear();
        for (size_t i = 0; i < the.count; i++)
            the.entries[i].gone &= the.entries[i].made == NULL;
        return;
    }
    bool inside = true;
    for (size_t i = 0; i < the.count && inside; i++) {
        if (the.entries[i].gone && the.entries[i].made != NULL)
            the.entries[i].gone = pa_weak_get(the.entries[i].made) == NULL;
        if (i % POLL_EVERY == POLL_EVERY - 1)
            inside = pa_inside_poll();
    }
    if (inside)
        pa_inside_leave();
    else
        PyErr_Clear();
}

/* Takes flagged entries, or all, out of the table; then lets go of what they hold, which may run Python code. */
static void remove_entries(bool all)
{
    entry *removed = PyMem_New(entry, the.count ? the.count : 1);
    size_t kept = 0, out = 0;
    if (removed == NULL)
        return;
    for (size_t i = 0; i < the.count; i++) {
        if (all || the.entries[i].gone)
            removed[out++] = the.entries[i];
        else
            the.entries[kept++] = the.entries[i];
    }
    the.count = kept;
    for (size_t i = 0; i < out; i++)
        entry_drop(&removed[i]);
    PyMem_Free(removed);
}

static void weed(void)
{
    if (the.busy)
        return;
    the.busy = true;
    find_the_gone();
    the.busy = false;
    remove_entries(false);
    the.weed_at = 2 * the.count > FIRST_ENTRIES ? 2 * the.count : FIRST_ENTRIES;
}

static bool reserve(void)
{
    if (the.count < the.capacity)
        return true;
    size_t capacity = the.capacity ? 2 * the.capacity : FIRST_ENTRIES;
    entry *grown = PyMem_Resize(the.entries, entry, capacity);
    if (grown == NULL)
        return false;
    the.entries = grown;
    the.capacity = capacity;
    return true;
}

void pa_sites_note_slow(PyObject *object, bool made)
{
    if (the.quiet_thread != 0 && the.quiet_thread == PyThread_get_thread_ident())
        return;
    entry e = {.weakref = PyWeakref_NewRef(object, NULL)};
    bool whole = e.weakref != NULL && (!made || note_object(&e, object));
    if (whole) {
        note_frames(&e);
        if (the.count >= the.weed_at)
            weed();
    }
    /* From here on nothing runs between the look at the table and the write. */
    if (whole && pa_sites_on && reserve()) {
        e.serial = ++the.serial;
        the.entries[the.count++] = e;
        return;
    }
    the.missed += pa_sites_on;
    entry_drop(&e);
    PyErr_Clear();
}

/* ---- Module functions ---- */

static PyObject *py_sites_note(PyObject *module, PyObject *arg)
{
    (void)module;
    int on = PyObject_IsTrue(arg);
    if (on < 0)
        return NULL;
    bool was_on = pa_sites_on;
    if (!on && the.busy) {
        PyErr_SetString(PyExc_RuntimeError, "the sites are being listed by another thread");
        return NULL;
    }
    pa_sites_on = on;
    the.weed_at = the.weed_at ? the.weed_at : FIRST_ENTRIES;
    if (!on)
        remove_entries(true);
    return PyBool_FromLong(was_on);
}

static PyObject *py_sites_mark(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return Py_BuildValue("(KK)", (unsigned long long)the.serial, (unsigned long long)the.missed);
}

static PyObject *frames_of(const entry *e)
{
    PyObject *frames = PyTuple_New(e->depth);
    for (int i = 0; frames != NULL && i < e->depth; i++) {
        PyObject *frame = Py_BuildValue("(Oi)", e->code[i], e->lines[i]);
        if (frame == NULL)
            Py_CLEAR(frames);
        else
            PyTuple_SET_ITEM(frames, i, frame);
    }
    return frames;
}

enum { ROW_BUFFER, ROW_OBJECT, ROW_REFERENCE };

static PyObject *append_row(PyObject *list, int kind, PyObject *object, const entry *e)
{
    PyObject *frames = frames_of(e);
    return pa_list_append_new(list, frames == NULL ? NULL : Py_BuildValue("(iON)", kind, object, frames));
}

static bool is_freed_buffer(PyObject *object)
{
    return Py_IS_TYPE(object, &pa_buffer_type) && pa_buffer_address(object) == NULL;
}

/* Rows of entry i, which is read anew after whatever may move the table. NULL with an exception, list dropped. */
static PyObject *append_rows(PyObject *list, size_t i)
{
    PyObject *object = entry_object(&the.entries[i]);
    if (object != NULL && !is_freed_buffer(object)) {
        int kind = Py_IS_TYPE(object, &pa_buffer_type) ? ROW_BUFFER : ROW_REFERENCE;
        entry e = the.entries[i];
        list = append_row(list, kind, object, &e);
    }
    if (list != NULL && the.entries[i].made != NULL) {
        PyObject *made = object;
        Py_XINCREF(made);
        if (made == NULL)
            made = pa_weakref_target(the.entries[i].made);
        entry e = the.entries[i];
        if (made == NULL)
            Py_CLEAR(list);
        else if (made != Py_None)
            list = append_row(list, ROW_OBJECT, made, &e);
        Py_XDECREF(made);
    }
    Py_XDECREF(object);
    return list;
}

static PyObject *py_sites_rows(PyObject *module, PyObject *arg)
{
    (void)module;
    unsigned long long since = PyLong_AsUnsignedLongLong(arg);
    if (since == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    if (the.busy) {
        PyErr_SetString(PyExc_RuntimeError, "the sites are being listed by another thread");
        return NULL;
    }
    unsigned long quiet_before = the.quiet_thread;
    the.busy = true;
    the.quiet_thread = PyThread_get_thread_ident();
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < the.count; i++)
        if (the.entries[i].serial > since)
            list = append_rows(list, i);
    the.quiet_thread = quiet_before;
    the.busy = false;
    return list;
}

/* Calls function() with the references that it makes left out. */
static PyObject *py_sites_quietly(PyObject *module, PyObject *function)
{
    (void)module;
    unsigned long before = the.quiet_thread;
    the.quiet_thread = PyThread_get_thread_ident();
    PyObject *result = PyObject_CallObject(function, NULL);
    the.quiet_thread = before;
    return result;
}

PyMethodDef pa_sites_methods[] = {
    {"sites_note", py_sites_note, METH_O,
     "sites_note($module, on, /)\n--\n\n"
     "Begins or ends to note where Buffers and managed objects are made; returns whether it was on. Ending forgets."},
    {"sites_mark", py_sites_mark, METH_NOARGS,
     "sites_mark($module, /)\n--\n\nThe number of the last note, and how many were missed for want of memory."},
    {"sites_rows", py_sites_rows, METH_O,
     "sites_rows($module, since, /)\n--\n\n"
     "What was noted after that number and is still there: (kind, object, ((code, line), ...)); kind 0: a Buffer,\n"
     "1: a managed object, 2: a reference to one."},
    {"sites_quietly", py_sites_quietly, METH_O,
     "sites_quietly($module, function, /)\n--\n\n"
     "function(), without noting references that this thread makes meanwhile."},
    {NULL, NULL, 0, NULL},
};
