/* field.h - pyalloc.Field: the descriptor of one field of a Struct class. */
#ifndef PA_PYTHON_FIELD_H
#define PA_PYTHON_FIELD_H

#include "python/managed.h"
#include "python/scalar.h"

/* Constant once the class exists, target aside, which a forward reference gets once (the GIL). */
struct pa_field {
    PyObject_HEAD
    PyObject *name;             /* interned */
    const pa_layout *owner;     /* the class that declares it; NULL until that class is complete */
    const pa_layout *target;    /* of a typed Ref; NULL: anything, or not known yet */
    PyObject *target_name;      /* of a typed Ref whose class is not defined yet, else NULL */
    uint32_t offset;            /* from the start of the fields */
    uint8_t kind;               /* pa_kind */
};

extern PyTypeObject pa_field_type;
/* For pyalloc/_fields.py. */
extern PyMethodDef pa_field_methods[];

/* owner is set by the caller, once the class is complete. */
pa_field *pa_field_new(PyObject *name, pa_kind kind, size_t offset);

/* Gives a forward reference its class.  -1 with TypeError. */
int pa_field_bind(pa_field *field, PyObject *cls);
/* Looks a forward reference up by name; -1 with NameError.  Runs Python code. */
int pa_field_resolve(pa_field *field);

/* A value for the field as bits: a scalar, or the address of a managed object that value keeps alive.  May run
 * Python code.  -1 with an exception that names the field. */
static inline int pa_field_bits(pa_field *field, PyObject *value, uint64_t *bits)
{
    const char *owner = field->owner->python_type->tp_name;
    if (field->kind != PA_KIND_REF)
        return pa_scalar_from_python(field->kind, value, owner, field->name, bits);
    if (PA_UNLIKELY(field->target_name != NULL) && value != Py_None && pa_field_resolve(field) < 0)
        return -1;
    void *object;
    int rc = pa_managed_address(value, field->target, owner, field->name, &object);
    *bits = (uint64_t)(uintptr_t)object;
    return rc;
}

static inline void *pa_field_at(const pa_field *field, void *object)
{
    return pa_object_fields(object) + field->offset;
}

/* object.field = value, object a reference to an object that has the field. */
int pa_field_assign(pa_field *field, PyObject *object, PyObject *value);

#endif
