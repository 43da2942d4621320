/* pymem_hook.h - Python's own objects from our heap: see pymem_hook.c. */
#ifndef PA_PYTHON_PYMEM_HOOK_H
#define PA_PYTHON_PYMEM_HOOK_H

#include "python/core.h"

/* raw, mem and obj, by the numbers of PyMemAllocatorDomain. */
enum { PA_PYMEM_DOMAINS = PYMEM_DOMAIN_OBJ + 1 };

/* Module functions pymem_install(), pymem_disable() and pymem_rows(). */
extern PyMethodDef pa_pymem_methods[];

#endif
