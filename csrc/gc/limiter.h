/* limiter.h - no more than half of the processors for the collector (Go: runtime/mgclimit.go). Pure. */
#ifndef PA_LIMITER_H
#define PA_LIMITER_H

#include "base/config.h"

/* A leaky bucket of processor time: marking fills it, the program's own time drains it. Full: limiting. */
typedef struct pa_limiter {
    uint64_t fill_ns, capacity_ns;
    bool limiting;
} pa_limiter;

void pa_limiter_init(pa_limiter *l, unsigned processors);
/* Since the last call the collector used gc_ns and the program program_ns of processor time. */
void pa_limiter_add(pa_limiter *l, uint64_t gc_ns, uint64_t program_ns);

#endif
