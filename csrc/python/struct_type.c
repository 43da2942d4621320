/* struct_type.c - pyalloc.StructType: makes a Struct class out of the annotations of a class statement.
 *
 *   class Node(pyalloc.Struct):
 *       left: pyalloc.Ref              offset 0
 *       key: pyalloc.int64             offset 8
 *
 * Fields come in the order of the class body, each aligned to its own size, those of the base class first, so
 * an object of a subclass is laid out as one of the base class with more behind it.  pyalloc/_fields.py reads
 * the annotations; the rest is here:
 *
 *   1. check the class body and lay the fields out; their descriptors go into the class body,
 *   2. let type make the class, without a __dict__ and without slots, so that all references have one size,
 *   3. give it our dealloc and vectorcall, a pa_type, a class id and perhaps a tag.
 *
 * There are seven tags.  The first seven classes whose objects get into a smaller size class without the word
 * for the class id have one; which does not show but in sizes.
 *
 * A class is never freed: objects carry its id and may outlive every Python reference to it.
 *
 * Locks: the GIL.  Go counterpart: the compiler's types and their pointer masks (cmd/compile/internal/types).
 */
#include "python/struct_type.h"

#include <errno.h>

#include "python/managed_doc.h"

enum { MAX_FIELDS = 4096 };

static uintptr_t tags_used;

static size_t align_up(size_t nbytes, size_t align)
{
    return (nbytes + align - 1) & ~(align - 1);
}

const pa_layout *pa_layout_of_class(PyObject *cls)
{
    if (PyObject_TypeCheck(cls, &pa_struct_meta))
        return pa_struct_class_layout((PyTypeObject *)cls);
    for (uint32_t id = PA_CLASS_REF_ARRAY; id < PA_CLASS_STRUCT; id++) {
        if ((PyObject *)pa_layouts[id]->python_type == cls)
            return pa_layouts[id];
    }
    return NULL;
}

/* ---- 1. Layout -------------------------------------------------------------------------------- */

static void layout_free(pa_layout *layout)
{
    for (uint32_t i = 0; i < layout->field_count; i++) {
        if (layout->fields[i]->target == layout)
            layout->fields[i]->target = NULL;
        Py_DECREF(layout->fields[i]);
    }
    PyMem_Free(layout->fields);
    PyMem_Free(layout);
}

/* The one base class that is a Struct class. */
static const pa_layout *find_base(PyObject *bases)
{
    const pa_layout *found = NULL;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(bases); i++) {
        PyObject *base = PyTuple_GET_ITEM(bases, i);
        if (!PyObject_TypeCheck(base, &pa_struct_meta))
            continue;
        const pa_layout *layout = pa_struct_class_layout((PyTypeObject *)base);
        if (layout == NULL || (found != NULL && !pa_layout_is(found, layout) && !pa_layout_is(layout, found))) {
            PyErr_SetString(PyExc_TypeError, layout == NULL ? "a base class is not complete yet" :
                            "a Struct class has one Struct base class: two layouts cannot be joined");
            return NULL;
        }
        if (found == NULL || pa_layout_is(layout, found))
            found = layout;
    }
    if (found == NULL)
        PyErr_SetString(PyExc_TypeError, "a StructType makes subclasses of pyalloc.Struct only");
    return found;
}

static int check_name(const pa_layout *layout, PyObject *class_name, PyObject *name, PyObject *namespace)
{
    for (uint32_t i = 0; i < layout->field_count; i++) {
        if (PyUnicode_Compare(layout->fields[i]->name, name) == 0) {
            PyErr_Format(PyExc_TypeError, "class %U has the field '%U' already", class_name, name);
            return -1;
        }
    }
    int present = PyDict_Contains(namespace, name);
    if (present > 0)
        PyErr_Format(PyExc_TypeError, "field '%U' of class %U cannot have a default: fields start as 0 or None",
                     name, class_name);
    return present == 0 ? 0 : -1;
}

