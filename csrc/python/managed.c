/* managed.c - pyalloc.Managed: references from Python to managed objects, and the table of their layouts.
 *
 * A reference is a small Python object that owns one handle, a root of the collector.  Reading a field makes
 * one, so making and dropping them has to be cheap: the memory of dead ones is kept on a short list, of all
 * classes together, since all have one size.
 *
 * Order of every read, because Python must not be used while inside and an object lives only by its roots:
 * memory for the reference first; then enter, load, make the handle, leave; then the Python object, of the class
 * that the pointer or the object tells, which can no longer fail.  A dealloc only frees the handle, which never waits.
 *
 * Python's own type checks are not what keeps memory safe (__class__ and __bases__ can be assigned to in
 * places): every access asks the object, or rather the pointer to it, for its class.
 *
 * Locks: the GIL, for the free list and the table.  Go counterpart: none; Go's pointers are its references.
 */
#include "python/managed.h"

#include <errno.h>

#include "python/managed_doc.h"
#include "python/sites.h"

enum { FREE_LIST_MAX = 256, TABLE_STEP = 64 };
/* How long a thread waits for a stop with the GIL: the stops of the concurrent modes are shorter, unless a thread
 * that is inside does not run.  Giving the GIL up costs more when others want it, a switch interval (5 ms). */
enum { SHORT_STOP_NS = 100 * 1000 };

pa_layout **pa_layouts;
pa_layout *pa_compact_layouts[PA_OBJECT_TAG_MASK + 1];
static uint32_t layout_count;

static pa_managed *free_list;
static int free_list_count;

/* ---- Going inside ----------------------------------------------------------------------------- */

bool pa_inside_enter_slow(void)
{
    for (;;) {
        if (pa_enter_within(SHORT_STOP_NS))
            return true;
        bool entered = false;
        if (errno == EAGAIN) {
            Py_BEGIN_ALLOW_THREADS
            entered = pa_enter();
            if (entered)
                pa_leave();
            Py_END_ALLOW_THREADS
        }
        if (!entered) {
            PyErr_SetString(pa_out_of_memory_error, "cannot attach the thread to the collector");
            return false;
        }
    }
}

bool pa_inside_poll_slow(void)
{
    pa_inside_leave();
    return pa_inside_enter();
}

/* ---- Layouts ---------------------------------------------------------------------------------- */

