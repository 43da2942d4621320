/* cfi.h - a frame of the native stack up, by rules learned from the unwind tables (.eh_frame).
 *
 * A cursor stands in a function and knows the three registers that lead to its caller.  Most functions find the end of
 * their frame at a distance from the stack or frame pointer; what is beyond that (signal frames, realigned stacks) is
 * for libgcc, which takes 2,500 instructions a frame.
 */
#ifndef PA_CFI_H
#define PA_CFI_H

#include "base/registers.h"

typedef struct pa_cursor {
    uintptr_t pc, sp, fp; /* pc: behind the call that leads inwards */
} pa_cursor;

typedef enum pa_cfi_result { PA_CFI_UP, PA_CFI_END, PA_CFI_UNKNOWN } pa_cfi_result;

/* libgcc's look-up of an address in the tables, given once before anything else; NULL, and on other machines: every
 * step is UNKNOWN. */
typedef const void *pa_cfi_find(void *pc, void *bases);
void pa_cfi_prepare(pa_cfi_find *find);

/* A walk is between begin and end. False: another walk is on, in a thread or under a signal handler. Takes the
 * loader's lock for a moment. */
bool pa_cfi_begin(void);
void pa_cfi_end(void);
/* To the caller's frame. */
pa_cfi_result pa_cfi_step(pa_cursor *c);

/* Where this is used: in a function that stands until the walk is over. */
PA_INLINE pa_cursor pa_cfi_here(void)
{
    pa_registers r = pa_registers_here();
    return (pa_cursor){r.pc + 1, r.sp, r.fp}; /* as if behind a call */
}

/* In a fork child, whose other threads are gone. */
void pa_cfi_fork_child(void);

#endif
