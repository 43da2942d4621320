/* export_poisson.h - white-box view of base/poisson. */
#ifndef PA_EXPORT_POISSON_H
#define PA_EXPORT_POISSON_H

#include <stdint.h>

/* cffi: begin */
int64_t pa_xpoisson_distance(uint64_t random, uint64_t rate);
uint64_t pa_xpoisson_weight(uint64_t nbytes, uint64_t rate);
/* Next number of a generator whose state is *state. */
uint64_t pa_xrandom_next(uint64_t *state);
/* cffi: end */

#endif
