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

#include <sys/auxv.h>

#include "sys/symbols.h"

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
