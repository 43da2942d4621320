/* inline_layout.c - what include/pyalloc_inline.h reads is where it reads it.
 *
 * Owns nothing, makes no code.  A change of one of these layouts changes what programs were compiled with: raise
 * PA_ABI_VERSION together with the numbers in the header.
 */
#include "include/pyalloc_inline.h"
#include "world/proc.h"

_Static_assert((int)PA_INLINE_ABI_VERSION == (int)PA_ABI_VERSION, "the header is of another interface");
_Static_assert(offsetof(pa_mcache, gc) == (size_t)PA_INLINE_STATE_OFFSET, "PA_INLINE_STATE_OFFSET");

#define SAME_PLACE(field)                                                                                   \
    _Static_assert(offsetof(pa_inline_state, field) == offsetof(pa_gcproc, field) &&                        \
                       sizeof((pa_inline_state *)0)->field == sizeof((pa_gcproc *)0)->field,                \
                   "pa_inline_state: " #field)
SAME_PLACE(inside);
SAME_PLACE(stop);
SAME_PLACE(depth);
SAME_PLACE(marking);
SAME_PLACE(no_fence);
