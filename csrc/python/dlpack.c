/* dlpack.c - a Buffer as a DLPack tensor: uint8, one dimension, CPU, writable, no copy.
 *
 * It owns the export blocks: each holds the tensor, its shape and stride, and one hold on the
 * Buffer's pa_share.  A consumer calls the deleter whenever it likes, on any thread, with or without
 * the GIL, even after Py_Finalize; so the deleter frees with pa_free alone and the memory lives until
 * the last of Buffer and consumers lets go.  While a consumer holds the memory, Buffer.free() and
 * Buffer.resize() raise BufferError.
 *
 * A capsule that nobody took is destroyed by Python and calls the deleter itself; a consumer renames
 * the capsule ("used_dltensor") and then the deleter is the consumer's.
 *
 * Locks: the GIL for everything but the deleters, which need none (see share.h).
 */
#include "python/dlpack.h"

#include <string.h>

#include "python/buffer.h"

static const char unversioned_name[] = "dltensor";
static const char versioned_name[] = "dltensor_versioned";

/* One export.  Only one of the two tensors is used; manager_ctx points back here. */
typedef struct dlpack_block {
    union {
        DLManagedTensor unversioned;
        DLManagedTensorVersioned versioned;
    } tensor;
    int64_t shape;
    int64_t stride;
    pa_share *share;
} dlpack_block;

static void block_free(dlpack_block *block)
{
    pa_share_release(block->share);
    pa_free(block);
}

static void unversioned_deleter(DLManagedTensor *self)
{
    block_free(self->manager_ctx);
}

static void versioned_deleter(DLManagedTensorVersioned *self)
{
    block_free(self->manager_ctx);
}

static void capsule_destroy(PyObject *capsule)
{
    if (PyCapsule_IsValid(capsule, unversioned_name)) {
        DLManagedTensor *tensor = PyCapsule_GetPointer(capsule, unversioned_name);
        tensor->deleter(tensor);
    } else if (PyCapsule_IsValid(capsule, versioned_name)) {
        DLManagedTensorVersioned *tensor = PyCapsule_GetPointer(capsule, versioned_name);
        tensor->deleter(tensor);
    }
}

/* What __dlpack__ was asked for. */
typedef struct dlpack_request {
    bool versioned;
    bool copy;
} dlpack_request;

/* A pair of ints, or None: 0 = None, 1 = pair, -1 = exception. */
static int read_pair(PyObject *arg, const char *name, long pair[2])
{
    if (arg == Py_None)
        return 0;
    if (!PyTuple_Check(arg) || PyTuple_GET_SIZE(arg) != 2) {
        PyErr_Format(PyExc_TypeError, "%s must be None or a tuple of two integers", name);
        return -1;
    }
    for (int i = 0; i < 2; i++) {
        PyObject *item = PyNumber_Index(PyTuple_GET_ITEM(arg, i));
        if (item == NULL)
            return -1;
        pair[i] = PyLong_AsLong(item);
        Py_DECREF(item);
        if (pair[i] == -1 && PyErr_Occurred())
            return -1;
    }
    return 1;
}

static int read_request(PyObject *const *values, PyObject *kwnames, dlpack_request *request)
{
    for (Py_ssize_t i = 0; kwnames != NULL && i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        PyObject *value = values[i];
        long pair[2];
        if (pa_args_is(name, "stream")) {
            if (value != Py_None) {
                PyErr_SetString(PyExc_ValueError, "stream must be None: a Buffer is memory of the CPU");
                return -1;
            }
        } else if (pa_args_is(name, "max_version")) {
            int is_pair = read_pair(value, "max_version", pair);
            if (is_pair < 0)
                return -1;
            request->versioned = is_pair && pair[0] >= 1;
        } else if (pa_args_is(name, "dl_device")) {
            int is_pair = read_pair(value, "dl_device", pair);
            if (is_pair < 0)
                return -1;
            if (is_pair && (pair[0] != PA_DL_CPU || pair[1] != 0)) {
                PyErr_Format(PyExc_BufferError, "a Buffer is on device (1, 0), the CPU, not on (%ld, %ld)",
                             pair[0], pair[1]);
                return -1;
            }
        } else if (pa_args_is(name, "copy")) {
            int truth = value == Py_None ? 0 : PyObject_IsTrue(value);
            if (truth < 0)
                return -1;
            request->copy = truth;
        } else {
            return pa_args_unknown("__dlpack__", name);
        }
    }
    return 0;
}

/* A hold on the memory to export: the Buffer's own, or that of a fresh copy. */
static pa_share *share_for(pa_buffer *buffer, bool copy)
{
    if (copy) {
        size_t block_bytes = buffer->nbytes < PA_TINY_BYTES ? PA_TINY_BYTES : (size_t)buffer->nbytes;
        void *data = pa_malloc(block_bytes);
        if (data == NULL)
            return NULL;
        memcpy(data, buffer->data, (size_t)buffer->nbytes);
        pa_share *share = pa_share_new(data, false);
        if (share == NULL)
            pa_free(data);
        return share;
    }
    if (buffer->share == NULL)
        buffer->share = pa_share_new(buffer->data, buffer->traced);
    if (buffer->share != NULL)
        pa_share_hold(buffer->share);
    return buffer->share;
}

static PyObject *make_capsule(dlpack_block *block, Py_ssize_t nbytes, dlpack_request request)
{
    block->shape = nbytes;
    block->stride = 1;
    DLTensor tensor = {
        .data = block->share->data,
        .device = {PA_DL_CPU, 0},
        .ndim = 1,
        .dtype = {PA_DL_UINT, 8, 1},
        .shape = &block->shape,
        .strides = &block->stride,
        .byte_offset = 0,
    };
    if (request.versioned) {
        block->tensor.versioned = (DLManagedTensorVersioned){
            .version = {1, 0},
            .manager_ctx = block,
            .deleter = versioned_deleter,
            .flags = request.copy ? PA_DL_FLAG_IS_COPIED : 0,
            .dl_tensor = tensor,
        };
        return PyCapsule_New(&block->tensor.versioned, versioned_name, capsule_destroy);
    }
    block->tensor.unversioned = (DLManagedTensor){
        .dl_tensor = tensor,
        .manager_ctx = block,
        .deleter = unversioned_deleter,
    };
    return PyCapsule_New(&block->tensor.unversioned, unversioned_name, capsule_destroy);
}

PyObject *pa_dlpack_export(PyObject *self, PyObject *const *args, Py_ssize_t positional, PyObject *kwnames)
{
    pa_buffer *buffer = (pa_buffer *)self;
    dlpack_request request = {false, false};
    if (positional > 0) {
        PyErr_SetString(PyExc_TypeError, "__dlpack__() takes keyword arguments only");
        return NULL;
    }
    if (read_request(args, kwnames, &request) < 0)
        return NULL;
    if (buffer->data == NULL) {
        PyErr_SetString(PyExc_ValueError, "operation on a freed Buffer");
        return NULL;
    }
    dlpack_block *block = pa_malloc(sizeof *block);
    if (block == NULL || (block->share = share_for(buffer, request.copy)) == NULL) {
        pa_free(block);
        PyErr_SetString(pa_out_of_memory_error, "cannot allocate a DLPack export");
        return NULL;
    }
    PyObject *capsule = make_capsule(block, buffer->nbytes, request);
    if (capsule == NULL)
        block_free(block);
    return capsule;
}

PyObject *pa_dlpack_device(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return Py_BuildValue("(ii)", PA_DL_CPU, 0);
}
