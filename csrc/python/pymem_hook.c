/* pymem_hook.c - Python's own objects from our heap: a hook over PyMem_SetAllocator.
 *
 * CPython has three allocators, one a domain: raw (may be called without the GIL), mem and obj.  The hook replaces
 * the functions of a domain and keeps those that were there.  New blocks come from pa_malloc and its family; a block
 * that is freed or resized is asked whose it is, and one of the allocator before (foreign) goes back there.  Nothing
 * is counted or tested for blocks of ours but "is the hook on?".
 *
 * A foreign block that is resized stays foreign: how large it is only its own allocator knows (pymalloc tells nobody,
 * and malloc_usable_size must not see a block of pymalloc), so it could not be copied without reading past its end.
 *
 * Rules:
 *   1. A hook once set is never taken away, since blocks of ours live on; off only sends new blocks to the allocator
 *      before.  Whoever hooks later (tracemalloc) keeps a copy of our functions: so "off" is a flag in here, and not
 *      another set of functions.
 *   2. What is hooked already must not be taken away beneath us either: its owner would put the allocator before back,
 *      which would then be given our blocks.  So only the interpreter's own allocators are hooked, recognised by their
 *      address and by their having no context.  (The debug hooks and tracemalloc have one.)
 *   3. No Python object is touched, and the code stays mapped: CPython never unloads an extension module.  So frees
 *      after the module is gone and after Py_Finalize work.
 *   4. The functions ignore their context.  CPython swaps function and context with plain stores, and another thread
 *      (raw, or an interpreter with a GIL of its own) may see one of each.
 *
 * Locks: the GIL for installing.  What the functions read is in pa_pymem_hook.  Go counterpart: none.
 */
#include "python/pymem_hook.h"

#include <dlfcn.h>
#include <stdatomic.h>

/* One domain. */
typedef struct pa_pymem_hook {
    /* Written once, under the GIL, before CPython is given our functions; read by these from any thread. A thread that
     * has our function already waits for nothing: the full fence of install() comes before the function's store. */
    PyMemAllocatorEx old;
    bool installed;                 /* under the GIL */
    /* Written under the GIL, read by any thread, relaxed: a block is right whichever allocator it comes from. */
    _Atomic bool off;
    /* Written by any thread with a load and a store, relaxed: threads that hold no common GIL may lose counts. */
    _Atomic uint64_t foreign_frees, foreign_reallocs;
} pa_pymem_hook;

static pa_pymem_hook hooks[PA_PYMEM_DOMAINS];

