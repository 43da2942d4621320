/* export_poisson.c - white-box view of base/poisson: the functions themselves, which are pure.
 *
 * Test builds only.  Owns nothing.
 */
#include "export/export_poisson.h"

#include "base/poisson.h"

int64_t pa_xpoisson_distance(uint64_t random, uint64_t rate)
{
    return pa_poisson_distance(random, rate);
}

uint64_t pa_xpoisson_weight(uint64_t nbytes, uint64_t rate)
{
    return pa_poisson_weight(nbytes, rate);
}

uint64_t pa_xrandom_next(uint64_t *state)
{
    return pa_random_next(state);
}
