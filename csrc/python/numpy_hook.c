/* numpy_hook.c - the data of NumPy's arrays in this heap: two handlers of NEP 49, and who gets them.
 *
 * A handler is a structure of function pointers inside a capsule.  An array keeps a reference to the capsule that was
 * current when it was made and asks it for every realloc and for the free, however long that takes: after uninstall,
 * on another thread, while the interpreter ends.  So both structures are static, their capsules are never destroyed,
 * and the functions use no Python at all; the library itself cannot be unloaded (-z nodelete).
 *
 * NumPy looks the current handler up in a context variable whose default is its own handler.  Setting the variable
 * reaches one context: new threads start with an empty one, and those that run already have theirs.  What a whole
 * process is to use is therefore put where an unset variable looks: into the variable's default, one pointer that
 * every thread sees at its next allocation (numpy_set_default below).  CPython has no call for that.  The field is
 * known by what it holds: the two words behind the object header have to be the very objects that are the variable's
 * name and its present default, else the call refuses.  So it is in all releases from 3.7 to 3.14, and none of them
 * caches a default: a look-up that finds nothing in the context goes to the field each time.  docs/decisions/040 has
 * the other ways.
 *
 * Large arrays ask for huge pages, as NumPy's own do (docs/decisions/041).
 *
 * State: the two capsules, NumPy's functions and the switch for huge pages, under the GIL.  On a build without it, a
 * reader of the field sees one capsule or the other, and both live for ever.
 */
#include "python/numpy_hook.h"

#include <string.h>

#include "python/numpy_abi.h"

enum { WIDE_ALIGN = 64 };

/* Arrays from here on ask for huge pages, as NumPy's own do from 4 MiB on. */
enum { HUGE_LEAST_BYTES = 1 << 20 };

/* NumPy's own switch, NUMPY_MADVISE_HUGEPAGE. Written under the GIL, read by threads that hold it. */
static bool huge_pages = true;

static PyObject *(*numpy_set)(PyObject *);
static PyObject *(*numpy_get)(void);

/* ---- The handlers: no Python in here ---- */

/* p, a new block or NULL. */
static inline void *advised(void *p, size_t nbytes)
{
    if (nbytes >= HUGE_LEAST_BYTES && p != NULL && huge_pages)
        pa_advise_huge_pages(p, nbytes);
    return p;
}

static void *plain_malloc(void *context, size_t nbytes)
{
    (void)context;
    return advised(pa_malloc(nbytes < PA_TINY_BYTES ? PA_TINY_BYTES : nbytes), nbytes);
}

static void *plain_calloc(void *context, size_t count, size_t nbytes)
{
    (void)context;
    size_t total;
    if (__builtin_mul_overflow(count, nbytes, &total))
        return NULL;
    return advised(pa_calloc(1, total < PA_TINY_BYTES ? PA_TINY_BYTES : total), total);
}

static void *plain_realloc(void *context, void *p, size_t nbytes)
{
    (void)context;
    /* 0 must not free: the array keeps its block. */
    return advised(pa_realloc(p, nbytes < PA_TINY_BYTES ? PA_TINY_BYTES : nbytes), nbytes);
}

static void any_free(void *context, void *p, size_t nbytes)
{
    (void)context;
    pa_free_sized(p, nbytes);
}

/* What to ask for so that the block is aligned to WIDE_ALIGN: blocks lie at multiples of their size from the start of a
 * page, so the first size that is a multiple itself.  0 when there is none, being too large. */
static size_t wide_bytes(size_t nbytes)
{
    size_t good = pa_good_size(nbytes == 0 ? 1 : nbytes);
    while (good % WIDE_ALIGN != 0)
        good = pa_good_size(good + 1);
    return good;
}

static void *wide_malloc(void *context, size_t nbytes)
{
    (void)context;
    size_t good = wide_bytes(nbytes);
    return good == 0 ? NULL : advised(pa_malloc(good), good);
}

/* Not pa_memalign and memset: pages that nobody ever wrote stay untouched. */
static void *wide_calloc(void *context, size_t count, size_t nbytes)
{
    (void)context;
    size_t total, good;
    if (__builtin_mul_overflow(count, nbytes, &total) || (good = wide_bytes(total)) == 0)
        return NULL;
    return advised(pa_calloc(1, good), good);
}

