/* unwind.h - the native stack of the calling thread, as return addresses. */
#ifndef PA_UNWIND_H
#define PA_UNWIND_H

#include "base/config.h"

/* Loads what unwinding needs, which allocates; once, before pa_unwind. Any thread, no lock held. */
void pa_unwind_prepare(void);
/* Return addresses, innermost first, of the callers of this library; how many. Allocates nothing after
 * pa_unwind_prepare; keeps errno. */
size_t pa_unwind(uintptr_t *out, size_t capacity);
/* Is the address in this library's own code? False where that cannot be told from the program's. */
bool pa_unwind_is_ours(uintptr_t address);

#endif
