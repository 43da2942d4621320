/* buffer.c - pyalloc.Buffer, alloc() and empty().
 *
 * A Buffer owns one block of the malloc family and hands it out through the buffer protocol and, in
 * dlpack.c, through DLPack.  Its promise is that no Python code can use memory after it was freed:
 *
 *   1. A view holds a reference to the Buffer, so the block outlives every view.
 *   2. free() and resize() refuse with BufferError while exports > 0 or a DLPack consumer holds the
 *      share; both counts can only grow through this object, under the GIL.
 *   3. After free() data is NULL and every way to the memory raises ValueError.
 *
 * tracemalloc is told of every block (traced.h).
 *
 * Locks: the GIL, for every field.  It is let go only while PA_BLOCK_GIL_FREE_BYTES or more are zeroed.
 * In alloc() no Buffer exists yet; in resize() exports is raised meanwhile, so that nobody frees or
 * resizes, and views taken meanwhile are looked for afterwards.
 *
 * Speed is the other point: create + drop has to beat bytearray by two.  Hence a plain struct without
 * the cycle collector's header (a Buffer refers to nothing), arguments parsed by hand (args.c), a
 * dealloc that goes straight to pa_free, and a short list of dead Buffers kept for reuse, as CPython
 * does for floats: at most FREE_LIST_MAX of them, emptied with the module.
 */
#include "python/buffer.h"

#include <string.h>

#include "python/block.h"
#include "python/buffer_doc.h"
#include "python/sites.h"
#include "python/traced.h"

enum { FREE_LIST_MAX = 128 };

/* From here on a zeroed block that at least doubles is taken fresh from calloc, which knows pages
 * that are zero already, instead of being resized and wiped. */
#define CALLOC_GROWTH_BYTES ((Py_ssize_t)PA_MIB)

static pa_buffer *free_list;
static int free_list_count;

/* ---- Life and death of the object ------------------------------------------------------------- */

static inline PyObject *buffer_new(Py_ssize_t nbytes, int align_shift, bool zero)
{
    void *data = pa_block_new(nbytes, align_shift, zero);
    if (PA_UNLIKELY(data == NULL))
        return NULL;
    pa_buffer *self = free_list;
    if (PA_LIKELY(self != NULL)) {
        free_list = self->data;
        free_list_count--;
        PyObject_Init((PyObject *)self, &pa_buffer_type);
    } else {
        self = PyObject_New(pa_buffer, &pa_buffer_type);
        if (self == NULL) {
            pa_free(data);
            return NULL;
        }
    }
    self->data = data;
    self->nbytes = nbytes;
    self->exports = 0;
    self->share = NULL;
    self->weakrefs = NULL;
    self->align_shift = (uint8_t)align_shift;
    self->zeroed = zero;
    self->traced = PA_UNLIKELY(pa_traced_is_on()) && pa_traced_add(data, nbytes);
    pa_sites_note((PyObject *)self, false);
    return (PyObject *)self;
}

/* The block goes back; the caller has made sure that nobody uses it, or leaves it to the share. */
static inline void buffer_release(pa_buffer *self)
{
    if (PA_UNLIKELY(self->share != NULL)) {
        pa_share_release(self->share);
    } else {
        if (PA_UNLIKELY(self->traced))
            pa_traced_remove(self->data);
        pa_free(self->data);
    }
    self->data = NULL;
    self->share = NULL;
    self->nbytes = 0;
    self->traced = false;
}

/* The block is data, of nbytes, from now on; the old one is gone, or the same.  At once, before the GIL is let go and
 * another Buffer may get the old address. */
static void take_block(pa_buffer *self, void *data, Py_ssize_t nbytes)
{
    if (self->traced && data != self->data)
        pa_traced_remove(self->data);
    self->data = data;
    self->traced = pa_traced_is_on() && pa_traced_add(data, nbytes);
}

static void buffer_dealloc(PyObject *object)
{
    pa_buffer *self = (pa_buffer *)object;
    if (PA_UNLIKELY(self->weakrefs != NULL))
        PyObject_ClearWeakRefs(object);
    buffer_release(self);
    if (PA_LIKELY(free_list_count < FREE_LIST_MAX)) {
        self->data = free_list;
        free_list = self;
        free_list_count++;
    } else {
        PyObject_Free(self);
    }
}

void pa_buffer_drop_free_list(void)
{
    while (free_list != NULL) {
        pa_buffer *next = free_list->data;
        PyObject_Free(free_list);
        free_list = next;
    }
    free_list_count = 0;
}

