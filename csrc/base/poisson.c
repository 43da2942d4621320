/* poisson.c - exponential distances and the weights that go with them, without the mathematical library.
 *
 * Owns nothing, no locks.  The core depends on the C library alone, and libm is another one; two short series are all
 * that is needed.  ln(m) for m in [sqrt(1/2), sqrt(2)) is 2 artanh((m - 1) / (m + 1)); exp(-x) - 1 is a Taylor series
 * for small x, and (e^2x - 1) = (e^x - 1)(e^x - 1 + 2) leads to the others.  Both are within 1e-14 of the exact value.
 *
 * The scheme is that of Go's MemProfileRate (runtime/malloc.go, nextSample; runtime/pprof, scaleHeapSample) and
 * tcmalloc's sampler; a rate of 1 samples all, as Go's.
 */
#include "base/poisson.h"

uint64_t pa_random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* -ln(n / 2^54) for 1 <= n < 2^54. */
static double minus_ln(uint64_t n)
{
    int shift = __builtin_clzll(n) - 1; /* n << shift lies in [2^62, 2^63) */
    double m = (double)(n << shift) / (double)((uint64_t)1 << 62);
    int exponent = 62 - shift - 54;
    if (m > 1.4142135623730951) {
        m /= 2;
        exponent++;
    }
    double t = (m - 1) / (m + 1), square = t * t, sum = 0;
    for (int k = 21; k >= 1; k -= 2)
        sum = sum * square + 1.0 / k;
    return -(2 * t * sum + exponent * 0.69314718055994530942);
}

int64_t pa_poisson_distance(uint64_t random, uint64_t rate)
{
    if (rate <= 1)
        return 0;
    return (int64_t)(minus_ln((random >> 11 << 1) + 1) * (double)rate); /* an odd number below 2^54: never 0 */
}

/* 1 - exp(-x) for x > 0. */
static double chance(double x)
{
    if (x > 40)
        return 1;
    int doublings = 0;
    for (; x > 0.5; x /= 2)
        doublings++;
    double term = 1, sum = 0; /* exp(-x) - 1 */
    for (int k = 1; k <= 14; k++) {
        term *= -x / k;
        sum += term;
    }
    for (; doublings; doublings--)
        sum *= sum + 2;
    return -sum;
}

uint64_t pa_poisson_weight(uint64_t nbytes, uint64_t rate)
{
    if (rate <= 1)
        return PA_WEIGHT_ONE;
    return (uint64_t)((double)PA_WEIGHT_ONE / chance((double)nbytes / (double)rate) + 0.5);
}
