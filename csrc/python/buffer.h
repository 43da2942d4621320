/* buffer.h - pyalloc.Buffer: one raw block of memory, owned by one Python object. */
#ifndef PA_PYTHON_BUFFER_H
#define PA_PYTHON_BUFFER_H

#include "python/core.h"
#include "python/share.h"

/* All fields are guarded by the GIL.
 *
 *   freed  <=>  data == NULL  =>  nbytes == 0, exports == 0, share == NULL, !traced
 *   data belongs to share once there is one, else to the Buffer
 */
typedef struct pa_buffer {
    PyObject_HEAD
    void *data;            /* the block; NULL after free().  On the free list: the next Buffer */
    Py_ssize_t nbytes;     /* bytes that Python may see; the block may be larger */
    Py_ssize_t exports;    /* views through the buffer protocol, and resize() while it zeroes */
    pa_share *share;       /* made by the first __dlpack__, else NULL */
    PyObject *weakrefs;
    uint8_t align_shift;   /* the block is aligned to 1 << align_shift, >= 4 */
    bool zeroed;           /* bytes that resize() adds are zero */
    bool traced;           /* tracemalloc has a trace of data (or had, before it stopped) */
} pa_buffer;

extern PyTypeObject pa_buffer_type;

/* Module functions alloc() and empty(). */
extern PyMethodDef pa_buffer_methods[];

/* The address of the block, NULL when it is freed. */
const void *pa_buffer_address(PyObject *self);
/* Takes the Buffers kept for reuse back to Python's allocator; for the end of the module. */
void pa_buffer_drop_free_list(void);

/* dlpack.c: the methods __dlpack__ and __dlpack_device__. */
PyObject *pa_dlpack_export(PyObject *self, PyObject *const *args, Py_ssize_t positional, PyObject *kwnames);
PyObject *pa_dlpack_device(PyObject *self, PyObject *unused);

#endif
