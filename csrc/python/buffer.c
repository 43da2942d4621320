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
 * Locks: the GIL, for every field.  It is let go only while GIL_FREE_BYTES or more are zeroed.  In
 * alloc() no Buffer exists yet; in resize() exports is raised meanwhile, so that nobody frees or
 * resizes, and views taken meanwhile are looked for afterwards.
 *
 * Speed is the other point: create + drop has to beat bytearray by two.  Hence a plain struct without
 * the cycle collector's header (a Buffer refers to nothing), arguments parsed by hand (args.c), a
 * dealloc that goes straight to pa_free, and a short list of dead Buffers kept for reuse, as CPython
 * does for floats: at most FREE_LIST_MAX of them, emptied with the module.
 */
#include "python/buffer.h"

#include <string.h>

enum { FREE_LIST_MAX = 128, MIN_ALIGN_SHIFT = 4 };

/* Zeroing this much takes about as long as the interpreter's switch interval (5 ms), which is what a
 * busy process may wait to get the GIL back; below, letting it go costs more than it gives. */
#define GIL_FREE_BYTES ((Py_ssize_t)(16 * PA_MIB))
/* From here on a zeroed block that at least doubles is taken fresh from calloc, which knows pages
 * that are zero already, instead of being resized and wiped. */
#define CALLOC_GROWTH_BYTES ((Py_ssize_t)PA_MIB)

static pa_buffer *free_list;
static int free_list_count;

/* ---- Blocks --------------------------------------------------------------------------------- */

/* pa_malloc aligns blocks of up to 8 bytes to 8 only; Buffers promise 16. */
static size_t block_bytes(Py_ssize_t nbytes)
{
    return nbytes < PA_TINY_BYTES ? PA_TINY_BYTES : (size_t)nbytes;
}

static void *block_new_aligned(Py_ssize_t nbytes, int align_shift, bool zero)
{
    size_t align_bytes = (size_t)1 << align_shift;
    if (zero && (size_t)nbytes > PA_SMALL_MAX_BYTES && align_bytes <= PA_PAGE_BYTES) {
        void *pages = pa_calloc(1, (size_t)nbytes);     /* a large object, in general on a page boundary */
        if (pages == NULL || (uintptr_t)pages % align_bytes == 0)
            return pages;
        pa_free(pages);
    }
    void *data = pa_memalign(align_bytes, block_bytes(nbytes));
    if (data != NULL && zero)
        memset(data, 0, (size_t)nbytes);
    return data;
}

static inline void *block_new_held(Py_ssize_t nbytes, int align_shift, bool zero)
{
    if (PA_UNLIKELY(align_shift > MIN_ALIGN_SHIFT))
        return block_new_aligned(nbytes, align_shift, zero);
    return zero ? pa_calloc(1, block_bytes(nbytes)) : pa_malloc(block_bytes(nbytes));
}

static PyObject *set_out_of_memory(Py_ssize_t nbytes)
{
    PyErr_Format(pa_out_of_memory_error, "cannot allocate %zd bytes", nbytes);
    return NULL;
}

/* NULL with OutOfMemoryError.  May let the GIL go. */
static inline void *block_new(Py_ssize_t nbytes, int align_shift, bool zero)
{
    void *data;
    if (PA_UNLIKELY(zero && nbytes >= GIL_FREE_BYTES)) {
        Py_BEGIN_ALLOW_THREADS
        data = block_new_held(nbytes, align_shift, zero);
        Py_END_ALLOW_THREADS
    } else {
        data = block_new_held(nbytes, align_shift, zero);
    }
    if (PA_UNLIKELY(data == NULL))
        set_out_of_memory(nbytes);
    return data;
}

/* ---- Life and death of the object ------------------------------------------------------------- */

static inline PyObject *buffer_new(Py_ssize_t nbytes, int align_shift, bool zero)
{
    void *data = block_new(nbytes, align_shift, zero);
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
    return (PyObject *)self;
}

/* The block goes back; the caller has made sure that nobody uses it, or leaves it to the share. */
static inline void buffer_release(pa_buffer *self)
{
    if (PA_UNLIKELY(self->share != NULL))
        pa_share_release(self->share);
    else
        pa_free(self->data);
    self->data = NULL;
    self->share = NULL;
    self->nbytes = 0;
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
    *align_shift = shift < MIN_ALIGN_SHIFT ? MIN_ALIGN_SHIFT : shift;
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
    int align_shift = MIN_ALIGN_SHIFT;
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
    return buffer_new(nbytes, MIN_ALIGN_SHIFT, false);
}

PyDoc_STRVAR(alloc_doc,
"alloc($module, /, nbytes, *, zero=True, align=16)\n--\n\n"
"A new Buffer of nbytes bytes, zeroed unless zero is false.\n\n"
"The address is a multiple of align, a power of two; less than 16 means 16.\n"
"Pages that come fresh from the operating system are known to be zero and are\n"
"not touched, so a large zeroed Buffer costs memory only where it is used.\n\n"
"Raises ValueError (nbytes negative, align not a power of two), OverflowError\n"
"(nbytes does not fit Py_ssize_t) and OutOfMemoryError.  Any thread may call it;\n"
"the GIL is let go while 16 MiB or more are zeroed.\n\n"
"Go counterpart: make([]byte, n), without its garbage collection.");