/* Target of a typed Ref, as _fields.py gives it: None, a class, or a str, which may be the class being made. */
static int set_target(pa_field *field, PyObject *target, PyObject *class_name, const pa_layout *own)
{
    if (target == Py_None)
        return 0;
    if (!PyUnicode_Check(target))
        return pa_field_bind(field, target);
    if (PyUnicode_Compare(target, class_name) == 0) {
        field->target = own;
        return 0;
    }
    Py_INCREF(target);
    field->target_name = target;
    return 0;
}

/* Appends the fields of specs, a list of (name, kind, target), to layout and to the class body. */
static int add_fields(pa_layout *layout, PyObject *specs, PyObject *class_name, PyObject *namespace)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(specs); i++) {
        PyObject *name, *target;
        int kind;
        if (!PyArg_ParseTuple(PyList_GET_ITEM(specs, i), "UiO", &name, &kind, &target) ||
            check_name(layout, class_name, name, namespace) < 0)
            return -1;
        if (kind < 0 || kind >= PA_KINDS) {
            PyErr_Format(PyExc_TypeError, "field '%U': %d is no kind of field", name, kind);
            return -1;
        }
        size_t nbytes = pa_kind_bytes((pa_kind)kind);
        size_t offset = align_up(layout->nbytes, nbytes);
        pa_field *field = pa_field_new(name, (pa_kind)kind, offset);
        if (field == NULL)
            return -1;
        layout->fields[layout->field_count++] = field;
        layout->nbytes = offset + nbytes;
        if (set_target(field, target, class_name, layout) < 0 ||
            PyDict_SetItem(namespace, field->name, (PyObject *)field) < 0)
            return -1;
    }
    return 0;
}

static pa_layout *layout_new(const pa_layout *base, PyObject *specs, PyObject *class_name, PyObject *namespace)
{
    Py_ssize_t count = (Py_ssize_t)base->field_count + PyList_GET_SIZE(specs);
    if (count > MAX_FIELDS) {
        PyErr_Format(PyExc_TypeError, "class %U has %zd fields, more than %d", class_name, count, MAX_FIELDS);
        return NULL;
    }
    pa_layout *layout = PyMem_Calloc(1, sizeof *layout);
    pa_field **fields = PyMem_Calloc((size_t)count + 1, sizeof *fields);
    if (layout == NULL || fields == NULL) {
        PyMem_Free(layout);
        PyMem_Free(fields);
        PyErr_NoMemory();
        return NULL;
    }
    layout->fields = fields;
    layout->base = base;
    layout->nbytes = base->nbytes;
    for (uint32_t i = 0; i < base->field_count; i++) {
        Py_INCREF(base->fields[i]);
        fields[layout->field_count++] = base->fields[i];
    }
    if (add_fields(layout, specs, class_name, namespace) < 0) {
        layout_free(layout);
        return NULL;
    }
    return layout;
}

static size_t object_bytes(const pa_layout *layout, size_t header_bytes)
{
    size_t nbytes = header_bytes + align_up(layout->nbytes, sizeof(void *));
    return nbytes < PA_LAYOUT_MIN_BYTES ? PA_LAYOUT_MIN_BYTES : nbytes;
}

static bool gains_from_tag(const pa_layout *layout)
{
    size_t with = object_bytes(layout, PA_OBJECT_HEADER_BYTES), without = object_bytes(layout, 0);
    return with <= PA_SMALL_MAX_BYTES && pa_size_class_of(without) < pa_size_class_of(with);
}

static int set_type(pa_layout *layout)
{
    size_t offsets[MAX_FIELDS];
    size_t count = 0;
    layout->tag = tags_used < PA_OBJECT_TAG_MASK && gains_from_tag(layout) ? tags_used + 1 : 0;
    size_t header_bytes = layout->tag != 0 ? 0 : PA_OBJECT_HEADER_BYTES;
    for (uint32_t i = 0; i < layout->field_count; i++) {
        if (layout->fields[i]->kind == PA_KIND_REF)
            offsets[count++] = header_bytes + layout->fields[i]->offset;
    }
    layout->type = pa_type_new(object_bytes(layout, header_bytes), offsets, count);
    if (layout->type != NULL)
        return 0;
    PyErr_NoMemory();
    return -1;
}

