/* struct_object.c - makes and prints the objects of Struct classes.
 *
 * Node(left=a, right=b) is the operation that is measured: it comes here by vectorcall, without a tuple or a
 * dict.  The arguments become bits first, which may run Python code; then memory for the reference; then
 * everything else inside at one go: the object, its handle, its fields.  The references in args keep what the
 * bits point to, so nothing is lost when a collection runs.  Where the allocation would have to wait or to mark,
 * object and handle are made with the GIL let go.
 *
 * Keywords are compared by address (names in calls and of fields are interned) starting behind the field that
 * the last one named, so arguments in the order of the fields are found at once.
 *
 * A class with an __init__ or __new__ of its own takes Python's usual way: pa_struct_new makes a zeroed object
 * and leaves the arguments to __init__; pa_struct_init assigns fields.
 *
 * No state; locks: the GIL.  Go counterpart: &Node{left: a, right: b}.
 */
#include "python/struct_type.h"

enum { STAGED_ON_STACK = 16 };

/* A field and what goes into it. */
typedef struct staged {
    pa_field *field;
    uint64_t bits;
} staged;

/* ---- Arguments -------------------------------------------------------------------------------- */

/* Index of the field that keyword names; guess is tried first.  -1 with TypeError. */
static inline Py_ssize_t find_field(const pa_layout *layout, PyObject *keyword, uint32_t guess)
{
    if (PA_LIKELY(guess < layout->field_count && layout->fields[guess]->name == keyword))
        return guess;
    for (uint32_t i = 0; i < layout->field_count; i++) {
        if (layout->fields[i]->name == keyword)
            return i;
    }
    for (uint32_t i = 0; PyUnicode_Check(keyword) && i < layout->field_count; i++) {
        if (PyUnicode_Compare(layout->fields[i]->name, keyword) == 0)
            return i;
    }
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%S': it has no such field",
                 layout->python_type->tp_name, keyword);
    return -1;
}

static PA_COLD int set_too_many(const pa_layout *layout, Py_ssize_t positional)
{
    PyErr_Format(PyExc_TypeError, "%s() takes %u positional arguments, its fields, but %zd were given",
                 layout->python_type->tp_name, (unsigned)layout->field_count, positional);
    return -1;
}

static PA_COLD int set_twice(const pa_layout *layout, PyObject *name)
{
    PyErr_Format(PyExc_TypeError, "%s() got multiple values for field '%U'", layout->python_type->tp_name, name);
    return -1;
}

static int stage(const pa_layout *layout, staged *stages, PyObject *const *args, Py_ssize_t positional,
                 PyObject *kwnames)
{
    if (PA_UNLIKELY(positional > (Py_ssize_t)layout->field_count))
        return set_too_many(layout, positional);
    for (Py_ssize_t i = 0; i < positional; i++) {
        stages[i].field = layout->fields[i];
        if (pa_field_bits(stages[i].field, args[i], &stages[i].bits) < 0)
            return -1;
    }
    Py_ssize_t keywords = kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0;
    uint32_t guess = (uint32_t)positional;
    for (Py_ssize_t i = positional; i < positional + keywords; i++) {
        PyObject *keyword = PyTuple_GET_ITEM(kwnames, i - positional);
        Py_ssize_t found = find_field(layout, keyword, guess);
        if (PA_UNLIKELY(found < positional))
            return found < 0 ? -1 : set_twice(layout, keyword);
        guess = (uint32_t)found + 1;
        stages[i].field = layout->fields[found];
        if (pa_field_bits(stages[i].field, args[i], &stages[i].bits) < 0)
            return -1;
    }
    return 0;
}

/* ---- Objects ---------------------------------------------------------------------------------- */

/* A fresh object as pointers to it have it, with its class. */
static inline void *with_class(const pa_layout *layout, void *object)
{
    if (layout->tag != 0)
        return (char *)object + layout->tag;
    *(uint32_t *)object = layout->class_id;
    return object;
}