const void *pa_buffer_address(PyObject *self)
{
    return ((pa_buffer *)self)->data;
}

/* ---- Module functions ------------------------------------------------------------------------- */

static int read_align(PyObject *arg, int *align_shift)
{
    Py_ssize_t align;
    if (pa_args_size(arg, "align", &align) < 0)
        return -1;
    if (align == 0 || (align & (align - 1)) != 0) {
        PyErr_Format(PyExc_ValueError, "align must be a power of two, not %zd", align);
        return -1;
    }
    int shift = __builtin_ctzll((unsigned long long)align);
    *align_shift = shift < PA_BLOCK_ALIGN_SHIFT ? PA_BLOCK_ALIGN_SHIFT : shift;
    return 0;
}

static int read_alloc_keywords(PyObject *const *values, PyObject *kwnames, bool *zero, int *align_shift)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        if (pa_args_is(name, "zero")) {
            int truth = PyObject_IsTrue(values[i]);
            if (truth < 0)
                return -1;
            *zero = truth;
        } else if (pa_args_is(name, "align")) {
            if (read_align(values[i], align_shift) < 0)
                return -1;
        } else if (!pa_args_is(name, "nbytes")) {
            return pa_args_unknown("alloc", name);
        }
    }
    return 0;
}

static PyObject *py_alloc(PyObject *module, PyObject *const *args, Py_ssize_t positional, PyObject *kwnames)
{
    (void)module;
    Py_ssize_t nbytes;
    bool zero = true;
    int align_shift = PA_BLOCK_ALIGN_SHIFT;
    PyObject *size = args[0];
    if (PA_UNLIKELY(positional != 1 || kwnames != NULL)) {
        size = pa_args_first("alloc", "nbytes", args, positional, kwnames);
        if (size == NULL)
            return NULL;
        if (kwnames != NULL && read_alloc_keywords(args + positional, kwnames, &zero, &align_shift) < 0)
            return NULL;
    }
    if (pa_args_size(size, "nbytes", &nbytes) < 0)
        return NULL;
    return buffer_new(nbytes, align_shift, zero);
}

static PyObject *py_empty(PyObject *module, PyObject *const *args, Py_ssize_t positional, PyObject *kwnames)
{
    (void)module;
    Py_ssize_t nbytes;
    PyObject *size = args[0];
    if (PA_UNLIKELY(positional != 1 || kwnames != NULL)) {
        size = pa_args_first("empty", "nbytes", args, positional, kwnames);
        if (size == NULL)
            return NULL;
        for (Py_ssize_t i = 0; kwnames != NULL && i < PyTuple_GET_SIZE(kwnames); i++) {
            PyObject *name = PyTuple_GET_ITEM(kwnames, i);
            if (!pa_args_is(name, "nbytes")) {
                pa_args_unknown("empty", name);
                return NULL;
            }
        }
    }
    if (pa_args_size(size, "nbytes", &nbytes) < 0)
        return NULL;
    return buffer_new(nbytes, PA_BLOCK_ALIGN_SHIFT, false);
}

PyMethodDef pa_buffer_methods[] = {
    {"alloc", (PyCFunction)(void (*)(void))py_alloc, METH_FASTCALL | METH_KEYWORDS, alloc_doc},
    {"empty", (PyCFunction)(void (*)(void))py_empty, METH_FASTCALL | METH_KEYWORDS, empty_doc},
    {NULL, NULL, 0, NULL},
};

/* ---- Guards ----------------------------------------------------------------------------------- */

static int check_alive(pa_buffer *self)
{
    if (PA_LIKELY(self->data != NULL))
        return 0;
    PyErr_SetString(PyExc_ValueError, "operation on a freed Buffer");
    return -1;
}

/* BufferError while anybody but this object can reach the memory. */
static int check_exclusive(pa_buffer *self, const char *verb)
{
    if (PA_LIKELY(self->exports == 0 && (self->share == NULL || pa_share_is_mine(self->share))))
        return 0;
    PyErr_Format(PyExc_BufferError,
                 "cannot %s a Buffer that is exported: a memoryview, an array or another consumer still "
                 "uses it", verb);
    return -1;
}

/* ---- Buffer protocol -------------------------------------------------------------------------- */

