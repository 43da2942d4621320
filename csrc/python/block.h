/* block.h - raw blocks for Buffers: malloc, calloc or memalign, and OutOfMemoryError when there is none.
 *
 * Inline, since create + drop of a Buffer is measured in nanoseconds; included by buffer.c alone.
 */
#ifndef PA_PYTHON_BLOCK_H
#define PA_PYTHON_BLOCK_H

#include <string.h>

#include "python/core.h"

enum { PA_BLOCK_ALIGN_SHIFT = 4 };      /* every block is aligned to 16 at least */

/* Zeroing this much takes about as long as the interpreter's switch interval (5 ms), which is what a
 * busy process may wait to get the GIL back; below, letting it go costs more than it gives. */
#define PA_BLOCK_GIL_FREE_BYTES ((Py_ssize_t)(16 * PA_MIB))

/* pa_malloc aligns blocks of up to 8 bytes to 8 only; Buffers promise 16. */
static inline size_t pa_block_bytes(Py_ssize_t nbytes)
{
    return nbytes < PA_TINY_BYTES ? PA_TINY_BYTES : (size_t)nbytes;
}

static inline void *pa_block_new_aligned(Py_ssize_t nbytes, int align_shift, bool zero)
{
    size_t align_bytes = (size_t)1 << align_shift;
    if (zero && (size_t)nbytes > PA_SMALL_MAX_BYTES && align_bytes <= PA_PAGE_BYTES) {
        void *pages = pa_calloc(1, (size_t)nbytes);     /* a large object, in general on a page boundary */
        if (pages == NULL || (uintptr_t)pages % align_bytes == 0)
            return pages;
        pa_free(pages);
    }
    void *data = pa_memalign(align_bytes, pa_block_bytes(nbytes));
    if (data != NULL && zero)
        memset(data, 0, (size_t)nbytes);
    return data;
}

static inline void *pa_block_new_held(Py_ssize_t nbytes, int align_shift, bool zero)
{
    if (PA_UNLIKELY(align_shift > PA_BLOCK_ALIGN_SHIFT))
        return pa_block_new_aligned(nbytes, align_shift, zero);
    return zero ? pa_calloc(1, pa_block_bytes(nbytes)) : pa_malloc(pa_block_bytes(nbytes));
}

static inline PyObject *pa_block_set_out_of_memory(Py_ssize_t nbytes)
{
    PyErr_Format(pa_out_of_memory_error, "cannot allocate %zd bytes", nbytes);
    return NULL;
}

/* NULL with OutOfMemoryError.  May let the GIL go. */
static inline void *pa_block_new(Py_ssize_t nbytes, int align_shift, bool zero)
{
    void *data;
    if (PA_UNLIKELY(zero && nbytes >= PA_BLOCK_GIL_FREE_BYTES)) {
        Py_BEGIN_ALLOW_THREADS
        data = pa_block_new_held(nbytes, align_shift, zero);
        Py_END_ALLOW_THREADS
    } else {
        data = pa_block_new_held(nbytes, align_shift, zero);
    }
    if (PA_UNLIKELY(data == NULL))
        pa_block_set_out_of_memory(nbytes);
    return data;
}

#endif