/* pa_realloc keeps whole pages whole pages, and knows nothing of the alignment of smaller blocks. */
static void *wide_realloc(void *context, void *p, size_t nbytes)
{
    if (p == NULL)
        return wide_malloc(context, nbytes);
    size_t usable = pa_usable_size(p);
    if (nbytes <= usable && nbytes >= usable / 2)
        return p;
    if (nbytes > PA_SMALL_MAX_BYTES && usable > PA_SMALL_MAX_BYTES)
        return advised(pa_realloc(p, nbytes), nbytes);
    void *moved = wide_malloc(context, nbytes);
    if (moved == NULL)
        return nbytes <= usable ? p : NULL;
    memcpy(moved, p, nbytes < usable ? nbytes : usable);
    pa_free(p);
    return moved;
}

static pa_numpy_handler plain_handler = {
    .name = "pyalloc",
    .version = PA_NUMPY_HANDLER_VERSION,
    .malloc = plain_malloc,
    .calloc = plain_calloc,
    .realloc = plain_realloc,
    .free = any_free,
};

static pa_numpy_handler wide_handler = {
    .name = "pyalloc_align64",
    .version = PA_NUMPY_HANDLER_VERSION,
    .malloc = wide_malloc,
    .calloc = wide_calloc,
    .realloc = wide_realloc,
    .free = any_free,
};

/* ---- Capsules ---- */

/* Borrowed, made once, never destroyed; NULL with an exception. */
static PyObject *capsule_of(pa_numpy_handler *handler)
{
    static PyObject *capsules[2];
    PyObject **capsule = &capsules[handler == &wide_handler];
    if (*capsule == NULL)
        *capsule = PyCapsule_New(handler, PA_NUMPY_CAPSULE, NULL);
    return *capsule;
}

static pa_numpy_handler *handler_in(PyObject *capsule)
{
    if (PyCapsule_IsValid(capsule, PA_NUMPY_CAPSULE))
        return PyCapsule_GetPointer(capsule, PA_NUMPY_CAPSULE);
    PyErr_Format(PyExc_TypeError, "a capsule with a memory handler of NumPy is wanted, not '%s'",
                 Py_TYPE(capsule)->tp_name);
    return NULL;
}

static PyObject *py_handler(PyObject *module, PyObject *arg)
{
    (void)module;
    Py_ssize_t align;
    if (pa_args_size(arg, "align", &align) < 0)
        return NULL;
    if (align != PA_TINY_BYTES && align != WIDE_ALIGN) {
        PyErr_Format(PyExc_ValueError, "align must be %d or %d, not %zd", (int)PA_TINY_BYTES, WIDE_ALIGN, align);
        return NULL;
    }
    PyObject *capsule = capsule_of(align == WIDE_ALIGN ? &wide_handler : &plain_handler);
    Py_XINCREF(capsule);
    return capsule;
}

static PyObject *py_describe(PyObject *module, PyObject *capsule)
{
    (void)module;
    pa_numpy_handler *handler = handler_in(capsule);
    if (handler == NULL)
        return NULL;
    int align = handler == &plain_handler ? PA_TINY_BYTES : handler == &wide_handler ? WIDE_ALIGN : 0;
    const char *end = memchr(handler->name, 0, sizeof handler->name);
    Py_ssize_t length = end != NULL ? end - handler->name : (Py_ssize_t)sizeof handler->name;
    PyObject *name = PyUnicode_DecodeUTF8(handler->name, length, "replace");
    return name == NULL ? NULL : Py_BuildValue("(Ni)", name, align);
}

/* ---- NumPy's functions ---- */

static PyObject *py_attach(PyObject *module, PyObject *capsule)
{
    (void)module;
    void **table = PyCapsule_GetPointer(capsule, NULL);
    if (table == NULL)
        return NULL;
    unsigned (*abi_version)(void), (*feature_version)(void);
    memcpy(&abi_version, &table[PA_NUMPY_API_ABI_VERSION], sizeof abi_version);
    unsigned abi = abi_version();
    if (abi >> 24 != 1 && abi >> 24 != 2) {
        PyErr_Format(PyExc_RuntimeError, "this NumPy's ABI 0x%x is unknown to this pyalloc, which knows NumPy 1 and 2: "
                     "install a newer pyalloc", abi);
        return NULL;
    }
    memcpy(&feature_version, &table[PA_NUMPY_API_FEATURE_VERSION], sizeof feature_version);
    unsigned features = feature_version();
    if (features < PA_NUMPY_FEATURES_1_22) {
        PyErr_Format(PyExc_RuntimeError, "this NumPy's C API 0x%x has no memory handlers (NEP 49): "
                     "NumPy 1.22 or newer is needed, pip install -U numpy", features);
        return NULL;
    }
    memcpy(&numpy_set, &table[PA_NUMPY_API_SET_HANDLER], sizeof numpy_set);
    memcpy(&numpy_get, &table[PA_NUMPY_API_GET_HANDLER], sizeof numpy_get);
    PyObject *own = *(PyObject **)table[PA_NUMPY_API_DEFAULT_HANDLER];
    Py_INCREF(own);
    return own;
}

