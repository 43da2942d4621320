/* scalar.c - the values that fields hold: integers, floats and booleans of fixed size.
 *
 * Conversion is strict, as in a typed language: integers through __index__ with their range checked, floats
 * through __float__, booleans only from bool.  A value that does not fit is an OverflowError and changes
 * nothing.  Conversion may run Python code, so it is always finished before a thread goes inside.
 *
 * No state and no locks.  Go counterpart: the basic types; Go's conversions wrap around instead.
 */
#include "python/scalar.h"

#include <float.h>
#include <math.h>

static const char *const kind_names[PA_KINDS] = {
    "Ref", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64", "bool_",
};

const char *pa_kind_name(pa_kind kind)
{
    return kind_names[kind];
}

static int set_overflow(pa_kind kind, PyObject *value, const char *owner, PyObject *name)
{
    PyErr_Format(PyExc_OverflowError, "%s.%U: %R does not fit %s", owner, name, value, kind_names[kind]);
    return -1;
}

/* A TypeError of CPython's own is replaced by one that names the field. */
static int set_type_error(pa_kind kind, PyObject *value, const char *owner, PyObject *name)
{
    if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_TypeError))
        PyErr_Format(PyExc_TypeError, "%s.%U is %s and takes %s, not '%.200s'", owner, name, kind_names[kind],
                     kind == PA_KIND_BOOL ? "True or False" : kind >= PA_KIND_FLOAT32 ? "a number" : "an int",
                     Py_TYPE(value)->tp_name);
    return -1;
}

static int signed_bits(pa_kind kind, PyObject *index, uint64_t *bits)
{
    int overflow = 0;
    long long number = PyLong_AsLongLongAndOverflow(index, &overflow);
    if (number == -1 && overflow == 0 && PyErr_Occurred())
        return -1;
    int64_t limit = INT64_MAX >> (64 - 8 * pa_kind_bytes(kind));
    *bits = (uint64_t)number;
    return overflow == 0 && number <= limit && number >= -limit - 1;
}

static int unsigned_bits(pa_kind kind, PyObject *index, uint64_t *bits)
{
    unsigned long long number = PyLong_AsUnsignedLongLong(index);
    if (number == (unsigned long long)-1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return -1;
        PyErr_Clear();
        return 0;
    }
    *bits = number;
    return number <= UINT64_MAX >> (64 - 8 * pa_kind_bytes(kind));
}

/* 1: *bits; 0: does not fit; -1: exception. */
static int integer_bits(pa_kind kind, PyObject *value, uint64_t *bits)
{
    bool is_signed = kind <= PA_KIND_INT64;
    if (PA_LIKELY(PyLong_CheckExact(value)))
        return is_signed ? signed_bits(kind, value, bits) : unsigned_bits(kind, value, bits);
    PyObject *index = PyNumber_Index(value);
    if (index == NULL)
        return -1;
    int fits = is_signed ? signed_bits(kind, index, bits) : unsigned_bits(kind, index, bits);
    Py_DECREF(index);
    return fits;
}

static int float_bits(pa_kind kind, PyObject *value, uint64_t *bits)
{
    double number = PyFloat_AsDouble(value);
    if (number == -1.0 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return -1;
        PyErr_Clear();
        return 0;
    }
    *bits = 0;
    if (kind == PA_KIND_FLOAT64) {
        memcpy(bits, &number, sizeof number);
        return 1;
    }
    float narrow = (float)number;
    memcpy(bits, &narrow, sizeof narrow);
    return !isinf(narrow) || isinf(number);
}

int pa_scalar_from_python(pa_kind kind, PyObject *value, const char *owner, PyObject *name, uint64_t *bits)
{
    int fits = -1;
    if (kind == PA_KIND_BOOL) {
        *bits = value == Py_True;
        fits = PyBool_Check(value) ? 1 : -1;
    } else if (kind >= PA_KIND_FLOAT32) {
        fits = float_bits(kind, value, bits);
    } else {
        fits = integer_bits(kind, value, bits);
    }
    if (PA_LIKELY(fits > 0))
        return 0;
    return fits == 0 ? set_overflow(kind, value, owner, name) : set_type_error(kind, value, owner, name);
}

PyObject *pa_scalar_to_python(pa_kind kind, const void *at)
{
    switch (kind) {
    case PA_KIND_INT8: return PyLong_FromLong(*(const int8_t *)at);
    case PA_KIND_INT16: return PyLong_FromLong(*(const int16_t *)at);
    case PA_KIND_INT32: return PyLong_FromLong(*(const int32_t *)at);
    case PA_KIND_INT64: return PyLong_FromLongLong(*(const int64_t *)at);
    case PA_KIND_UINT8: return PyLong_FromLong(*(const uint8_t *)at);
    case PA_KIND_UINT16: return PyLong_FromLong(*(const uint16_t *)at);
    case PA_KIND_UINT32: return PyLong_FromUnsignedLong(*(const uint32_t *)at);
    case PA_KIND_UINT64: return PyLong_FromUnsignedLongLong(*(const uint64_t *)at);
    case PA_KIND_FLOAT32: return PyFloat_FromDouble((double)*(const float *)at);
    case PA_KIND_FLOAT64: return PyFloat_FromDouble(*(const double *)at);
    default: return PyBool_FromLong(*(const uint8_t *)at);
    }
}
