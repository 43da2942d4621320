/* scalar.h - the values that fields hold: Python object <-> bytes in a managed object. */
#ifndef PA_PYTHON_SCALAR_H
#define PA_PYTHON_SCALAR_H

#include <string.h>

#include "python/core.h"

/* pyalloc/_fields.py names them in this order. */
typedef enum pa_kind {
    PA_KIND_REF,
    PA_KIND_INT8,
    PA_KIND_INT16,
    PA_KIND_INT32,
    PA_KIND_INT64,
    PA_KIND_UINT8,
    PA_KIND_UINT16,
    PA_KIND_UINT32,
    PA_KIND_UINT64,
    PA_KIND_FLOAT32,
    PA_KIND_FLOAT64,
    PA_KIND_BOOL,
    PA_KINDS
} pa_kind;

/* Size, and so natural alignment, of each kind. */
static inline size_t pa_kind_bytes(pa_kind kind)
{
    static const uint8_t nbytes[PA_KINDS] = {8, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8, 1};
    return nbytes[kind];
}

/* The name of the kind: "int8". */
const char *pa_kind_name(pa_kind kind);

/* The bytes of a scalar in the low end of a word.  -1 with TypeError or OverflowError that names the field
 * ("Node.key").  May run Python code (__index__, __float__). */
int pa_scalar_from_python(pa_kind kind, PyObject *value, const char *owner, PyObject *name, uint64_t *bits);

/* Little-endian, as everything that pyalloc runs on. */
static inline void pa_scalar_store(pa_kind kind, void *at, uint64_t bits)
{
    switch (pa_kind_bytes(kind)) {
    case 1: memcpy(at, &bits, 1); break;
    case 2: memcpy(at, &bits, 2); break;
    case 4: memcpy(at, &bits, 4); break;
    default: memcpy(at, &bits, 8); break;
    }
}

/* A new Python object from the bytes at at. */
PyObject *pa_scalar_to_python(pa_kind kind, const void *at);

#endif