/* The collector wants something first that takes time: without the GIL.  NULL: no memory. */
static PA_COLD pa_handle *make_without_gil(const pa_layout *layout, void **object)
{
    pa_handle *handle = NULL;
    Py_BEGIN_ALLOW_THREADS
    if (pa_enter()) {
        pa_settle();
        *object = pa_new(layout->type);
        if (*object != NULL) {
            *object = with_class(layout, *object);
            handle = pa_handle_new(*object);
        }
        pa_leave();
    }
    Py_END_ALLOW_THREADS
    return handle;
}

/* Inside.  The object with its handle; -1 with an exception and outside. */
static PA_COLD int make_slowly(const pa_layout *layout, void **object, pa_handle **handle)
{
    pa_inside_leave();
    *handle = make_without_gil(layout, object);
    if (*handle == NULL) {
        pa_managed_set_out_of_memory(layout->python_type->tp_name, layout->nbytes);
        return -1;
    }
    if (pa_inside_enter())
        return 0;
    pa_handle_free(*handle);
    return -1;
}

/* A new object with these fields; what bits point to is kept by the caller. */
static PyObject *make(PyTypeObject *cls, const pa_layout *layout, const staged *stages, Py_ssize_t count)
{
    pa_managed *blank = pa_managed_blank();
    if (PA_UNLIKELY(blank == NULL))
        return NULL;
    if (PA_UNLIKELY(!pa_inside_enter())) {
        pa_managed_drop_blank(blank);
        return NULL;
    }
    pa_handle *handle = NULL;
    void *object = pa_try_new(layout->type);
    if (PA_LIKELY(object != NULL)) {
        object = with_class(layout, object);
        handle = pa_handle_new(object);
    }
    if (PA_UNLIKELY(handle == NULL) && make_slowly(layout, &object, &handle) < 0) {
        pa_managed_drop_blank(blank);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        void *at = pa_field_at(stages[i].field, object);
        if (stages[i].field->kind != PA_KIND_REF)
            pa_scalar_store(stages[i].field->kind, at, stages[i].bits);
        else if (stages[i].bits != 0)
            pa_store(at, (void *)(uintptr_t)stages[i].bits);
    }
    pa_inside_leave();
    return pa_managed_finish_as(blank, cls, object, handle, true);
}

static const pa_layout *layout_to_make(PyTypeObject *cls)
{
    const pa_layout *layout = PyObject_TypeCheck(cls, &pa_struct_meta) ? pa_struct_class_layout(cls) : NULL;
    if (PA_LIKELY(layout != NULL && layout->type != NULL))
        return layout;
    PyErr_Format(PyExc_TypeError, "cannot make a '%.200s' object: %s", cls->tp_name,
                 layout == NULL ? "the class is not complete yet" : "subclass Struct and give the class fields");
    return NULL;
}

/* Somebody's own __init__ or __new__: as type.__call__ does it. */
static PA_COLD PyObject *call_slowly(PyObject *cls, PyObject *const *args, Py_ssize_t positional, PyObject *kwnames)
{
    PyObject *tuple = PyTuple_New(positional);
    PyObject *dict = kwnames != NULL ? PyDict_New() : NULL;
    PyObject *result = NULL;
    if (tuple == NULL || (kwnames != NULL && dict == NULL))
        goto done;
    for (Py_ssize_t i = 0; i < positional; i++) {
        Py_INCREF(args[i]);
        PyTuple_SET_ITEM(tuple, i, args[i]);
    }
    for (Py_ssize_t i = 0; dict != NULL && i < PyTuple_GET_SIZE(kwnames); i++) {
        if (PyDict_SetItem(dict, PyTuple_GET_ITEM(kwnames, i), args[positional + i]) < 0)
            goto done;
    }
    result = PyType_Type.tp_call(cls, tuple, dict);
done:
    Py_XDECREF(tuple);
    Py_XDECREF(dict);
    return result;
}