int pa_layout_register(pa_layout *layout)
{
    if (layout_count % TABLE_STEP == 0) {
        pa_layout **grown = PyMem_Realloc(pa_layouts, (layout_count + TABLE_STEP) * sizeof *grown);
        if (grown == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        pa_layouts = grown;
        if (layout_count == 0)
            pa_layouts[layout_count++] = NULL;      /* PA_CLASS_ANY */
    }
    layout->class_id = layout_count;
    Py_INCREF(layout->python_type);
    pa_layouts[layout_count++] = layout;
    if (layout->tag != 0)
        pa_compact_layouts[layout->tag] = layout;
    return 0;
}

int pa_layout_from_argument(PyObject *cls, const pa_layout **out)
{
    *out = NULL;
    if (cls == Py_None || cls == (PyObject *)&pa_managed_type)
        return 0;
    *out = pa_layout_of_class(cls);
    if (*out != NULL)
        return 0;
    PyErr_Format(PyExc_TypeError, "%R is no class of managed objects: a Struct, RefArray or ManagedBytes", cls);
    return -1;
}

/* ---- Life and death of references ------------------------------------------------------------- */

pa_managed *pa_managed_blank(void)
{
    PA_OUTSIDE();
    if (PA_UNLIKELY(atomic_load_explicit(&pa_cleanup_news, memory_order_relaxed) == PA_CLEANUP_NOTIFIED))
        pa_cleanup_kick();
    pa_managed *blank = free_list;
    if (PA_LIKELY(blank != NULL)) {
        free_list = blank->object;
        free_list_count--;
        return blank;
    }
    blank = PyObject_Malloc(sizeof *blank);
    if (blank == NULL)
        PyErr_NoMemory();
    return blank;
}

void pa_managed_drop_blank(pa_managed *blank)
{
    PA_OUTSIDE();
    if (PA_LIKELY(free_list_count < FREE_LIST_MAX)) {
        blank->object = free_list;
        free_list = blank;
        free_list_count++;
    } else {
        PyObject_Free(blank);
    }
}

void pa_managed_drop_free_list(void)
{
    while (free_list != NULL) {
        pa_managed *next = free_list->object;
        PyObject_Free(free_list);
        free_list = next;
    }
    free_list_count = 0;
}

static PA_COLD PyObject *init_noted(pa_managed *blank, PyTypeObject *type, bool made)
{
    PyObject *reference = PyObject_Init((PyObject *)blank, type);
    pa_sites_note(reference, made);
    return reference;
}

PyObject *pa_managed_finish_as(pa_managed *blank, PyTypeObject *type, void *object, pa_handle *handle, bool made)
{
    PA_OUTSIDE();
    blank->object = object;
    blank->handle = handle;
    blank->weakrefs = NULL;
    if (PA_UNLIKELY(pa_sites_on))
        return init_noted(blank, type, made);
    return PyObject_Init((PyObject *)blank, type);
}

PyObject *pa_managed_finish(pa_managed *blank, void *object, pa_handle *handle, bool made)
{
    return pa_managed_finish_as(blank, pa_layout_of(object)->python_type, object, handle, made);
}

/* The classes made by Python code get this too (struct_type.c), in place of CPython's general one. */
void pa_managed_dealloc(PyObject *object)
{
    pa_managed *self = (pa_managed *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (PA_UNLIKELY(self->weakrefs != NULL))
        PyObject_ClearWeakRefs(object);
    pa_handle_free(self->handle);
    pa_managed_drop_blank(self);
    if (type->tp_flags & Py_TPFLAGS_HEAPTYPE)
        Py_DECREF(type);
}

PyObject *pa_managed_set_out_of_memory(const char *what, size_t nbytes)
{
    PyErr_Format(pa_out_of_memory_error, "cannot allocate %s of %zu bytes", what, nbytes);
    return NULL;
}

PyObject *pa_managed_load(void **slot)
{
    if (__atomic_load_n(slot, __ATOMIC_RELAXED) == NULL)
        Py_RETURN_NONE;
    pa_managed *blank = pa_managed_blank();
    if (PA_UNLIKELY(blank == NULL))
        return NULL;
    if (PA_UNLIKELY(!pa_inside_enter())) {
        pa_managed_drop_blank(blank);
        return NULL;
    }
    void *object = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
    pa_handle *handle = object != NULL ? pa_handle_new(object) : NULL;
    pa_inside_leave();
    if (PA_LIKELY(handle != NULL))
        return pa_managed_finish(blank, object, handle, false);
    pa_managed_drop_blank(blank);
    if (object != NULL)
        return PyErr_NoMemory();
    Py_RETURN_NONE;             /* entering let the GIL go, and somebody cleared it */
}

int pa_managed_store(void **slot, void *value)
{
    if (PA_UNLIKELY(!pa_inside_enter()))
        return -1;
    pa_store(slot, value);
    pa_inside_leave();
    return 0;
}

int pa_managed_address(PyObject *value, const pa_layout *wanted, const char *what, PyObject *name, void **out)
{
    PA_OUTSIDE();
    *out = NULL;
    if (value == Py_None)
        return 0;
    if (PA_LIKELY(pa_managed_check(value))) {
        void *object = pa_managed_object(value);
        if (PA_LIKELY(wanted == NULL || pa_layout_is(pa_layout_of(object), wanted))) {
            *out = object;
            return 0;
        }
    }
    const char *noun = wanted == NULL ? "managed object" : strrchr(wanted->python_type->tp_name, '.');
    if (wanted != NULL)
        noun = noun != NULL ? noun + 1 : wanted->python_type->tp_name;
    PyErr_Format(PyExc_TypeError, "%s%s%V must be a %s or None, not '%.200s'", what, name != NULL ? "." : "",
                 name, "", noun, Py_TYPE(value)->tp_name);
    return -1;
}

/* ---- The object ------------------------------------------------------------------------------- */

static Py_hash_t managed_hash(PyObject *object)
{
    uintptr_t address = (uintptr_t)pa_managed_object(object);
    return (Py_hash_t)(address >> 3);       /* below 2^47, so never -1 */
}

static PyObject *managed_richcompare(PyObject *left, PyObject *right, int op)
{
    if ((op != Py_EQ && op != Py_NE) || !pa_managed_check(left) || !pa_managed_check(right))
        Py_RETURN_NOTIMPLEMENTED;
    bool equal = pa_managed_object(left) == pa_managed_object(right);
    return PyBool_FromLong(equal == (op == Py_EQ));
}

static PyObject *managed_repr(PyObject *object)
{
    return PyUnicode_FromFormat("<%s at %p>", Py_TYPE(object)->tp_name,
                                pa_object_base(pa_managed_object(object)));
}

static PyObject *managed_reduce(PyObject *object, PyObject *unused)
{
    (void)unused;
    PyErr_Format(PyExc_TypeError,
                 "cannot pickle or copy a managed object ('%.200s'): its references are addresses of this process; "
                 "make a new object from its fields or items, or pickle those", Py_TYPE(object)->tp_name);
    return NULL;
}

static PyObject *managed_sizeof(PyObject *object, PyObject *unused)
{
    (void)unused;
    if (!pa_inside_enter())
        return NULL;
    const void *managed = pa_managed_object(object);
    size_t nbytes = pa_object_bytes(managed);
    uint32_t class_id = pa_layout_of(managed)->class_id;
    if (class_id == PA_CLASS_REF_ARRAY || class_id == PA_CLASS_BYTES) {
        const void *items = ((const pa_items *)managed)->items;
        if (items != NULL)
            nbytes += pa_object_bytes(pa_find_object(items));
    }
    pa_inside_leave();
    return PyLong_FromSize_t(sizeof(pa_managed) + nbytes);
}

static PyObject *get_address(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromVoidPtr(pa_object_base(pa_managed_object(object)));
}

static PyObject *get_class(PyObject *object, void *unused)
{
    (void)unused;
    Py_INCREF(Py_TYPE(object));
    return (PyObject *)Py_TYPE(object);
}

static int set_class(PyObject *object, PyObject *value, void *unused)
{
    (void)value;
    (void)unused;
    PyErr_Format(PyExc_TypeError, "the class of a managed object ('%.200s') cannot be changed",
                 Py_TYPE(object)->tp_name);
    return -1;
}

static PyGetSetDef managed_getset[] = {
    {"address", get_address, NULL, managed_address_doc, NULL},
    {"__class__", get_class, set_class, "the object's class; constant", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef managed_methods[] = {
    {"__reduce__", managed_reduce, METH_NOARGS, managed_reduce_doc},
    {"__reduce_ex__", managed_reduce, METH_O, managed_reduce_ex_doc},
    {"__sizeof__", managed_sizeof, METH_NOARGS, managed_sizeof_doc},
    {NULL, NULL, 0, NULL},
};

PyTypeObject pa_managed_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pyalloc.Managed",
    .tp_doc = managed_doc,
    .tp_basicsize = sizeof(pa_managed),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_dealloc = pa_managed_dealloc,
    .tp_repr = managed_repr,
    .tp_hash = managed_hash,
    .tp_richcompare = managed_richcompare,
    .tp_weaklistoffset = offsetof(pa_managed, weakrefs),
    .tp_methods = managed_methods,
    .tp_getset = managed_getset,
};
