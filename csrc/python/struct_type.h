/* struct_type.h - pyalloc.StructType, the class of Struct classes, and Struct itself. */
#ifndef PA_PYTHON_STRUCT_TYPE_H
#define PA_PYTHON_STRUCT_TYPE_H

#include "python/field.h"

/* A Struct class: a type object with its layout behind.  layout is NULL while the class is being made. */
typedef struct pa_struct_class {
    PyHeapTypeObject heap;
    const pa_layout *layout;
} pa_struct_class;

extern PyTypeObject pa_struct_meta;
/* pyalloc.Struct: static, with room for the layout; its ht_type is the type. */
extern pa_struct_class pa_struct_class_root;

static inline const pa_layout *pa_struct_class_layout(PyTypeObject *type)
{
    return ((pa_struct_class *)type)->layout;
}

/* struct_object.c: what makes objects of a Struct class. */
PyObject *pa_struct_vectorcall(PyObject *cls, PyObject *const *args, size_t positional, PyObject *kwnames);
PyObject *pa_struct_new(PyTypeObject *cls, PyObject *args, PyObject *kwargs);
int pa_struct_init(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *pa_struct_repr(PyObject *self);

#endif
