/* core.c - the module pyalloc._core: what Python sees of the library through the CPython C API.
 *
 * It is linked against libpyalloc.so beside it (rpath $ORIGIN).  When a libpyalloc.so is preloaded,
 * the loader binds to that one, since the SONAME is the same, and both share one heap.  It may be
 * of another version, so the ABI number is compared before anything else is touched.
 *
 * Single-phase initialisation with a static type, on purpose: the type and its free list are one a
 * process, and CPython then keeps the module out of interpreters with a GIL of their own, and turns
 * the GIL on in free-threaded builds.  They do not survive Py_Finalize: classes of the interpreter that is gone are in
 * the table of layouts and among the subclasses of static types.  So the module can be had once a process, as NumPy.
 * State: pa_out_of_memory_error, the free lists of buffer.c and managed.c,
 * the table of layouts, cleanup.c's receiver, sites.c's table, the allocators beneath pymem_hook.c, and
 * numpy_hook.c's capsules.
 */
#include "python/core.h"

#include <string.h>

#include "python/buffer.h"
#include "python/frames.h"
#include "python/gccontrol.h"
#include "python/items.h"
#include "python/numpy_hook.h"
#include "python/pymem_hook.h"
#include "python/sites.h"
#include "python/snapshot.h"
#include "python/struct_type.h"
#include "python/traced.h"
#include "python/weak.h"

PyObject *pa_out_of_memory_error;

static void core_free(void *module)
{
    (void)module;
    pa_buffer_drop_free_list();
    pa_managed_drop_free_list();
}

PyDoc_STRVAR(core_doc, "Buffers and heap reports of pyalloc, in C.  Import pyalloc, not this module.");

static PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyalloc._core",
    .m_doc = core_doc,
    .m_size = -1,
    .m_free = core_free,
};

static bool finalized; /* Py_Finalize has run since the module was made; the GIL */

static void note_finalized(void)
{
    finalized = true;
}

static int check_finalized(void)
{
    if (!finalized)
        return 0;
    PyErr_SetString(PyExc_ImportError, "pyalloc was imported before Py_Finalize(), and its classes cannot be taken "
                    "over by the interpreter of another Py_Initialize(): import it once a process");
    return -1;
}

static int check_abi(void)
{
    int loaded = pa_abi_version();
    if (loaded == PA_ABI_VERSION)
        return 0;
    PyErr_Format(PyExc_ImportError,
                 "the libpyalloc.so in this process has ABI %d, but this pyalloc was built for ABI %d: "
                 "another version is preloaded (see LD_PRELOAD) or the installation is mixed; "
                 "preload the path that pyalloc.preload.path() names, or install pyalloc again",
                 loaded, PA_ABI_VERSION);
    return -1;
}

static int add_exception(PyObject *module)
{
    if (pa_out_of_memory_error == NULL)
        pa_out_of_memory_error = PyErr_NewExceptionWithDoc(
            "pyalloc.OutOfMemoryError", "The heap could not get the memory; a MemoryError.",
            PyExc_MemoryError, NULL);
    if (pa_out_of_memory_error == NULL)
        return -1;
    Py_INCREF(pa_out_of_memory_error);
    return PyModule_AddObject(module, "OutOfMemoryError", pa_out_of_memory_error);
}

static int add_types(PyObject *module)
{
    static PyTypeObject *const types[] = {
        &pa_buffer_type, &pa_managed_type, &pa_struct_meta, &pa_struct_class_root.heap.ht_type, &pa_field_type,
        &pa_refarray_type, &pa_bytes_type, &pa_weakref_type,
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        Py_INCREF(types[i]);
        if (PyModule_AddObject(module, strrchr(types[i]->tp_name, '.') + 1, (PyObject *)types[i]) < 0)
            return -1;
    }
    return 0;
}

static int add_functions(PyObject *module)
{
    static PyMethodDef *const methods[] = {
        pa_buffer_methods, pa_heapinfo_methods, pa_items_methods, pa_field_methods, pa_weak_methods,
        pa_gccontrol_methods, pa_cleanup_methods, pa_snapshot_methods, pa_sites_methods, pa_pymem_methods,
        pa_numpy_methods, pa_frames_methods,
    };
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        if (PyModule_AddFunctions(module, methods[i]) < 0)
            return -1;
    }
    return 0;
}

PyMODINIT_FUNC PyInit__core(void)
{
    if (check_abi() < 0 || check_finalized() < 0)
        return NULL;
    if (PyType_Ready(&pa_buffer_type) < 0 || PyType_Ready(&pa_managed_type) < 0 || pa_items_init() < 0 ||
        pa_struct_type_init() < 0 || PyType_Ready(&pa_weakref_type) < 0)
        return NULL;
    PyObject *module = PyModule_Create(&core_module);
    if (module == NULL)
        return NULL;
    if (add_functions(module) < 0 || add_types(module) < 0 || add_exception(module) < 0 ||
        PyModule_AddIntConstant(module, "ABI_VERSION", PA_ABI_VERSION) < 0 ||
        PyModule_AddIntConstant(module, "TRACEMALLOC_DOMAIN", PA_TRACED_DOMAIN) < 0 || pa_frames_install() < 0) {
        Py_DECREF(module);
        return NULL;
    }
    (void)Py_AtExit(note_finalized); /* it has room for 32: past that nobody notices a second life */
    pa_start_background();
    return module;
}