PyDoc_STRVAR(empty_doc,
"empty($module, /, nbytes)\n--\n\n"
"A new Buffer of nbytes bytes with undefined contents, aligned to 16 bytes.\n\n"
"The contents are those of memory freed before in this process: write before\n"
"you read, or send, them.\n\n"
"Raises ValueError (nbytes negative), OverflowError (nbytes does not fit\n"
"Py_ssize_t) and OutOfMemoryError.  Any thread may call it.\n\n"
"Go counterpart: runtime.mallocgc(n, nil, false), without its garbage collection.");

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
                 "cannot %s a Buffer that is exported: a memoryview, an array or another consumer still uses it", verb);
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
    self->exports++;            /* block_new may let the GIL go */
    void *data = block_new(nbytes, self->align_shift, self->zeroed);
    self->exports--;
    if (data == NULL)
        return -1;
    if (check_exclusive(self, "resize") < 0) {      /* a view was taken meanwhile */
        pa_free(data);
        return -1;
    }
    memcpy(data, self->data, (size_t)(self->nbytes < nbytes ? self->nbytes : nbytes));
    buffer_release(self);
    self->data = data;
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
    if (self->align_shift == MIN_ALIGN_SHIFT) {
        void *data = pa_realloc(self->data, block_bytes(nbytes));
        if (data == NULL) {
            set_out_of_memory(nbytes);
            return -1;
        }
        self->data = data;
    }
    Py_ssize_t tail = nbytes - self->nbytes;
    if (self->zeroed && tail > 0) {
        char *start = (char *)self->data + self->nbytes;
        if (tail >= GIL_FREE_BYTES) {
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
    if (self->align_shift == MIN_ALIGN_SHIFT)
        return false;
    size_t usable_bytes = pa_usable_size(self->data);       /* pa_realloc would lose the alignment */
    return (size_t)nbytes > usable_bytes || (size_t)nbytes < usable_bytes / 2;
}

static PyObject *buffer_resize(PyObject *object, PyObject *const *args, Py_ssize_t positional, PyObject *kwnames)
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
    if (pa_args_size(size, "nbytes", &nbytes) < 0 || check_alive(self) < 0 || check_exclusive(self, "resize") < 0)
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
    PyErr_SetString(PyExc_TypeError, "cannot pickle or copy a pyalloc.Buffer: pass bytes(buf), which copies the contents");
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
    {"nbytes", get_nbytes, NULL, "Length in bytes, as asked for; same as len().  ValueError after free().", NULL},
    {"usable_size", get_usable_size, NULL,
     "Bytes of the block behind the Buffer, >= nbytes: resize() up to here moves nothing.  ValueError after free().",
     NULL},
    {"address", get_address, NULL,
     "Address of the first byte, for ctypes or cffi.  ValueError after free(); an address kept past that dangles.",
     NULL},
    {"freed", get_freed, NULL, "True once free() has given the memory back.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(free_doc,
"free($self, /)\n--\n\n"
"Gives the memory back now; the second call does nothing.\n\n"
"Raises BufferError while the Buffer is exported (memoryview, NumPy array, DLPack\n"
"consumer).  Afterwards everything but freed, repr() and bool() raises ValueError.\n"
"A Buffer that is dropped frees itself.  Go counterpart: none; Go collects.");

PyDoc_STRVAR(resize_doc,
"resize($self, /, nbytes)\n--\n\n"
"Changes the length to nbytes bytes, in place where the block allows it.\n\n"
"The first min(old, new) bytes stay.  New bytes are zero when the Buffer was made\n"
"zeroed, undefined when it was not (empty(), zero=False).  The address may change;\n"
"its alignment stays.\n\n"
"Raises ValueError (nbytes negative, Buffer freed), OverflowError, BufferError\n"
"(exported) and OutOfMemoryError; the Buffer is then as it was before.\n"
"Go counterpart: append() or slices.Grow.");

PyDoc_STRVAR(enter_doc, "__enter__($self, /)\n--\n\nThe Buffer itself; ValueError when it is freed.");
PyDoc_STRVAR(exit_doc, "__exit__($self, /, *args)\n--\n\nCalls free(), and so raises BufferError while exported.");
PyDoc_STRVAR(sizeof_doc, "__sizeof__($self, /)\n--\n\nBytes of the object and of the block behind it.");
PyDoc_STRVAR(reduce_doc, "__reduce__($self, /)\n--\n\nRefuses with TypeError: pickle bytes(buf) instead.");
PyDoc_STRVAR(reduce_ex_doc, "__reduce_ex__($self, protocol, /)\n--\n\nRefuses with TypeError: pickle bytes(buf) instead.");
PyDoc_STRVAR(dlpack_doc,
"__dlpack__($self, /, *, stream=None, max_version=None, dl_device=None, copy=None)\n--\n\n"
"A DLPack capsule over the memory (uint8, one dimension, CPU) without a copy.\n\n"
"The memory stays until the consumer drops its tensor, on whatever thread, even\n"
"when the Buffer is gone; free() and resize() raise BufferError until then.  With\n"
"copy=True the capsule holds a copy.  Raises ValueError (freed, stream not None),\n"
"BufferError (another device) and OutOfMemoryError.");
PyDoc_STRVAR(dlpack_device_doc, "__dlpack_device__($self, /)\n--\n\n(1, 0): memory of the CPU.");

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

PyDoc_STRVAR(buffer_doc,
"Raw memory outside the Python heap; made by alloc() and empty().\n\n"
"Supports the buffer protocol (writable, one dimension, format 'B'): memoryview(buf),\n"
"numpy.frombuffer(buf), sock.recv_into(buf), file.readinto(buf) use the memory\n"
"without a copy, and DLPack does too.  Index and slice through memoryview(buf).\n"
"True when it holds at least one byte.  Equality is identity.\n\n"
"Freed when the last reference goes, by free(), or at the end of a with block;\n"
"never while it is exported.  Methods may be called from any thread that holds the\n"
"GIL; the bytes are not locked.");

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
