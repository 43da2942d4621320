/* refarray.c - pyalloc.RefArray: a fixed number of references to managed objects.
 *
 * Every store goes through the barrier.  Work on many items goes in steps of STEP_ITEMS with a poll between,
 * so that a stop of the world never waits for a long array; the array itself is kept by the reference that
 * the caller holds, the values by their references or by the array that they come from.  A poll that finds a long
 * stop lets the GIL go: other threads may see such an operation half done, as in an array of Python's own that a
 * loop fills.
 *
 * Arguments are checked and turned into addresses before anything is stored, so an operation that they make raise has
 * changed nothing. (One that a signal handler's exception ends at a poll may be half done.)
 *
 * Locks: the GIL; length, element type and items of an array never change.  Go counterpart: []*T.
 */
#include "python/items.h"

#include <string.h>

#include "python/managed_doc.h"

enum { STEP_ITEMS = 1024 };

static inline void **slots_of(PyObject *array)
{
    return pa_items_of(array)->items;
}

static inline Py_ssize_t length_of(PyObject *array)
{
    return (Py_ssize_t)pa_items_of(array)->length;
}

/* NULL: anything. */
static inline const pa_layout *element_of(PyObject *array)
{
    return pa_layouts[pa_items_of(array)->element_id];
}

static int item_address(PyObject *array, PyObject *value, void **out)
{
    return pa_managed_address(value, element_of(array), "an item of a RefArray", NULL, out);
}

/* ---- Many items ------------------------------------------------------------------------------- */

/* to[0..count) = from[0..count), as memmove. */
static int copy_slots(void **to, void *const *from, Py_ssize_t count)
{
    if (!pa_inside_enter())
        return -1;
    bool backward = to > (void **)from;
    for (Py_ssize_t done = 0; done < count; done += STEP_ITEMS) {
        Py_ssize_t step = count - done < STEP_ITEMS ? count - done : STEP_ITEMS;
        Py_ssize_t start = backward ? count - done - step : done;
        pa_store_range(to + start, from + start, (size_t)step);
        if (!pa_inside_poll())
            return -1;
    }
    pa_inside_leave();
    return 0;
}

/* The same with every stride_to-th from every stride_from-th; no overlap. */
static int copy_strided(void **to, Py_ssize_t stride_to, void *const *from, Py_ssize_t stride_from,
                        Py_ssize_t count)
{
    if (!pa_inside_enter())
        return -1;
    for (Py_ssize_t i = 0; i < count; i++) {
        pa_store(to + i * stride_to, from[i * stride_from]);
        if (i % STEP_ITEMS == STEP_ITEMS - 1 && !pa_inside_poll())
            return -1;
    }
    pa_inside_leave();
    return 0;
}

/* slots[0], slots[stride], ... = the items of tuple, which keeps them. */
static int store_tuple(PyObject *array, void **slots, Py_ssize_t stride, PyObject *tuple)
{
    Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    void *unused;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (item_address(array, PyTuple_GET_ITEM(tuple, i), &unused) < 0)
            return -1;
    }
    if (!pa_inside_enter())
        return -1;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *value = PyTuple_GET_ITEM(tuple, i);
        pa_store(slots + i * stride, value == Py_None ? NULL : pa_managed_object(value));
        if (i % STEP_ITEMS == STEP_ITEMS - 1 && !pa_inside_poll())
            return -1;
    }
    pa_inside_leave();
    return 0;
}

/* ---- Making ----------------------------------------------------------------------------------- */

static PyObject *from_iterable(PyObject *source, const pa_layout *element)
{
    PyObject *tuple = PySequence_Tuple(source);
    if (tuple == NULL)
        return NULL;
    uint32_t element_id = element != NULL ? element->class_id : PA_CLASS_ANY;
    PyObject *array = pa_items_new(PA_CLASS_REF_ARRAY, element_id, PyTuple_GET_SIZE(tuple));
    if (array != NULL && store_tuple(array, slots_of(array), 1, tuple) < 0)
        Py_CLEAR(array);
    Py_DECREF(tuple);
    return array;
}

