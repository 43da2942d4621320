/* numpy_abi.h - what NEP 49 fixes of NumPy's binary interface: the handler's structure, the places in the API table.
 *
 * Written from the documentation, so that no NumPy is needed to build.  NumPy promises both for all releases of one
 * handler version; numpy_hook.c compares the numbers that NumPy tells at run time.  Plain C without Python.h:
 * bench/numpy_shim.c puts other allocators behind the same structure.
 */
#ifndef PA_PYTHON_NUMPY_ABI_H
#define PA_PYTHON_NUMPY_ABI_H

#include <stddef.h>
#include <stdint.h>

/* Name of the capsules that hold a pa_numpy_handler. */
#define PA_NUMPY_CAPSULE "mem_handler"

enum { PA_NUMPY_HANDLER_VERSION = 1 };

typedef struct pa_numpy_handler {
    char name[127];
    uint8_t version;            /* PA_NUMPY_HANDLER_VERSION: which of the members below there are */
    void *context;              /* first argument of each function */
    void *(*malloc)(void *context, size_t nbytes);
    void *(*calloc)(void *context, size_t count, size_t nbytes);
    void *(*realloc)(void *context, void *p, size_t nbytes);
    void (*free)(void *context, void *p, size_t nbytes);
} pa_numpy_handler;

/* Entries of the table behind numpy's _ARRAY_API. */
enum {
    PA_NUMPY_API_ABI_VERSION = 0,               /* unsigned (void): 0x01... in NumPy 1, 0x02... in NumPy 2 */
    PA_NUMPY_API_FEATURE_VERSION = 211,         /* unsigned (void): grows with what the table has */
    PA_NUMPY_API_SET_HANDLER = 304,             /* PyObject *(PyObject *): sets, returns the old one */
    PA_NUMPY_API_GET_HANDLER = 305,             /* PyObject *(void) */
    PA_NUMPY_API_DEFAULT_HANDLER = 306,         /* PyObject **: NumPy's own, for ever */
};

enum { PA_NUMPY_FEATURES_1_22 = 0x0f };         /* the first table with handlers */

#endif
