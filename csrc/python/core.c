/* core.c - the module pyalloc._core: what Python sees of the library through the CPython C API.
 *
 * It is linked against libpyalloc.so beside it (rpath $ORIGIN).  When a libpyalloc.so is preloaded,
 * the loader binds to that one, since the SONAME is the same, and both share one heap.  It may be
 * of another version, so the ABI number is compared before anything else is touched.
 *
 * Single-phase initialisation with a static type, on purpose: the type and its free list are one a
 * process, and CPython then keeps the module out of interpreters with a GIL of their own, and turns
 * the GIL on in free-threaded builds.  State: pa_out_of_memory_error, and buffer.c's free list.
 */
#include "python/core.h"

#include "python/buffer.h"

PyObject *pa_out_of_memory_error;

static void core_free(void *module)
{
    (void)module;
    pa_buffer_drop_free_list();
}

PyDoc_STRVAR(core_doc, "Buffers and heap reports of pyalloc, in C.  Import pyalloc, not this module.");

static PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyalloc._core",
    .m_doc = core_doc,
    .m_size = -1,
    .m_free = core_free,
};

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

PyMODINIT_FUNC PyInit__core(void)
{
    if (check_abi() < 0 || PyType_Ready(&pa_buffer_type) < 0)
        return NULL;
    PyObject *module = PyModule_Create(&core_module);
    if (module == NULL)
        return NULL;
    Py_INCREF(&pa_buffer_type);
    if (PyModule_AddFunctions(module, pa_buffer_methods) < 0 ||
        PyModule_AddFunctions(module, pa_heapinfo_methods) < 0 || add_exception(module) < 0 ||
        PyModule_AddObject(module, "Buffer", (PyObject *)&pa_buffer_type) < 0 ||
        PyModule_AddIntConstant(module, "ABI_VERSION", PA_ABI_VERSION) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