PyObject *pa_refarray_make(PyObject *module, PyObject *const *args, Py_ssize_t positional, PyObject *kwnames)
{
    (void)module;
    PyObject *given[2] = {positional > 0 ? args[0] : NULL, positional > 1 ? args[1] : NULL};
    static const char *const names[2] = {"n_or_iterable", "type"};
    if (positional > 2) {
        PyErr_Format(PyExc_TypeError, "ref_array() takes 1 or 2 arguments but %zd were given", positional);
        return NULL;
    }
    for (Py_ssize_t i = 0; kwnames != NULL && i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *keyword = PyTuple_GET_ITEM(kwnames, i);
        int which = pa_args_is(keyword, names[0]) ? 0 : pa_args_is(keyword, names[1]) ? 1 : -1;
        if (which < 0) {
            pa_args_unknown("ref_array", keyword);
            return NULL;
        }
        if (given[which] != NULL) {
            PyErr_Format(PyExc_TypeError, "ref_array() got multiple values for argument '%U'", keyword);
            return NULL;
        }
        given[which] = args[positional + i];
    }
    if (given[0] == NULL) {
        PyErr_SetString(PyExc_TypeError, "ref_array() missing required argument 'n_or_iterable'");
        return NULL;
    }
    const pa_layout *element = NULL;
    if (given[1] != NULL && pa_layout_from_argument(given[1], &element) < 0)
        return NULL;
    if (!PyIndex_Check(given[0]))
        return from_iterable(given[0], element);
    Py_ssize_t length;
    if (pa_args_size(given[0], "n", &length) < 0)
        return NULL;
    return pa_items_new(PA_CLASS_REF_ARRAY, element != NULL ? element->class_id : PA_CLASS_ANY, length);
}

/* ---- One item --------------------------------------------------------------------------------- */

static PyObject *refarray_item(PyObject *array, Py_ssize_t index)
{
    if (PA_UNLIKELY(index < 0 || index >= length_of(array))) {
        PyErr_SetString(PyExc_IndexError, "RefArray index out of range");
        return NULL;
    }
    return pa_managed_load(slots_of(array) + index);
}

static int set_item(PyObject *array, Py_ssize_t index, PyObject *value)
{
    void *object;
    if (PA_UNLIKELY(index < 0 || index >= length_of(array))) {
        PyErr_SetString(PyExc_IndexError, "RefArray assignment index out of range");
        return -1;
    }
    return item_address(array, value, &object) < 0 ? -1 : pa_managed_store(slots_of(array) + index, object);
}

static int read_index(PyObject *array, PyObject *key, Py_ssize_t *index)
{
    *index = PyNumber_AsSsize_t(key, PyExc_IndexError);
    if (*index == -1 && PyErr_Occurred())
        return -1;
    if (*index < 0)
        *index += length_of(array);
    return 0;
}

/* ---- Slices ----------------------------------------------------------------------------------- */

static PyObject *get_slice(PyObject *array, PyObject *slice)
{
    Py_ssize_t start, stop, step;
    if (PySlice_Unpack(slice, &start, &stop, &step) < 0)
        return NULL;
    Py_ssize_t count = PySlice_AdjustIndices(length_of(array), &start, &stop, step);
    PyObject *made = pa_items_new(PA_CLASS_REF_ARRAY, pa_items_of(array)->element_id, count);
    if (made == NULL || count == 0)
        return made;
    void **from = slots_of(array) + start;
    int rc = step == 1 ? copy_slots(slots_of(made), from, count)
                       : copy_strided(slots_of(made), 1, from, step, count);
    if (rc < 0)
        Py_CLEAR(made);
    return made;
}

static int set_slice_from(PyObject *array, Py_ssize_t start, Py_ssize_t step, Py_ssize_t count, PyObject *value)
{
    bool is_array = Py_IS_TYPE(value, &pa_refarray_type);
    const pa_layout *element = element_of(array);
    if (is_array && length_of(value) == count &&
        (element == NULL || (element_of(value) != NULL && pa_layout_is(element_of(value), element))) &&
        (step == 1 || slots_of(value) != slots_of(array))) {
        void **to = slots_of(array) + start;
        return step == 1 ? copy_slots(to, slots_of(value), count)
                         : copy_strided(to, step, slots_of(value), 1, count);
    }
    PyObject *tuple = PySequence_Tuple(value);
    if (tuple == NULL)
        return -1;
    int rc = -1;
    if (PyTuple_GET_SIZE(tuple) == count)
        rc = store_tuple(array, slots_of(array) + start, step, tuple);
    else
        PyErr_Format(PyExc_ValueError, "a RefArray keeps its length: %zd items cannot take the place of %zd",
                     PyTuple_GET_SIZE(tuple), count);
    Py_DECREF(tuple);
    return rc;
}

