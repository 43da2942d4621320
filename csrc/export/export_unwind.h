/* export_unwind.h - white-box view of sys/unwind: the same stack walked both ways. */
#ifndef PA_EXPORT_UNWIND_H
#define PA_EXPORT_UNWIND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* cffi: begin */
typedef struct pa_xunwind_both {
    bool by_rules;              /* the rules sufficed */
    size_t count, libgcc_count;
    uintptr_t frames[200], libgcc_frames[200];
} pa_xunwind_both;

/* Of whoever calls it; a function's address is given to C code that is compiled for a test. */
void pa_xunwind_walk_both(void *out);
void pa_xunwind_prepare(void);
/* end: it is called from there. How many were taken, and was it in [from, to)? */
size_t pa_xunwind_until(uintptr_t from, uintptr_t to, bool *ended);
/* cffi: end */

#endif
