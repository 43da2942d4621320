/* numpy_shim.c - any malloc library behind a NumPy memory handler, for bench/numpy_pipeline.py alone.
 *
 * The library is opened in a scope of its own, so it becomes nobody else's malloc, and its four functions are found by
 * name.  The structure is the one that pyalloc's own hook fills in.  State: the pointers, written once by shim_open.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "python/numpy_abi.h"

static void *(*lib_malloc)(size_t);
static void *(*lib_calloc)(size_t, size_t);
static void *(*lib_realloc)(void *, size_t);
static void (*lib_free)(void *);

static void *shim_malloc(void *context, size_t nbytes)
{
    (void)context;
    return lib_malloc(nbytes);
}

static void *shim_calloc(void *context, size_t count, size_t nbytes)
{
    (void)context;
    return lib_calloc(count, nbytes);
}

static void *shim_realloc(void *context, void *p, size_t nbytes)
{
    (void)context;
    return lib_realloc(p, nbytes);
}

static void shim_free(void *context, void *p, size_t nbytes)
{
    (void)context;
    (void)nbytes;
    lib_free(p);
}

static pa_numpy_handler handler = {
    .name = "shim",
    .version = PA_NUMPY_HANDLER_VERSION,
    .malloc = shim_malloc,
    .calloc = shim_calloc,
    .realloc = shim_realloc,
    .free = shim_free,
};

static bool find(void *library, const char *prefix, const char *name, void *pointer)
{
    char symbol[64];
    snprintf(symbol, sizeof symbol, "%s%s", prefix, name);
    void *found = dlsym(library, symbol);
    memcpy(pointer, &found, sizeof found);
    return found != NULL;
}

/* The handler, or NULL when the library or one of its functions PREFIXmalloc, ... is not there: see dlerror(). */
pa_numpy_handler *shim_open(const char *path, const char *prefix)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL || !find(library, prefix, "malloc", &lib_malloc) ||
        !find(library, prefix, "calloc", &lib_calloc) || !find(library, prefix, "realloc", &lib_realloc) ||
        !find(library, prefix, "free", &lib_free))
        return NULL;
    return &handler;
}
