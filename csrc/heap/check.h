/* check.h - pa_heap_check's work: every structure, the first broken invariant by name. */
#ifndef PA_CHECK_H
#define PA_CHECK_H

#include "heap/heap.h"

/* NULL when all invariants hold, else the name of the first broken one. No other thread may be inside the
 * allocator; takes mheap's lock itself. */
const char *pa_heap_find_broken(pa_heap *h);
/* What one mcache should satisfy: current, partial, bins, stock. */
struct pa_mcache;
const char *pa_mcache_find_broken(struct pa_mcache *c);

#endif
