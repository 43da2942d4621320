/* numpy_hook.h - the module functions behind pyalloc.numpy. */
#ifndef PA_PYTHON_NUMPY_HOOK_H
#define PA_PYTHON_NUMPY_HOOK_H

#include "python/core.h"

extern PyMethodDef pa_numpy_methods[];

#endif
