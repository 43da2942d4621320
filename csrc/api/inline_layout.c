/* inline_layout.c - what include/pyalloc_inline.h reads is where it reads it.
 *
 * Owns nothing, makes no code.  A change of one of these layouts changes what programs were compiled with: raise
 * PA_ABI_VERSION together with the numbers in the header.
 */
#include "include/pyalloc_inline.h"
#include "gc/type.h"
#include "world/proc.h"

_Static_assert((int)PA_INLINE_ABI_VERSION == (int)PA_ABI_VERSION, "the header is of another interface");
_Static_assert(offsetof(pa_mcache, gc) == (size_t)PA_INLINE_STATE_OFFSET, "PA_INLINE_STATE_OFFSET");

#define SAME_PLACE(theirs, ours, field, our_field)                                                          \
    _Static_assert(offsetof(theirs, field) == offsetof(ours, our_field) &&                                  \
                       sizeof(((theirs *)0)->field) == sizeof(((ours *)0)->our_field),                      \
                   #theirs ": " #field)
SAME_PLACE(pa_inline_state, pa_gcproc, inside, inside);
SAME_PLACE(pa_inline_state, pa_gcproc, stop, stop);
SAME_PLACE(pa_inline_state, pa_gcproc, depth, depth);
SAME_PLACE(pa_inline_state, pa_gcproc, marking, marking);
SAME_PLACE(pa_inline_state, pa_gcproc, no_fence, no_fence);
SAME_PLACE(pa_inline_state, pa_gcproc, spans, alloc[PA_KIND_SCAN - 1]);
SAME_PLACE(pa_inline_span, pa_span, bump, bump);
SAME_PLACE(pa_inline_span, pa_span, layout, layout);
SAME_PLACE(pa_inline_span, pa_span, bump_end, bump_end);
SAME_PLACE(pa_inline_type, pa_type, slot_bytes, slot_bytes);
SAME_PLACE(pa_inline_type, pa_type, layout, fast_layout);
SAME_PLACE(pa_inline_type, pa_type, size_class, size_class);
