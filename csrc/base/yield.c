/* yield.c - the hook behind PA_YIELD in test builds; empty otherwise. Owns that one pointer. */
#include "base/yield.h"

#if PA_WHITEBOX
_Atomic(pa_yield_fn) pa_yield_hook;
#else
typedef int pa_yield_unused;
#endif