static int set_slice(PyObject *array, PyObject *slice, PyObject *value)
{
    Py_ssize_t start, stop, step;
    if (PySlice_Unpack(slice, &start, &stop, &step) < 0)
        return -1;
    Py_ssize_t count = PySlice_AdjustIndices(length_of(array), &start, &stop, step);
    return set_slice_from(array, count == 0 ? 0 : start, step, count, value);
}

/* ---- The object ------------------------------------------------------------------------------- */

static PyObject *refarray_subscript(PyObject *array, PyObject *key)
{
    Py_ssize_t index;
    if (PySlice_Check(key))
        return get_slice(array, key);
    return read_index(array, key, &index) < 0 ? NULL : refarray_item(array, index);
}

static int refarray_assign(PyObject *array, PyObject *key, PyObject *value)
{
    Py_ssize_t index;
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "items of a RefArray cannot be deleted: assign None");
        return -1;
    }
    if (PySlice_Check(key))
        return set_slice(array, key, value);
    return read_index(array, key, &index) < 0 ? -1 : set_item(array, index, value);
}

static int refarray_contains(PyObject *array, PyObject *value)
{
    if (value != Py_None && !pa_managed_check(value))
        return 0;
    const void *wanted = value == Py_None ? NULL : pa_managed_object(value);
    void **slots = slots_of(array);
    for (Py_ssize_t i = 0; i < length_of(array); i++) {
        if (__atomic_load_n(slots + i, __ATOMIC_RELAXED) == wanted)
            return 1;           /* compared, never followed: no need to be inside */
    }
    return 0;
}

static PyObject *refarray_fill(PyObject *array, PyObject *value)
{
    void *object;
    if (item_address(array, value, &object) < 0 || !pa_inside_enter())
        return NULL;
    void **slots = slots_of(array);
    for (Py_ssize_t i = 0; i < length_of(array); i++) {
        pa_store(slots + i, object);
        if (i % STEP_ITEMS == STEP_ITEMS - 1 && !pa_inside_poll())
            return NULL;
    }
    pa_inside_leave();
    Py_RETURN_NONE;
}

static PyObject *refarray_repr(PyObject *array)
{
    const pa_layout *element = element_of(array);
    return PyUnicode_FromFormat("<pyalloc.RefArray of %zd %s at %p>", length_of(array),
                                element != NULL ? element->python_type->tp_name : "references",
                                pa_managed_object(array));
}

static PyObject *get_type(PyObject *array, void *unused)
{
    (void)unused;
    const pa_layout *element = element_of(array);
    PyObject *type = element != NULL ? (PyObject *)element->python_type : Py_None;
    Py_INCREF(type);
    return type;
}

static PyMethodDef refarray_methods[] = {
    {"fill", refarray_fill, METH_O, refarray_fill_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef refarray_getset[] = {
    {"type", get_type, NULL, "The class that items must have, or None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PySequenceMethods refarray_as_sequence = {
    .sq_length = length_of,
    .sq_item = refarray_item,
    .sq_contains = refarray_contains,
};

static PyMappingMethods refarray_as_mapping = {
    .mp_length = length_of,
    .mp_subscript = refarray_subscript,
    .mp_ass_subscript = refarray_assign,
};

PyTypeObject pa_refarray_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pyalloc.RefArray",
    .tp_doc = refarray_doc,
    .tp_basicsize = sizeof(pa_managed),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_base = &pa_managed_type,
    .tp_repr = refarray_repr,
    .tp_iter = PySeqIter_New,
    .tp_methods = refarray_methods,
    .tp_getset = refarray_getset,
    .tp_as_sequence = &refarray_as_sequence,
    .tp_as_mapping = &refarray_as_mapping,
};