static inline void count(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

/* ---- What a domain does ------------------------------------------------------------------------ */

static inline bool is_off(const pa_pymem_hook *hook)
{
    return PA_UNLIKELY(atomic_load_explicit(&hook->off, memory_order_relaxed));
}

static void free_foreign(pa_pymem_hook *hook, void *p)
{
    if (p == NULL)
        return;
    count(&hook->foreign_frees);
    hook->old.free(hook->old.ctx, p);
}

static inline void *hook_malloc(const pa_pymem_hook *hook, size_t nbytes)
{
    return is_off(hook) ? hook->old.malloc(hook->old.ctx, nbytes) : pa_malloc(nbytes);
}

static inline void *hook_calloc(const pa_pymem_hook *hook, size_t nitems, size_t nbytes)
{
    return is_off(hook) ? hook->old.calloc(hook->old.ctx, nitems, nbytes) : pa_calloc(nitems, nbytes);
}

/* Never gives NULL for 0 bytes, as pa_realloc does. */
static inline void *hook_realloc(pa_pymem_hook *hook, void *p, size_t nbytes)
{
    if (p == NULL)
        return hook_malloc(hook, nbytes);
    if (PA_LIKELY(pa_owns(p)))
        return pa_realloc(p, nbytes + (nbytes == 0));
    count(&hook->foreign_reallocs);
    return hook->old.realloc(hook->old.ctx, p, nbytes);
}

/* ---- The functions that CPython calls: rule 4 is why there is a set a domain ---------------------- */

static void *raw_malloc(void *unused, size_t nbytes)
{
    return hook_malloc(&hooks[PYMEM_DOMAIN_RAW], nbytes);
}

static void *raw_calloc(void *unused, size_t nitems, size_t nbytes)
{
    return hook_calloc(&hooks[PYMEM_DOMAIN_RAW], nitems, nbytes);
}

static void *raw_realloc(void *unused, void *p, size_t nbytes)
{
    return hook_realloc(&hooks[PYMEM_DOMAIN_RAW], p, nbytes);
}

static void raw_free_foreign(void *p)
{
    free_foreign(&hooks[PYMEM_DOMAIN_RAW], p);
}

static void raw_free(void *unused, void *p)
{
    pa_free_or(p, raw_free_foreign);
}

static void *mem_malloc(void *unused, size_t nbytes)
{
    return hook_malloc(&hooks[PYMEM_DOMAIN_MEM], nbytes);
}

static void *mem_calloc(void *unused, size_t nitems, size_t nbytes)
{
    return hook_calloc(&hooks[PYMEM_DOMAIN_MEM], nitems, nbytes);
}

static void *mem_realloc(void *unused, void *p, size_t nbytes)
{
    return hook_realloc(&hooks[PYMEM_DOMAIN_MEM], p, nbytes);
}

static void mem_free_foreign(void *p)
{
    free_foreign(&hooks[PYMEM_DOMAIN_MEM], p);
}

static void mem_free(void *unused, void *p)
{
    pa_free_or(p, mem_free_foreign);
}

static void *obj_malloc(void *unused, size_t nbytes)
{
    return hook_malloc(&hooks[PYMEM_DOMAIN_OBJ], nbytes);
}

static void *obj_calloc(void *unused, size_t nitems, size_t nbytes)
{
    return hook_calloc(&hooks[PYMEM_DOMAIN_OBJ], nitems, nbytes);
}

static void *obj_realloc(void *unused, void *p, size_t nbytes)
{
    return hook_realloc(&hooks[PYMEM_DOMAIN_OBJ], p, nbytes);
}

static void obj_free_foreign(void *p)
{
    free_foreign(&hooks[PYMEM_DOMAIN_OBJ], p);
}

static void obj_free(void *unused, void *p)
{
    pa_free_or(p, obj_free_foreign);
}

static const PyMemAllocatorEx ours[PA_PYMEM_DOMAINS] = {
    [PYMEM_DOMAIN_RAW] = {NULL, raw_malloc, raw_calloc, raw_realloc, raw_free},
    [PYMEM_DOMAIN_MEM] = {NULL, mem_malloc, mem_calloc, mem_realloc, mem_free},
    [PYMEM_DOMAIN_OBJ] = {NULL, obj_malloc, obj_calloc, obj_realloc, obj_free},
};

static const char *const names[PA_PYMEM_DOMAINS] = {
    [PYMEM_DOMAIN_RAW] = "raw", [PYMEM_DOMAIN_MEM] = "mem", [PYMEM_DOMAIN_OBJ] = "obj",
};

/* ---- Installing ------------------------------------------------------------------------------------ */

/* Is the domain's allocator one of the interpreter's own, and nothing that wraps another?  RuntimeError. */
static int check_plain(PyMemAllocatorDomain domain, const PyMemAllocatorEx *found)
{
    Dl_info interpreter, theirs;
    if (dladdr((void *)PyMem_GetAllocator, &interpreter) == 0 || dladdr((void *)found->malloc, &theirs) == 0) {
        PyErr_Format(PyExc_RuntimeError, "cannot tell whose allocator the domain %s has", names[domain]);
        return -1;
    }
    if (interpreter.dli_fbase != theirs.dli_fbase) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s has hooked the allocator of the domain %s; when it takes that away again, blocks of "
                     "pyalloc would be freed by the wrong allocator: call pyalloc.python.install() before it",
                     theirs.dli_fname, names[domain]);
        return -1;
    }
    if (found->ctx != NULL) {
        PyErr_Format(PyExc_RuntimeError,
                     "Python's debug hooks check the domain %s, and would not see blocks of pyalloc: run without "
                     "PYTHONMALLOC=debug and -X dev (PYTHONMALLOC=malloc with -X dev has no hooks)", names[domain]);
        return -1;
    }
    return 0;
}