PyObject *pa_struct_vectorcall(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    PyTypeObject *cls = (PyTypeObject *)callable;
    Py_ssize_t positional = PyVectorcall_NARGS(nargsf);
    if (PA_UNLIKELY(cls->tp_init != pa_struct_init || cls->tp_new != pa_struct_new))
        return call_slowly(callable, args, positional, kwnames);
    const pa_layout *layout = layout_to_make(cls);
    if (PA_UNLIKELY(layout == NULL))
        return NULL;
    staged on_stack[STAGED_ON_STACK];
    staged *stages = on_stack;
    Py_ssize_t count = positional + (kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0);
    if (PA_UNLIKELY(count > STAGED_ON_STACK)) {
        stages = PyMem_New(staged, count);
        if (stages == NULL)
            return PyErr_NoMemory();
    }
    PyObject *made = NULL;
    if (PA_LIKELY(stage(layout, stages, args, positional, kwnames) == 0))
        made = make(cls, layout, stages, count);
    if (PA_UNLIKELY(stages != on_stack))
        PyMem_Free(stages);
    return made;
}

PyObject *pa_struct_new(PyTypeObject *cls, PyObject *args, PyObject *kwargs)
{
    (void)args;
    (void)kwargs;
    const pa_layout *layout = layout_to_make(cls);
    return layout == NULL ? NULL : make(cls, layout, NULL, 0);
}

static int assign_held(pa_field *field, PyObject *self, PyObject *value)
{
    Py_INCREF(value);
    int rc = pa_field_assign(field, self, value);
    Py_DECREF(value);
    return rc;
}

int pa_struct_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    const pa_layout *layout = pa_layout_of(pa_managed_object(self));
    Py_ssize_t positional = PyTuple_GET_SIZE(args);
    if (positional > (Py_ssize_t)layout->field_count)
        return set_too_many(layout, positional);
    for (Py_ssize_t i = 0; i < positional; i++) {
        if (assign_held(layout->fields[i], self, PyTuple_GET_ITEM(args, i)) < 0)
            return -1;
    }
    PyObject *items = kwargs != NULL ? PyDict_Items(kwargs) : NULL;      /* assigning may run Python code */
    if (items == NULL)
        return kwargs != NULL ? -1 : 0;
    int rc = 0;
    for (Py_ssize_t i = 0; rc == 0 && i < PyList_GET_SIZE(items); i++) {
        PyObject *item = PyList_GET_ITEM(items, i);
        Py_ssize_t found = find_field(layout, PyTuple_GET_ITEM(item, 0), (uint32_t)i);
        if (found < 0)
            rc = -1;
        else if (found < positional)
            rc = set_twice(layout, layout->fields[found]->name);
        else
            rc = pa_field_assign(layout->fields[found], self, PyTuple_GET_ITEM(item, 1));
    }
    Py_DECREF(items);
    return rc;
}

/* ---- Printing --------------------------------------------------------------------------------- */

/* One field; objects that it refers to only by class and address, so that no cycle is followed. */
static PyObject *field_text(const pa_field *field, void *object)
{
    void *at = pa_field_at(field, object);
    PyObject *value = field->kind == PA_KIND_REF ? pa_managed_load(at) : pa_scalar_to_python(field->kind, at);
    if (value == NULL)
        return NULL;
    PyObject *text = value != Py_None && field->kind == PA_KIND_REF ? pa_managed_type.tp_repr(value)
                                                                    : PyObject_Repr(value);
    Py_DECREF(value);
    return text;
}

PyObject *pa_struct_repr(PyObject *self)
{
    void *object = pa_managed_object(self);
    const pa_layout *layout = pa_layout_of(object);
    PyObject *text = PyUnicode_FromFormat("<%s at %p", layout->python_type->tp_name, pa_object_base(object));
    for (uint32_t i = 0; text != NULL && i < layout->field_count; i++) {
        PyObject *field = field_text(layout->fields[i], object);
        PyObject *longer = field == NULL ? NULL : PyUnicode_FromFormat("%U%s%U=%U", text, i == 0 ? ": " : ", ",
                                                                       layout->fields[i]->name, field);
        Py_XDECREF(field);
        Py_DECREF(text);
        text = longer;
    }
    PyObject *whole = text == NULL ? NULL : PyUnicode_FromFormat("%U>", text);
    Py_XDECREF(text);
    return whole;
}