/* ---- 2. The class ----------------------------------------------------------------------------- */

static int set_new(PyObject *namespace, const char *name, PyObject *value)
{
    int rc = value == NULL ? -1 : PyDict_SetItemString(namespace, name, value);
    Py_XDECREF(value);
    return rc;
}

/* __slots__, __fields__ and __match_args__. */
static int complete_namespace(PyObject *namespace, const pa_layout *layout)
{
    PyObject *fields = PyDict_New();
    PyObject *names = PyTuple_New(layout->field_count);
    int rc = fields == NULL || names == NULL ? -1 : 0;
    for (uint32_t i = 0; rc == 0 && i < layout->field_count; i++) {
        pa_field *field = layout->fields[i];
        Py_INCREF(field->name);
        PyTuple_SET_ITEM(names, i, field->name);
        rc = PyDict_SetItem(fields, field->name, (PyObject *)field);
    }
    if (rc == 0)
        rc = set_new(namespace, "__fields__", PyDictProxy_New(fields));
    if (rc == 0 && PyDict_GetItemString(namespace, "__match_args__") == NULL)
        rc = PyDict_SetItemString(namespace, "__match_args__", names);
    if (rc == 0)
        rc = set_new(namespace, "__slots__", PyTuple_New(0));
    Py_XDECREF(fields);
    Py_XDECREF(names);
    return rc;
}

/* Nothing may make references of this class larger than others. */
static int check_class(PyTypeObject *cls)
{
    if (cls->tp_basicsize != (Py_ssize_t)sizeof(pa_managed) || cls->tp_itemsize != 0 || cls->tp_dictoffset != 0) {
        PyErr_Format(PyExc_TypeError, "a base class of %s has a __dict__ or slots: give it __slots__ = ()",
                     cls->tp_name);
        return -1;
    }
    if (cls->tp_finalize != NULL || cls->tp_del != NULL) {
        PyErr_Format(PyExc_TypeError, "class %s has __del__, which would run for every reference and not for the "
                     "object: use pyalloc.add_cleanup()", cls->tp_name);
        return -1;
    }
    return 0;
}

/* ---- 3. Both together ------------------------------------------------------------------------- */

static PyObject *read_annotations(PyObject *name, PyObject *namespace)
{
    PyObject *module = PyImport_ImportModule("pyalloc._fields");
    if (module == NULL)
        return NULL;
    PyObject *specs = PyObject_CallMethod(module, "read", "OO", name, namespace);
    Py_DECREF(module);
    if (specs != NULL && !PyList_CheckExact(specs)) {
        PyErr_SetString(PyExc_TypeError, "pyalloc._fields.read() gave no list");
        Py_CLEAR(specs);
    }
    return specs;
}