static int read_domains(PyObject *arg, unsigned *mask)
{
    unsigned long value = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred())
        return -1;
    if (value >= 1u << PA_PYMEM_DOMAINS) {
        PyErr_SetString(PyExc_ValueError, "no such domain");
        return -1;
    }
    *mask = (unsigned)value;
    return 0;
}

static PyObject *py_install(PyObject *module, PyObject *arg)
{
    (void)module;
    unsigned mask;
    PyMemAllocatorEx found[PA_PYMEM_DOMAINS];
    if (read_domains(arg, &mask) < 0)
        return NULL;
    for (int d = 0; d < PA_PYMEM_DOMAINS; d++) {
        if (!(mask >> d & 1) || hooks[d].installed)
            continue;
        PyMem_GetAllocator((PyMemAllocatorDomain)d, &found[d]);
        if (check_plain((PyMemAllocatorDomain)d, &found[d]) < 0)
            return NULL;
    }
    for (int d = 0; d < PA_PYMEM_DOMAINS; d++) {
        if (!(mask >> d & 1))
            continue;
        atomic_store_explicit(&hooks[d].off, false, memory_order_relaxed);
        if (hooks[d].installed)
            continue;
        hooks[d].old = found[d];
        hooks[d].installed = true;
        atomic_thread_fence(memory_order_seq_cst);
        PyMemAllocatorEx hook = ours[d];
        PyMem_SetAllocator((PyMemAllocatorDomain)d, &hook);
    }
    Py_RETURN_NONE;
}

static PyObject *py_disable(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    for (int d = 0; d < PA_PYMEM_DOMAINS; d++)
        atomic_store_explicit(&hooks[d].off, true, memory_order_relaxed);
    Py_RETURN_NONE;
}

static PyObject *py_rows(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *list = PyList_New(0);
    for (int d = 0; list != NULL && d < PA_PYMEM_DOMAINS; d++) {
        pa_pymem_hook *hook = &hooks[d];
        bool on = hook->installed && !atomic_load_explicit(&hook->off, memory_order_relaxed);
        list = pa_list_append_new(list, Py_BuildValue(
            "(sNNKK)", names[d], PyBool_FromLong(hook->installed), PyBool_FromLong(on),
            atomic_load_explicit(&hook->foreign_frees, memory_order_relaxed),
            atomic_load_explicit(&hook->foreign_reallocs, memory_order_relaxed)));
    }
    return list;
}

PyDoc_STRVAR(install_doc, "pymem_install($module, domains, /)\n--\n\n"
             "Hooks the domains of a bit mask (1 raw, 2 mem, 4 obj), all or none; RuntimeError says why not.");
PyDoc_STRVAR(disable_doc, "pymem_disable($module, /)\n--\n\n"
             "New blocks come from the allocators before; the hooks stay.");
PyDoc_STRVAR(rows_doc, "pymem_rows($module, /)\n--\n\n"
             "For each domain: name, hooked, on, foreign blocks freed, foreign blocks resized.");

PyMethodDef pa_pymem_methods[] = {
    {"pymem_install", py_install, METH_O, install_doc},
    {"pymem_disable", py_disable, METH_NOARGS, disable_doc},
    {"pymem_rows", py_rows, METH_NOARGS, rows_doc},
    {NULL, NULL, 0, NULL},
};
