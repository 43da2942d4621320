/* cxx_forms.c - the array, sized and nothrow forms of operator new and delete.
 *
 * A shim over the primary forms, no state.  The C++ standard lets a program replace operator new(size_t) and
 * operator delete(void *) alone and promises that these forms then end in its replacement, so they jump
 * through the dynamic linker's table, where ours stand unless the program has its own.  A nothrow new whose
 * primary form is replaced, or that fails, is left to the C++ library: only C++ can catch what a new_handler
 * throws.
 */
#include "include/pyalloc.h"
#include "preload/cxx.h"

/* std::nothrow_t by reference. */
typedef const void *nothrow_tag;

void *_Znam(size_t nbytes);
void *_ZnamSt11align_val_t(size_t nbytes, size_t align);
void *_ZnwmRKSt9nothrow_t(size_t nbytes, nothrow_tag tag);
void *_ZnamRKSt9nothrow_t(size_t nbytes, nothrow_tag tag);
void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t nbytes, size_t align, nothrow_tag tag);
void *_ZnamSt11align_val_tRKSt9nothrow_t(size_t nbytes, size_t align, nothrow_tag tag);
void _ZdaPv(void *p);
void _ZdlPvm(void *p, size_t nbytes);
void _ZdaPvm(void *p, size_t nbytes);
void _ZdlPvRKSt9nothrow_t(void *p, nothrow_tag tag);
void _ZdaPvRKSt9nothrow_t(void *p, nothrow_tag tag);
void _ZdaPvSt11align_val_t(void *p, size_t align);
void _ZdlPvmSt11align_val_t(void *p, size_t nbytes, size_t align);
void _ZdaPvmSt11align_val_t(void *p, size_t nbytes, size_t align);
void _ZdlPvSt11align_val_tRKSt9nothrow_t(void *p, size_t align, nothrow_tag tag);
void _ZdaPvSt11align_val_tRKSt9nothrow_t(void *p, size_t align, nothrow_tag tag);

/* ---- New ---- */

PA_EXPORT void *_Znam(size_t nbytes)
{
    return _Znwm(nbytes);
}

PA_EXPORT void *_ZnamSt11align_val_t(size_t nbytes, size_t align)
{
    return _ZnwmSt11align_val_t(nbytes, align);
}

/* The C++ library's nothrow new: NULL when there is none, as when memory is out. */
static PA_COLD void *nothrow_in_library(const char *name, size_t nbytes, nothrow_tag tag)
{
    void *(*library_new)(size_t, nothrow_tag) = (void *(*)(size_t, nothrow_tag))pa_cxx_library_operator(name);
    return library_new ? library_new(nbytes, tag) : NULL;
}

static PA_COLD void *aligned_nothrow_in_library(const char *name, size_t nbytes, size_t align, nothrow_tag tag)
{
    void *(*library_new)(size_t, size_t, nothrow_tag) =
        (void *(*)(size_t, size_t, nothrow_tag))pa_cxx_library_operator(name);
    return library_new ? library_new(nbytes, align, tag) : NULL;
}

PA_EXPORT void *_ZnwmRKSt9nothrow_t(size_t nbytes, nothrow_tag tag)
{
    void *p = PA_LIKELY(_Znwm == pa_cxx_new) ? pa_malloc(nbytes) : NULL;
    return PA_LIKELY(p != NULL) ? p : nothrow_in_library("_ZnwmRKSt9nothrow_t", nbytes, tag);
}

PA_EXPORT void *_ZnamRKSt9nothrow_t(size_t nbytes, nothrow_tag tag)
{
    void *p = PA_LIKELY(_Znwm == pa_cxx_new) ? pa_malloc(nbytes) : NULL;
    return PA_LIKELY(p != NULL) ? p : nothrow_in_library("_ZnamRKSt9nothrow_t", nbytes, tag);
}

PA_EXPORT void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t nbytes, size_t align, nothrow_tag tag)
{
    void *p = PA_LIKELY(_ZnwmSt11align_val_t == pa_cxx_new_aligned) ? pa_memalign(align, nbytes) : NULL;
    return PA_LIKELY(p != NULL)
               ? p
               : aligned_nothrow_in_library("_ZnwmSt11align_val_tRKSt9nothrow_t", nbytes, align, tag);
}

PA_EXPORT void *_ZnamSt11align_val_tRKSt9nothrow_t(size_t nbytes, size_t align, nothrow_tag tag)
{
    void *p = PA_LIKELY(_ZnwmSt11align_val_t == pa_cxx_new_aligned) ? pa_memalign(align, nbytes) : NULL;
    return PA_LIKELY(p != NULL)
               ? p
               : aligned_nothrow_in_library("_ZnamSt11align_val_tRKSt9nothrow_t", nbytes, align, tag);
}

/* ---- Delete: the alignment and the size say nothing that the page table does not know ---- */

PA_EXPORT void _ZdaPv(void *p)
{
    _ZdlPv(p);
}

PA_EXPORT void _ZdlPvm(void *p, size_t nbytes)
{
    (void)nbytes;
    _ZdlPv(p);
}

PA_EXPORT void _ZdaPvm(void *p, size_t nbytes)
{
    (void)nbytes;
    _ZdlPv(p);
}

PA_EXPORT void _ZdlPvRKSt9nothrow_t(void *p, nothrow_tag tag)
{
    (void)tag;
    _ZdlPv(p);
}

PA_EXPORT void _ZdaPvRKSt9nothrow_t(void *p, nothrow_tag tag)
{
    (void)tag;
    _ZdlPv(p);
}

PA_EXPORT void _ZdaPvSt11align_val_t(void *p, size_t align)
{
    _ZdlPvSt11align_val_t(p, align);
}

PA_EXPORT void _ZdlPvmSt11align_val_t(void *p, size_t nbytes, size_t align)
{
    (void)nbytes;
    _ZdlPvSt11align_val_t(p, align);
}

PA_EXPORT void _ZdaPvmSt11align_val_t(void *p, size_t nbytes, size_t align)
{
    (void)nbytes;
    _ZdlPvSt11align_val_t(p, align);
}

PA_EXPORT void _ZdlPvSt11align_val_tRKSt9nothrow_t(void *p, size_t align, nothrow_tag tag)
{
    (void)tag;
    _ZdlPvSt11align_val_t(p, align);
}

PA_EXPORT void _ZdaPvSt11align_val_tRKSt9nothrow_t(void *p, size_t align, nothrow_tag tag)
{
    (void)tag;
    _ZdlPvSt11align_val_t(p, align);
}