static int buffer_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
    pa_buffer *self = (pa_buffer *)object;
    if (check_alive(self) < 0) {
        view->obj = NULL;
        return -1;
    }
    if (PyBuffer_FillInfo(view, object, self->data, self->nbytes, 0, flags) < 0)
        return -1;
    self->exports++;
    return 0;
}

static void buffer_releasebuffer(PyObject *object, Py_buffer *view)
{
    (void)view;
    ((pa_buffer *)object)->exports--;
}

static PyBufferProcs buffer_as_buffer = {buffer_getbuffer, buffer_releasebuffer};

/* ---- free and resize -------------------------------------------------------------------------- */

static PyObject *buffer_free(PyObject *object, PyObject *unused)
{
    (void)unused;
    pa_buffer *self = (pa_buffer *)object;
    if (self->data != NULL) {
        if (check_exclusive(self, "free") < 0)
            return NULL;
        buffer_release(self);
    }
    Py_RETURN_NONE;
}

/* Another block with the old contents. */
static int resize_by_copy(pa_buffer *self, Py_ssize_t nbytes)
{
    self->exports++;            /* pa_block_new may let the GIL go */
    void *data = pa_block_new(nbytes, self->align_shift, self->zeroed);
    self->exports--;
    if (data == NULL)
        return -1;
    if (check_exclusive(self, "resize") < 0) {      /* a view was taken meanwhile */
        pa_free(data);
        return -1;
    }
    memcpy(data, self->data, (size_t)(self->nbytes < nbytes ? self->nbytes : nbytes));
    buffer_release(self);
    take_block(self, data, nbytes);
    self->nbytes = nbytes;
    return 0;
}

/* The same block, or wherever pa_realloc moves it. */
static int resize_block(pa_buffer *self, Py_ssize_t nbytes)
{
    if (self->share != NULL) {      /* mine alone, and it names the old block */
        pa_free(self->share);
        self->share = NULL;
    }
    void *data = self->data;
    if (self->align_shift == PA_BLOCK_ALIGN_SHIFT)
        data = pa_realloc(data, pa_block_bytes(nbytes));
    if (data == NULL) {
        pa_block_set_out_of_memory(nbytes);
        return -1;
    }
    take_block(self, data, nbytes);
    Py_ssize_t tail = nbytes - self->nbytes;
    if (self->zeroed && tail > 0) {
        char *start = (char *)self->data + self->nbytes;
        if (tail >= PA_BLOCK_GIL_FREE_BYTES) {
            self->exports++;
            Py_BEGIN_ALLOW_THREADS
            memset(start, 0, (size_t)tail);
            Py_END_ALLOW_THREADS
            self->exports--;        /* views taken meanwhile see the old length: no harm */
        } else {
            memset(start, 0, (size_t)tail);
        }
    }
    self->nbytes = nbytes;
    return 0;
}

static bool resize_needs_copy(const pa_buffer *self, Py_ssize_t nbytes)
{
    if (self->zeroed && nbytes >= CALLOC_GROWTH_BYTES && nbytes / 2 >= self->nbytes)
        return true;
    if (self->align_shift == PA_BLOCK_ALIGN_SHIFT)
        return false;
    size_t usable_bytes = pa_usable_size(self->data);       /* pa_realloc would lose the alignment */
    return (size_t)nbytes > usable_bytes || (size_t)nbytes < usable_bytes / 2;
}

