/* export_unwind.c - white-box view of sys/unwind.
 *
 * Test builds only.  Owns nothing.
 */
#include "export/export_unwind.h"

#include "sys/unwind.h"

enum { MOST = sizeof((pa_xunwind_both *)0)->frames / sizeof(uintptr_t) };

void pa_xunwind_prepare(void)
{
    pa_unwind_prepare();
}

void pa_xunwind_walk_both(void *argument)
{
    pa_xunwind_both *out = argument;
    pa_unwinding rules = {.out = out->frames, .capacity = MOST}, libgcc = {.out = out->libgcc_frames, .capacity = MOST};
    out->by_rules = pa_unwind_by_rules(&rules, pa_cfi_here());
    pa_unwind_by_libgcc(&libgcc);
    out->count = rules.count;
    out->libgcc_count = libgcc.count;
}

size_t pa_xunwind_until(uintptr_t from, uintptr_t to, bool *ended)
{
    uintptr_t frames[MOST];
    pa_unwinding w = {.out = frames, .capacity = MOST, .until = {from, to}};
    pa_unwind(&w);
    *ended = w.ended;
    return w.count;
}
