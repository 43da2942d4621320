/* cxx_new.c - operator new, plain and aligned, and what happens when memory is out.
 *
 * A shim: no state, no policy, and no C++ library at link or load time.  A failed allocation is left to
 * the operator of the same name in the C++ library of the process, which is there when somebody calls new: it
 * tries again (through our malloc), calls the new_handler, and throws std::bad_alloc with its own tables.
 * That library is found after us in the global scope, or, when a plugin brought it into a local scope, by its name.
 * Frames of this file may be unwound by that throw; they hold nothing.
 */
#include <dlfcn.h>
#include <stdlib.h>

#include "base/assert.h"
#include "include/pyalloc.h"
#include "preload/cxx.h"

void *pa_cxx_library_operator(const char *name)
{
    static const char *const libraries[] = {"libstdc++.so.6", "libc++.so.1", "libc++abi.so.1"};
    void *found = dlsym(RTLD_NEXT, name);
    for (size_t i = 0; !found && i < sizeof libraries / sizeof *libraries; i++) {
        void *handle = dlopen(libraries[i], RTLD_LAZY | RTLD_NOLOAD);
        if (handle) /* kept: the operator must not go away */
            found = dlsym(handle, name);
    }
    return found;
}

static _Noreturn PA_COLD void no_cxx_library(void)
{
    pa_log_line("operator new: out of memory, and no C++ library to throw std::bad_alloc");
    abort();
}

static PA_COLD void *new_failed(size_t nbytes)
{
    void *(*library_new)(size_t) = (void *(*)(size_t))pa_cxx_library_operator("_Znwm");
    if (!library_new)
        no_cxx_library();
    return library_new(nbytes);
}

static PA_COLD void *new_aligned_failed(size_t nbytes, size_t align)
{
    void *(*library_new)(size_t, size_t) =
        (void *(*)(size_t, size_t))pa_cxx_library_operator("_ZnwmSt11align_val_t");
    if (!library_new)
        no_cxx_library();
    return library_new(nbytes, align);
}

void *pa_cxx_new(size_t nbytes)
{
    void *p = pa_malloc(nbytes);
    return PA_LIKELY(p != NULL) ? p : new_failed(nbytes);
}

void *pa_cxx_new_aligned(size_t nbytes, size_t align)
{
    void *p = pa_memalign(align, nbytes);
    return PA_LIKELY(p != NULL) ? p : new_aligned_failed(nbytes, align);
}

PA_EXPORT void *_Znwm(size_t nbytes) __attribute__((alias("pa_cxx_new")));
PA_EXPORT void *_ZnwmSt11align_val_t(size_t nbytes, size_t align) __attribute__((alias("pa_cxx_new_aligned")));
