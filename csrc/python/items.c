/* items.c - makes managed arrays and bytes: two objects, the one that Python names and the one with the items.
 *
 * The first has the class id that every object needs that Python can name; in the items there is no room for
 * one, since a pointer array holds pointers only, and bytes should start where the size class starts.  The
 * price is 24 bytes and a second allocation.  The items are reachable from the first object and from nowhere
 * else, so a reference to it keeps both.
 *
 * Between the two allocations the first object has a handle: the second may collect.
 *
 * No state; locks: the GIL, which is let go for large ones and where the collector wants something
 * that takes time (no Python is used meanwhile).  Go counterpart: a
 * slice header and its array, makeslice.
 */
#include "python/items.h"

#include <errno.h>

#include "python/managed_doc.h"

static const pa_type *items_type;

static void *new_items(uint32_t class_id, size_t length, bool trying)
{
    if (class_id == PA_CLASS_BYTES)
        return trying ? pa_try_new_bytes(length) : pa_new_bytes(length);
    return trying ? pa_try_new_pointers(length) : pa_new_pointers(length);
}

/* Inside.  NULL with ENOMEM; trying: or with EAGAIN, nothing was made and one has to wait without the GIL. */
static pa_handle *make_inside(uint32_t class_id, uint32_t element_id, size_t length, bool trying, pa_items **out)
{
    pa_items *made = trying ? pa_try_new(items_type) : pa_new(items_type);
    if (made == NULL)
        return NULL;
    made->class_id = class_id;
    made->element_id = element_id;
    pa_handle *handle = pa_handle_new(made);
    *out = made;
    if (handle == NULL || length == 0)
        return handle;
    void *items = new_items(class_id, length, trying);
    if (items == NULL) {
        int saved_errno = errno;
        pa_handle_free(handle);
        errno = saved_errno;
        return NULL;
    }
    made->length = length;
    pa_store(&made->items, items);
    return handle;
}

static pa_handle *make_without_gil(uint32_t class_id, uint32_t element_id, size_t length, pa_items **out)
{
    pa_handle *handle = NULL;
    Py_BEGIN_ALLOW_THREADS
    if (pa_enter()) {
        pa_settle();
        handle = make_inside(class_id, element_id, length, false, out);
        pa_leave();
    }
    Py_END_ALLOW_THREADS
    return handle;
}

PyObject *pa_items_new(uint32_t class_id, uint32_t element_id, Py_ssize_t length)
{
    size_t item_bytes = class_id == PA_CLASS_BYTES ? 1 : sizeof(void *);
    if ((size_t)length > (size_t)PY_SSIZE_T_MAX / item_bytes)
        return pa_managed_set_out_of_memory("items", SIZE_MAX);
    size_t nbytes = (size_t)length * item_bytes;
    pa_managed *blank = pa_managed_blank();
    if (blank == NULL)
        return NULL;
    pa_items *made = NULL;
    pa_handle *handle = NULL;
    bool alone = nbytes >= PA_ITEMS_GIL_FREE_BYTES;
    if (!alone) {
        if (!pa_inside_enter()) {
            pa_managed_drop_blank(blank);
            return NULL;
        }
        handle = make_inside(class_id, element_id, (size_t)length, true, &made);
        alone = handle == NULL && errno == EAGAIN;
        pa_inside_leave();
    }
    if (alone)
        handle = make_without_gil(class_id, element_id, (size_t)length, &made);
    if (PA_LIKELY(handle != NULL))
        return pa_managed_finish(blank, made, handle, true);
    pa_managed_drop_blank(blank);
    return pa_managed_set_out_of_memory("items", nbytes);
}

PyMethodDef pa_items_methods[] = {
    {"ref_array", (PyCFunction)(void (*)(void))pa_refarray_make, METH_FASTCALL | METH_KEYWORDS, ref_array_doc},
    {"managed_bytes", pa_bytes_make, METH_O, managed_bytes_doc},
    {NULL, NULL, 0, NULL},
};

int pa_items_init(void)
{
    static pa_layout layouts[] = {
        {.nbytes = sizeof(pa_items), .python_type = &pa_refarray_type},
        {.nbytes = sizeof(pa_items), .python_type = &pa_bytes_type},
    };
    if (PyType_Ready(&pa_refarray_type) < 0 || PyType_Ready(&pa_bytes_type) < 0)
        return -1;
    if (items_type != NULL)
        return 0;
    size_t offset = offsetof(pa_items, items);
    items_type = pa_type_new(sizeof(pa_items), &offset, 1);
    if (items_type == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return pa_layout_register(&layouts[0]) < 0 || pa_layout_register(&layouts[1]) < 0 ? -1 : 0;
}
