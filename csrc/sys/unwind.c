/* unwind.c - walking the native stack by its unwind tables, through the C library's backtrace().
 *
 * Owns the range of addresses of the library's own code, written by pa_unwind_prepare.  Frame pointers would be
 * faster and are not there: distributions compile without them.  backtrace() loads libgcc_s when it is called for the
 * first time, which allocates, and only then; so it is called once before anything is sampled.
 *
 * Frames of our own stand first in every stack and say nothing; they are left out.  In a program that was linked with
 * the core itself (tests are) they cannot be told from others by address, and stay.
 */
#include "sys/unwind.h"

#include <errno.h>
#include <execinfo.h>
#include <string.h>
#include <sys/auxv.h>

#include "sys/symbols.h"

enum {
    MOST_FRAMES = 64,
    OUR_FRAMES = 12, /* at most so many of our own stand before the caller's */
};

static pa_code_range ours; /* empty: not known. Written by pa_unwind_prepare, always with the same */

void pa_unwind_prepare(void)
{
    void *frames[2];
    pa_code_range here = pa_module_range((const void *)(uintptr_t)&pa_unwind_prepare);
    if (!pa_code_range_has(&here, getauxval(AT_ENTRY))) /* not the program itself */
        ours = here;
    backtrace(frames, 2);
}

bool pa_unwind_is_ours(uintptr_t address)
{
    return pa_code_range_has(&ours, address);
}

size_t pa_unwind(uintptr_t *out, size_t capacity)
{
    void *frames[MOST_FRAMES + OUR_FRAMES];
    int saved_errno = errno;
    size_t most = capacity < MOST_FRAMES ? capacity : MOST_FRAMES;
    int found = backtrace(frames, (int)most + OUR_FRAMES);
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
