/* cxx.h - C++'s operators new and delete, by their mangled names (Itanium ABI, size_t is unsigned long).
 *
 * The two primary news and pa_free behind operator delete(void *) do the work; all other forms end in them, as
 * the C++ standard says, because a program may replace the primary ones only.
 */
#ifndef PA_PRELOAD_CXX_H
#define PA_PRELOAD_CXX_H

#include "base/config.h"

/* Declared as found at run time: a program's own replacement comes before ours. */
void *_Znwm(size_t nbytes);
void *_ZnwmSt11align_val_t(size_t nbytes, size_t align);
void _ZdlPv(void *p);
void _ZdlPvSt11align_val_t(void *p, size_t align);

/* Ours, whatever the names above lead to. */
PA_HIDDEN void *pa_cxx_new(size_t nbytes);
PA_HIDDEN void *pa_cxx_new_aligned(size_t nbytes, size_t align);

/* The C++ library's operator of that name, NULL when the process has none. */
PA_HIDDEN void *pa_cxx_library_operator(const char *name);

#endif
