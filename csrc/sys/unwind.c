/* unwind.c - walking the native stack by its unwind tables, through the compiler's run-time library (libgcc_s).
 *
 * Owns the range of addresses of the library's own code and the addresses of libgcc_s's functions, written by
 * pa_unwind_prepare, always with the same.  Frame pointers would be faster and are not there: distributions compile
 * without them.  libgcc_s is loaded when a profile first begins, as glibc's backtrace() does, not linked: programs
 * that take no profile need not have it.  Its first walk allocates, so one is made before anything is sampled.
 * backtrace() itself would walk to the end of the stack; who knows where the interesting part ends saves the rest.
 * Frames that sys/cfi.h knows the rules for need no libgcc; a stack with another one is walked by libgcc as a whole.
 *
 * Frames of our own stand first in every stack and say nothing; they are left out.  In a program that was linked with
 * the core itself (tests are) they cannot be told from others by address, and stay.
 */
#include "sys/unwind.h"

#include <dlfcn.h>
#include <sys/auxv.h>

#include "base/atomics.h"

typedef _Unwind_Ptr get_address(struct _Unwind_Context *context);

pa_unwind_call *pa_the_unwinder;
static get_address *address_of; /* _Unwind_GetIP */
static pa_code_range ours;      /* empty: not known */

/* A frame was reached. False: that is enough. */
static bool add(pa_unwinding *w, uintptr_t at)
{
    if (!at || w->count == w->capacity) /* some end the stack with a zero */
        return false;
    if (w->count == 0 && pa_code_range_has(&ours, at))
        return true;
    w->ended = pa_code_range_has(&w->until, at);
    if (w->ended)
        return false;
    w->out[w->count++] = at;
    return w->count < w->capacity;
}

_Unwind_Reason_Code pa_unwind_step(struct _Unwind_Context *context, void *unwinding)
{
    return add(unwinding, (uintptr_t)address_of(context)) ? _URC_NO_REASON : _URC_END_OF_STACK;
}

bool pa_unwind_by_rules(pa_unwinding *w, pa_cursor from)
{
    pa_cfi_result result;
    w->count = 0;
    w->ended = false;
    if (!pa_cfi_begin())
        return false;
    while ((result = pa_cfi_step(&from)) == PA_CFI_UP && add(w, from.pc)) {
    }
    pa_cfi_end();
    return result != PA_CFI_UNKNOWN;
}

void pa_unwind_prepare(void)
{
    static _Atomic bool prepared; /* who starts at the same time writes the same */
    if (atomic_load_explicit(&prepared, memory_order_acquire))
        return;
    uintptr_t frames[2];
    pa_unwinding first = {.out = frames, .capacity = 2};
    pa_code_range here = pa_module_range((const void *)(uintptr_t)&pa_unwind_prepare);
    if (!pa_code_range_has(&here, getauxval(AT_ENTRY))) /* not the program itself */
        ours = here;
    void *library = dlopen("libgcc_s.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return; /* stacks are empty; the next start tries again */
    address_of = (get_address *)(uintptr_t)dlsym(library, "_Unwind_GetIP");
    pa_unwind_call *walk = (pa_unwind_call *)(uintptr_t)dlsym(library, "_Unwind_Backtrace");
    pa_the_unwinder = address_of ? walk : NULL;
    pa_unwind_by_libgcc(&first);
    pa_cfi_prepare((pa_cfi_find *)(uintptr_t)dlsym(library, "_Unwind_Find_FDE"));
    atomic_store_explicit(&prepared, true, memory_order_release);
}