/* Tells _fields.py that the class exists: Refs that waited for its name get it. */
static int announce(PyObject *cls)
{
    PyObject *module = PyImport_ImportModule("pyalloc._fields");
    if (module == NULL)
        return -1;
    PyObject *done = PyObject_CallMethod(module, "created", "O", cls);
    Py_DECREF(module);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static PyObject *make_class(PyTypeObject *meta, PyObject *args, PyObject *kwargs, pa_layout *layout)
{
    PyObject *object = PyType_Type.tp_new(meta, args, kwargs);
    if (object == NULL)
        return NULL;
    PyTypeObject *cls = (PyTypeObject *)object;
    layout->python_type = cls;
    if (!PyObject_TypeCheck(object, &pa_struct_meta) || check_class(cls) < 0 || set_type(layout) < 0 ||
        pa_layout_register(layout) < 0) {
        Py_DECREF(object);
        return NULL;
    }
    tags_used += layout->tag != 0;
    for (uint32_t i = 0; i < layout->field_count; i++) {
        if (layout->fields[i]->owner == NULL)
            layout->fields[i]->owner = layout;
    }
    /* References lead to no Python object but their class, which stays: nothing for Python's own collector, in
     * which CPython from 3.11 on puts the objects of every class made by a class statement. */
    cls->tp_flags &= ~Py_TPFLAGS_HAVE_GC;
    cls->tp_traverse = NULL;
    cls->tp_clear = NULL;
    cls->tp_free = PyObject_Free;
    cls->tp_dealloc = pa_managed_dealloc;
    cls->tp_vectorcall = pa_struct_vectorcall;
    ((pa_struct_class *)cls)->layout = layout;
    return object;
}

static PyObject *meta_new(PyTypeObject *meta, PyObject *args, PyObject *kwargs)
{
    PyObject *name, *bases, *original;
    if (!PyArg_ParseTuple(args, "UO!O!:StructType", &name, &PyTuple_Type, &bases, &PyDict_Type, &original))
        return NULL;
    const pa_layout *base = find_base(bases);
    if (base == NULL)
        return NULL;
    if (PyDict_GetItemString(original, "__slots__") != NULL) {
        PyErr_Format(PyExc_TypeError, "class %U: a Struct class has fields, not __slots__", name);
        return NULL;
    }
    PyObject *namespace = PyDict_Copy(original);
    PyObject *specs = namespace == NULL ? NULL : read_annotations(name, namespace);
    pa_layout *layout = specs == NULL ? NULL : layout_new(base, specs, name, namespace);
    PyObject *cls = NULL;
    if (layout != NULL && complete_namespace(namespace, layout) == 0) {
        PyObject *type_args = PyTuple_Pack(3, name, bases, namespace);
        if (type_args != NULL) {
            cls = make_class(meta, type_args, kwargs, layout);
            Py_DECREF(type_args);
        }
    }
    if (layout != NULL && cls == NULL)
        layout_free(layout);
    Py_XDECREF(specs);
    Py_XDECREF(namespace);
    if (cls != NULL && announce(cls) < 0)
        Py_CLEAR(cls);          /* the table keeps the class; nobody else has seen it */
    return cls;
}

PyTypeObject pa_struct_meta = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pyalloc.StructType",
    .tp_doc = struct_meta_doc,
    .tp_basicsize = sizeof(pa_struct_class),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_TYPE_SUBCLASS,
    .tp_base = &PyType_Type,
    .tp_new = meta_new,
};

pa_struct_class pa_struct_class_root = {
    .heap.ht_type = {
        PyVarObject_HEAD_INIT(&pa_struct_meta, 0)
        .tp_name = "pyalloc.Struct",
        .tp_doc = struct_doc,
        .tp_basicsize = sizeof(pa_managed),
        .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
        .tp_base = &pa_managed_type,
        .tp_new = pa_struct_new,
        .tp_init = pa_struct_init,
        .tp_repr = pa_struct_repr,
    },
};

int pa_struct_type_init(void)
{
    static pa_layout root = {.nbytes = 0};
    PyTypeObject *type = &pa_struct_class_root.heap.ht_type;
    if (PyType_Ready(&pa_field_type) < 0 || PyType_Ready(&pa_struct_meta) < 0 || PyType_Ready(type) < 0)
        return -1;
    PyObject *none = PyDict_New();
    int rc = none == NULL ? -1 : set_new(type->tp_dict, "__fields__", PyDictProxy_New(none));
    if (rc == 0)
        rc = set_new(type->tp_dict, "__match_args__", PyTuple_New(0));
    Py_XDECREF(none);
    if (rc == 0 && pa_struct_class_root.layout == NULL) {
        root.python_type = type;
        rc = pa_layout_register(&root);
        pa_struct_class_root.layout = &root;
    }
    return rc;
}
