/* unwind.h - the native stack of the calling thread, as return addresses. */
#ifndef PA_UNWIND_H
#define PA_UNWIND_H

#include <errno.h>
#include <execinfo.h>
#include <string.h>

#include "base/config.h"

enum {
    PA_UNWIND_MAX = 64,
    PA_UNWIND_OURS = 8, /* at most so many frames of our own stand before the caller's */
};

/* Loads what unwinding needs, which allocates; once, before pa_unwind. Any thread, no lock held. */
void pa_unwind_prepare(void);
/* Is the address in this library's own code? False where that cannot be told from the program's. */
bool pa_unwind_is_ours(uintptr_t address);

/* Return addresses, innermost first, of the callers of this library; how many. Allocates nothing after
 * pa_unwind_prepare; keeps errno. Inlined into who asks, as every frame costs 2,500 instructions. */
PA_INLINE size_t pa_unwind(uintptr_t *out, size_t capacity)
{
    void *frames[PA_UNWIND_MAX + PA_UNWIND_OURS];
    int saved_errno = errno;
    size_t most = capacity < PA_UNWIND_MAX ? capacity : PA_UNWIND_MAX;
    int found = backtrace(frames, (int)most + PA_UNWIND_OURS);
    size_t count = found > 0 ? (size_t)found : 0, first = 0;
    while (first < count && pa_unwind_is_ours((uintptr_t)frames[first]))
        first++;
    count -= first;
    if (count > most)
        count = most;
    if (count && !frames[first + count - 1]) /* some end the stack with a zero */
        count--;
    memcpy(out, frames + first, count * sizeof *out);
    errno = saved_errno;
    return count;
}

#endif
