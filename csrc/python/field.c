/* field.c - pyalloc.Field: reads and writes one field of the objects of a Struct class.
 *
 * A data descriptor, found by CPython's own attribute look-up, with the work in C.  Scalars are read and
 * written in place without going inside: the reference roots the object, objects do not move, and the
 * collector neither reads nor writes words that hold no pointers.  Pointers go through pa_store, and are read
 * inside, where the new reference's handle is made before leaving.
 *
 * Whether an object has the field is decided by the class that its pointer tells, not by its Python type.
 *
 * Locks: the GIL.  Go counterpart: a selector expression, x.f.
 */
#include "python/field.h"

#include <structmember.h>

#include "python/managed_doc.h"
#include "python/struct_type.h"

pa_field *pa_field_new(PyObject *name, pa_kind kind, size_t offset)
{
    pa_field *field = PyObject_New(pa_field, &pa_field_type);
    if (field == NULL)
        return NULL;
    Py_INCREF(name);
    field->name = name;
    PyUnicode_InternInPlace(&field->name);
    field->owner = NULL;
    field->target = NULL;
    field->target_name = NULL;
    field->offset = (uint32_t)offset;
    field->kind = (uint8_t)kind;
    return field;
}

static void field_dealloc(PyObject *object)
{
    pa_field *self = (pa_field *)object;
    Py_DECREF(self->name);
    Py_XDECREF(self->target_name);
    PyObject_Free(self);
}

int pa_field_bind(pa_field *field, PyObject *cls)
{
    const pa_layout *layout;
    if (pa_layout_from_argument(cls, &layout) < 0)
        return -1;
    field->target = layout;
    Py_CLEAR(field->target_name);
    return 0;
}

int pa_field_resolve(pa_field *field)
{
    PyObject *module = PyImport_ImportModule("pyalloc._fields");
    if (module == NULL)
        return -1;
    PyObject *cls = PyObject_CallMethod(module, "resolve", "OOO", field->owner->python_type, field->name,
                                        field->target_name);
    Py_DECREF(module);
    int rc = cls == NULL ? -1 : pa_field_bind(field, cls);
    Py_XDECREF(cls);
    return rc;
}

/* The object that the field is in, or NULL with TypeError. */
static inline void *object_with_field(const pa_field *self, PyObject *reference)
{
    if (PA_LIKELY(pa_managed_check(reference))) {
        void *object = pa_managed_object(reference);
        if (PA_LIKELY(pa_layout_is(pa_layout_of(object), self->owner) && self->owner != NULL))
            return object;
    }
    PyErr_Format(PyExc_TypeError, "field '%U' of '%.200s' objects does not apply to a '%.200s' object", self->name,
                 self->owner != NULL ? self->owner->python_type->tp_name : "incomplete",
                 Py_TYPE(reference)->tp_name);
    return NULL;
}

static PyObject *field_get(PyObject *descriptor, PyObject *reference, PyObject *type)
{
    (void)type;
    if (reference == NULL) {
        Py_INCREF(descriptor);
        return descriptor;
    }
    const pa_field *self = (const pa_field *)descriptor;
    void *object = object_with_field(self, reference);
    if (PA_UNLIKELY(object == NULL))
        return NULL;
    if (self->kind == PA_KIND_REF)
        return pa_managed_load(pa_field_at(self, object));
    return pa_scalar_to_python(self->kind, pa_field_at(self, object));
}

int pa_field_assign(pa_field *field, PyObject *reference, PyObject *value)
{
    void *object = object_with_field(field, reference);
    if (PA_UNLIKELY(object == NULL))
        return -1;
    if (PA_UNLIKELY(value == NULL)) {
        PyErr_Format(PyExc_TypeError, "field '%U' of a '%.200s' object cannot be deleted: assign %s", field->name,
                     Py_TYPE(reference)->tp_name, field->kind == PA_KIND_REF ? "None" : "0");
        return -1;
    }
    uint64_t bits;
    if (PA_UNLIKELY(pa_field_bits(field, value, &bits) < 0))
        return -1;
    if (field->kind == PA_KIND_REF)
        return pa_managed_store(pa_field_at(field, object), (void *)(uintptr_t)bits);
    pa_scalar_store(field->kind, pa_field_at(field, object), bits);
    return 0;
}

static int field_set(PyObject *descriptor, PyObject *reference, PyObject *value)
{
    return pa_field_assign((pa_field *)descriptor, reference, value);
}

static PyObject *field_repr(PyObject *object)
{
    const pa_field *self = (const pa_field *)object;
    return PyUnicode_FromFormat("<field '%U' (%s) at byte %u of '%s'>", self->name, pa_kind_name(self->kind),
                                (unsigned)self->offset,
                                self->owner != NULL ? self->owner->python_type->tp_name : "incomplete");
}

static PyObject *get_type(PyObject *object, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(pa_kind_name(((const pa_field *)object)->kind));
}

static PyObject *get_nbytes(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(pa_kind_bytes(((const pa_field *)object)->kind));
}

static PyObject *get_target(PyObject *object, void *unused)
{
    (void)unused;
    pa_field *self = (pa_field *)object;
    if (self->target_name != NULL && self->owner != NULL && pa_field_resolve(self) < 0)
        return NULL;
    PyObject *found = Py_None;
    if (self->target != NULL && self->target->python_type != NULL)
        found = (PyObject *)self->target->python_type;
    else if (self->kind == PA_KIND_REF)
        found = (PyObject *)&pa_managed_type;
    Py_INCREF(found);
    return found;
}

static PyObject *get_objclass(PyObject *object, void *unused)
{
    (void)unused;
    const pa_field *self = (const pa_field *)object;
    PyObject *found = self->owner != NULL ? (PyObject *)self->owner->python_type : Py_None;
    Py_INCREF(found);
    return found;
}

static PyMemberDef field_members[] = {
    {"__name__", T_OBJECT, offsetof(pa_field, name), READONLY, NULL},
    {"name", T_OBJECT, offsetof(pa_field, name), READONLY, "The field's name."},
    {"target_name", T_OBJECT, offsetof(pa_field, target_name), READONLY,
     "Name of a class that a typed Ref waits for, else None."},
    {"offset", T_UINT, offsetof(pa_field, offset), READONLY, "Bytes from the start of the object's fields."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef field_getset[] = {
    {"type", get_type, NULL, "Name of the field's type: 'Ref', 'int64', ...", NULL},
    {"nbytes", get_nbytes, NULL, "Size of the field in bytes.", NULL},
    {"target", get_target, NULL, field_target_doc, NULL},
    {"__objclass__", get_objclass, NULL, "The class that declares the field.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject pa_field_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pyalloc.Field",
    .tp_doc = field_doc,
    .tp_basicsize = sizeof(pa_field),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_dealloc = field_dealloc,
    .tp_repr = field_repr,
    .tp_members = field_members,
    .tp_getset = field_getset,
    .tp_descr_get = field_get,
    .tp_descr_set = field_set,
};

static PyObject *py_bind_field(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 2 || !Py_IS_TYPE(args[0], &pa_field_type) || ((pa_field *)args[0])->target_name == NULL) {
        PyErr_SetString(PyExc_TypeError, "bind_field() takes a field that waits for its class, and the class");
        return NULL;
    }
    if (pa_field_bind((pa_field *)args[0], args[1]) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyMethodDef pa_field_methods[] = {
    {"bind_field", (PyCFunction)(void (*)(void))py_bind_field, METH_FASTCALL, bind_field_doc},
    {NULL, NULL, 0, NULL},
};