static PyObject *buffer_resize(PyObject *object, PyObject *const *args, Py_ssize_t positional,
                               PyObject *kwnames)
{
    pa_buffer *self = (pa_buffer *)object;
    Py_ssize_t nbytes;
    PyObject *size = pa_args_first("resize", "nbytes", args, positional, kwnames);
    if (size == NULL)
        return NULL;
    if (kwnames != NULL && PyTuple_GET_SIZE(kwnames) + positional > 1) {
        PyErr_SetString(PyExc_TypeError, "resize() takes one argument, nbytes");
        return NULL;
    }
    if (pa_args_size(size, "nbytes", &nbytes) < 0)
        return NULL;
    if (check_alive(self) < 0 || check_exclusive(self, "resize") < 0)      /* __index__ may have freed it */
        return NULL;
    int rc = resize_needs_copy(self, nbytes) ? resize_by_copy(self, nbytes) : resize_block(self, nbytes);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- The rest of the object ------------------------------------------------------------------- */

static PyObject *buffer_enter(PyObject *object, PyObject *unused)
{
    (void)unused;
    if (check_alive((pa_buffer *)object) < 0)
        return NULL;
    Py_INCREF(object);
    return object;
}

static PyObject *buffer_exit(PyObject *object, PyObject *args)
{
    (void)args;
    return buffer_free(object, NULL);
}

static PyObject *buffer_reduce(PyObject *object, PyObject *unused)
{
    (void)object;
    (void)unused;
    PyErr_SetString(PyExc_TypeError,
                    "cannot pickle or copy a pyalloc.Buffer: pass bytes(buf), which copies the contents");
    return NULL;
}

static PyObject *buffer_sizeof(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyLong_FromSize_t(sizeof(pa_buffer) + pa_usable_size(pa_buffer_address(object)));
}

static PyObject *buffer_repr(PyObject *object)
{
    pa_buffer *self = (pa_buffer *)object;
    if (self->data == NULL)
        return PyUnicode_FromString("<pyalloc.Buffer freed>");
    return PyUnicode_FromFormat("<pyalloc.Buffer of %zd bytes at %p>", self->nbytes, self->data);
}

static Py_ssize_t buffer_length(PyObject *object)
{
    pa_buffer *self = (pa_buffer *)object;
    return check_alive(self) < 0 ? -1 : self->nbytes;
}

static int buffer_bool(PyObject *object)
{
    return ((pa_buffer *)object)->nbytes != 0;
}

static PyObject *get_nbytes(PyObject *object, void *unused)
{
    (void)unused;
    pa_buffer *self = (pa_buffer *)object;
    return check_alive(self) < 0 ? NULL : PyLong_FromSsize_t(self->nbytes);
}

static PyObject *get_usable_size(PyObject *object, void *unused)
{
    (void)unused;
    pa_buffer *self = (pa_buffer *)object;
    return check_alive(self) < 0 ? NULL : PyLong_FromSize_t(pa_usable_size(self->data));
}

static PyObject *get_address(PyObject *object, void *unused)
{
    (void)unused;
    pa_buffer *self = (pa_buffer *)object;
    return check_alive(self) < 0 ? NULL : PyLong_FromVoidPtr(self->data);
}

static PyObject *get_freed(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((pa_buffer *)object)->data == NULL);
}

static PyGetSetDef buffer_getset[] = {
    {"nbytes", get_nbytes, NULL,
     "Length in bytes, as asked for; same as len().  ValueError after free().", NULL},
    {"usable_size", get_usable_size, NULL,
     "Bytes of the block behind the Buffer, >= nbytes: resize() up to here moves nothing.\n"
     "ValueError after free().", NULL},
    {"address", get_address, NULL,
     "Address of the first byte, for ctypes or cffi.  ValueError after free(); an address\n"
     "kept past that dangles.", NULL},
    {"freed", get_freed, NULL, "True once free() has given the memory back.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef buffer_methods[] = {
    {"free", buffer_free, METH_NOARGS, free_doc},
    {"resize", (PyCFunction)(void (*)(void))buffer_resize, METH_FASTCALL | METH_KEYWORDS, resize_doc},
    {"__enter__", buffer_enter, METH_NOARGS, enter_doc},
    {"__exit__", buffer_exit, METH_VARARGS, exit_doc},
    {"__sizeof__", buffer_sizeof, METH_NOARGS, sizeof_doc},
    {"__reduce__", buffer_reduce, METH_NOARGS, reduce_doc},
    {"__reduce_ex__", buffer_reduce, METH_O, reduce_ex_doc},
    {"__dlpack__", (PyCFunction)(void (*)(void))pa_dlpack_export, METH_FASTCALL | METH_KEYWORDS, dlpack_doc},
    {"__dlpack_device__", pa_dlpack_device, METH_NOARGS, dlpack_device_doc},
    {NULL, NULL, 0, NULL},
};

static PySequenceMethods buffer_as_sequence = {.sq_length = buffer_length};
static PyNumberMethods buffer_as_number = {.nb_bool = buffer_bool};

PyTypeObject pa_buffer_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pyalloc.Buffer",
    .tp_doc = buffer_doc,
    .tp_basicsize = sizeof(pa_buffer),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_dealloc = buffer_dealloc,
    .tp_repr = buffer_repr,
    .tp_as_buffer = &buffer_as_buffer,
    .tp_as_sequence = &buffer_as_sequence,
    .tp_as_number = &buffer_as_number,
    .tp_weaklistoffset = offsetof(pa_buffer, weakrefs),
    .tp_methods = buffer_methods,
    .tp_getset = buffer_getset,
};
