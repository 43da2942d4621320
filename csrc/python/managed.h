/* managed.h - Python's side of managed objects: the reference object, the layouts, making one from the other.
 *
 * A pointer that Python's side keeps, in fields, handles and references, tells the class of its object:
 *
 *   low 3 bits (tag) 0       the object starts with a word that holds its class id, an index into pa_layouts,
 *                            written once before anybody else can see it; the fields come behind
 *   tag 1 to 7               the class is pa_compact_layouts[tag] and the fields start the object.  To the
 *                            collector such a pointer is one into the object's first word
 *
 * docs/decisions/007 says why.  Arrays and bytes are an object of 24 bytes with a class id that points to their
 * items.  "object" in names of this layer is the pointer with its tag.
 */
#ifndef PA_PYTHON_MANAGED_H
#define PA_PYTHON_MANAGED_H

#include "python/core.h"

#include "base/atomics.h"
#include "python/inside.h"

enum {
    /* Objects of less than 16 bytes without pointers would share blocks, and with them their death. */
    PA_LAYOUT_MIN_BYTES = PA_TINY_BYTES,
    PA_OBJECT_HEADER_BYTES = 8,
    PA_OBJECT_TAG_MASK = 7,
};

/* Class ids that are known at compile time.  0 is never used. */
enum {
    PA_CLASS_ANY = 0,
    PA_CLASS_REF_ARRAY = 1,
    PA_CLASS_BYTES = 2,
    PA_CLASS_STRUCT = 3,        /* pyalloc.Struct itself: no fields */
};

/* A reference: what Python code holds of a managed object.  It is a root as long as it lives.  Objects do not
 * move, so the address is kept beside the handle.  Any number of references to one object may exist; they are
 * equal.  All fields are constant from creation to deallocation, weakrefs (the GIL) aside. */
typedef struct pa_managed {
    PyObject_HEAD
    void *object;           /* with its tag; never NULL.  On the free list: the next one */
    pa_handle *handle;      /* keeps object alive */
    PyObject *weakrefs;
} pa_managed;

typedef struct pa_field pa_field;

/* What a class id stands for.  Made with its class and kept for ever, since objects may outlive every Python
 * reference to their class. */
typedef struct pa_layout {
    uint32_t class_id;
    uint32_t field_count;           /* inherited ones included */
    size_t nbytes;                  /* of the fields, without the word of the class id */
    uintptr_t tag;                  /* of pointers to objects; 0: they have a class id */
    const pa_type *type;            /* NULL for Struct itself */
    PyTypeObject *python_type;      /* strong */
    const struct pa_layout *base;   /* NULL for the three built in */
    pa_field **fields;              /* strong; in order of their offsets */
} pa_layout;

/* Arrays and bytes as they lie in managed memory. */
typedef struct pa_items {
    uint32_t class_id;              /* PA_CLASS_REF_ARRAY or PA_CLASS_BYTES */
    uint32_t element_id;            /* class of the elements, PA_CLASS_ANY: not checked */
    uint64_t length;
    void *items;                    /* pointers or bytes; NULL when length is 0 */
} pa_items;

extern PyTypeObject pa_managed_type;
/* By class id, and by tag.  Only ever grow; the GIL. */
extern pa_layout **pa_layouts;
extern pa_layout *pa_compact_layouts[PA_OBJECT_TAG_MASK + 1];

/* Gives layout the next id, and makes it findable by that or by its tag.  -1 with MemoryError. */
int pa_layout_register(pa_layout *layout);
/* The layout of objects of a Python class; NULL when it is no class of managed objects (no exception). */
const pa_layout *pa_layout_of_class(PyObject *cls);
/* The same, or TypeError; None gives *out = NULL: any object. */
int pa_layout_from_argument(PyObject *cls, const pa_layout **out);

static inline uintptr_t pa_object_tag(const void *object)
{
    return (uintptr_t)object & PA_OBJECT_TAG_MASK;
}

/* Where the object starts. */
static inline void *pa_object_base(const void *object)
{
    return (void *)((uintptr_t)object & ~(uintptr_t)PA_OBJECT_TAG_MASK);
}

/* Where its fields start. */
static inline char *pa_object_fields(const void *object)
{
    return (char *)pa_object_base(object) + (pa_object_tag(object) != 0 ? 0 : PA_OBJECT_HEADER_BYTES);
}

static inline const pa_layout *pa_layout_of(const void *object)
{
    uintptr_t tag = pa_object_tag(object);
    return tag != 0 ? pa_compact_layouts[tag] : pa_layouts[*(const uint32_t *)object];
}

static inline bool pa_layout_is(const pa_layout *layout, const pa_layout *wanted)
{
    while (layout != wanted && layout != NULL)
        layout = layout->base;
    return layout != NULL;
}

/* The deallocation of every reference, and so what tells them from other objects. */
void pa_managed_dealloc(PyObject *object);

static inline bool pa_managed_check(PyObject *object)
{
    return Py_TYPE(object)->tp_dealloc == pa_managed_dealloc;
}

static inline void *pa_managed_object(PyObject *reference)
{
    return ((pa_managed *)reference)->object;
}

/* cleanup.c: whether deliver was asked for.  Written by notify (any thread: QUIET to NOTIFIED), by kick and by
 * deliver (the GIL); sequentially consistent, so that a notify that does not find QUIET knows that deliver has
 * not taken the ids yet.  Read relaxed on the fast path, where late is as good as soon. */
enum { PA_CLEANUP_QUIET, PA_CLEANUP_NOTIFIED, PA_CLEANUP_KICKED };
extern _Atomic int pa_cleanup_news;
PA_COLD void pa_cleanup_kick(void);

/* Memory for a reference, taken before going inside: NULL with MemoryError. */
pa_managed *pa_managed_blank(void);
/* The blank was not needed. */
void pa_managed_drop_blank(pa_managed *blank);
/* Makes blank a reference to object, whose handle it takes over.  Outside; cannot fail.  made: the object is new; for
 * the notes of sites.c, which may run Python code when they are on. */
PyObject *pa_managed_finish(pa_managed *blank, void *object, pa_handle *handle, bool made);
/* The same, for an object of a class that is known. */
PyObject *pa_managed_finish_as(pa_managed *blank, PyTypeObject *type, void *object, pa_handle *handle, bool made);
/* A new reference to what slot points to, None for NULL.  slot lies in an object that the caller keeps. */
PyObject *pa_managed_load(void **slot);
/* *out = the address behind value, which may be None; TypeError when it is no managed object or not one of
 * wanted (NULL: any).  what goes in front of the message: "Node.left". */
int pa_managed_address(PyObject *value, const pa_layout *wanted, const char *what, PyObject *name, void **out);
/* *slot = value, with the barrier.  -1 with MemoryError. */
int pa_managed_store(void **slot, void *value);
/* OutOfMemoryError that says what for; returns NULL. */
PyObject *pa_managed_set_out_of_memory(const char *what, size_t nbytes);
/* Ready the types and register the built-in layouts, in this order; items.c and struct_type.c. */
int pa_items_init(void);
int pa_struct_type_init(void);
/* Frees the references kept for reuse; for the end of the module. */
void pa_managed_drop_free_list(void);

#endif
