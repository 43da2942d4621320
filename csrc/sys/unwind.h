/* unwind.h - the native stack of the calling thread, as return addresses. */
#ifndef PA_UNWIND_H
#define PA_UNWIND_H

#include <errno.h>
#include <unwind.h>

#include "sys/cfi.h"
#include "sys/symbols.h"

/* A walk, from the innermost frame on. */
typedef struct pa_unwinding {
    uintptr_t *out;
    size_t count, capacity;
    pa_code_range until; /* the first frame in there ends it, and is not one of the result; empty: none does */
    bool ended;          /* there was one */
} pa_unwinding;

/* libgcc's; written by pa_unwind_prepare. */
typedef _Unwind_Reason_Code pa_unwind_call(_Unwind_Trace_Fn step, void *argument);
extern PA_HIDDEN pa_unwind_call *pa_the_unwinder;

/* Loads what unwinding needs, which allocates; once, before pa_unwind. Any thread, no lock held. */
void pa_unwind_prepare(void);
_Unwind_Reason_Code pa_unwind_step(struct _Unwind_Context *context, void *unwinding);
/* By rules of our own, from a frame that stands. False: they do not suffice. */
bool pa_unwind_by_rules(pa_unwinding *w, pa_cursor from);
/* By libgcc. */
PA_INLINE void pa_unwind_by_libgcc(pa_unwinding *w)
{
    w->count = 0;
    w->ended = false;
    if (pa_the_unwinder)
        pa_the_unwinder(pa_unwind_step, w);
}

/* Return addresses, innermost first, of the callers of this library. Allocates nothing after pa_unwind_prepare; keeps
 * errno. Inlined into who asks, as every frame of libgcc's costs 2,500 instructions. */
PA_INLINE void pa_unwind(pa_unwinding *w)
{
    int saved_errno = errno;
    if (!pa_unwind_by_rules(w, pa_cfi_here()))
        pa_unwind_by_libgcc(w);
    errno = saved_errno;
}

#endif