static int check_attached(void)
{
    if (numpy_get != NULL)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "numpy_attach() comes first");
    return -1;
}

static PyObject *py_huge_pages(PyObject *module, PyObject *arg)
{
    (void)module;
    int on = PyObject_IsTrue(arg);
    if (on < 0)
        return NULL;
    bool before = huge_pages;
    huge_pages = on;
    return PyBool_FromLong(before);
}

static PyObject *py_current(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return check_attached() < 0 ? NULL : numpy_get();
}

static PyObject *py_set_current(PyObject *module, PyObject *capsule)
{
    (void)module;
    if (check_attached() < 0 || handler_in(capsule) == NULL)
        return NULL;
    return numpy_set(capsule);
}

/* ---- The default of the whole process ---- */

/* What CPython's ContextVar begins with. */
typedef struct context_variable {
    PyObject_HEAD
    PyObject *name;
    PyObject *fallback;
} context_variable;

/* What NumPy finds where nobody set the variable: a new reference, or NULL with an exception. */
static PyObject *default_handler(void)
{
    PyObject *empty = check_attached() < 0 ? NULL : PyContext_New();
    if (empty == NULL || PyContext_Enter(empty) < 0) {
        Py_XDECREF(empty);
        return NULL;
    }
    PyObject *handler = numpy_get();
    int rc = PyContext_Exit(empty);
    Py_DECREF(empty);
    if (rc < 0)
        Py_CLEAR(handler);
    return handler;
}

/* True when the two words behind the object header are the variable's name and its default. */
static bool is_laid_out(PyObject *object, PyObject *fallback)
{
    context_variable *variable = (context_variable *)object;
    if (Py_TYPE(object)->tp_basicsize < (Py_ssize_t)sizeof *variable || variable->fallback != fallback)
        return false;
    PyObject *name = PyObject_GetAttrString(object, "name");
    bool same = name != NULL && name == variable->name;
    Py_XDECREF(name);
    PyErr_Clear();
    return same;
}

static PyObject *py_default(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return default_handler();
}

static PyObject *py_set_default(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *object, *capsule;
    if (!PyArg_ParseTuple(args, "O!O:numpy_set_default", &PyContextVar_Type, &object, &capsule) ||
        handler_in(capsule) == NULL)
        return NULL;
    PyObject *old = default_handler();
    if (old == NULL)
        return NULL;
    if (!is_laid_out(object, old)) {
        Py_DECREF(old);
        PyErr_SetString(PyExc_RuntimeError,
                        "this Python keeps its context variables in a way that pyalloc does not know, so no handler "
                        "can be set for all threads: use install(threads=False), or handler() in each thread");
        return NULL;
    }
    Py_INCREF(capsule);
    ((context_variable *)object)->fallback = capsule;
    Py_DECREF(old);             /* the variable's reference; the caller gets the other one */
    return old;
}

PyMethodDef pa_numpy_methods[] = {
    {"numpy_attach", py_attach, METH_O,
     "numpy_attach($module, array_api, /)\n--\n\n"
     "Takes NumPy's functions out of its C API table; NumPy's own handler.  RuntimeError before 1.22."},
    {"numpy_handler", py_handler, METH_O,
     "numpy_handler($module, align, /)\n--\n\nThe handler for 16 or 64, always the same object; else ValueError."},
    {"numpy_describe", py_describe, METH_O,
     "numpy_describe($module, handler, /)\n--\n\nA handler's name, and its alignment when it is ours, else 0."},
    {"numpy_huge_pages", py_huge_pages, METH_O,
     "numpy_huge_pages($module, on, /)\n--\n\nShall large arrays ask for huge pages?  What was set before."},
    {"numpy_current", py_current, METH_NOARGS,
     "numpy_current($module, /)\n--\n\nThe handler that a new array gets in the calling context."},
    {"numpy_set_current", py_set_current, METH_O,
     "numpy_set_current($module, handler, /)\n--\n\nSets it in the calling context; the one before."},
    {"numpy_default", py_default, METH_NOARGS,
     "numpy_default($module, /)\n--\n\nThe handler that a new array gets in a context where nobody set one."},
    {"numpy_set_default", py_set_default, METH_VARARGS,
     "numpy_set_default($module, variable, handler, /)\n--\n\n"
     "Sets that, given NumPy's context variable; the one before.  RuntimeError, and nothing is changed, when the\n"
     "variable's default does not lie where it is looked for."},
    {NULL, NULL, 0, NULL},
};
