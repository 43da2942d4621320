/* poisson.h - which bytes of a stream of allocations are sampled, and what a sample stands for. Pure.
 *
 * Sample points lie on the stream at independent exponential distances with mean `rate` bytes (a Poisson process),
 * and a block is sampled when a point lies in it: with probability 1 - exp(-nbytes / rate), whatever was allocated
 * before. A sampled block stands for the reciprocal of that many blocks of its size, so sums over samples are unbiased.
 */
#ifndef PA_POISSON_H
#define PA_POISSON_H

#include "base/config.h"

/* A weight is a fixed-point number, so that what is added can be taken away exactly. */
#define PA_WEIGHT_ONE ((uint64_t)1024)
/* Rates from 1, which samples every block, to this one. */
#define PA_POISSON_MOST_RATE ((uint64_t)1 << 40)

/* splitmix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014): the next number. */
uint64_t pa_random_next(uint64_t *state);

/* Bytes up to the next sample point, from a random number. */
int64_t pa_poisson_distance(uint64_t random, uint64_t rate);
/* How many blocks of nbytes a sampled one stands for, in PA_WEIGHT_ONE-ths. Precondition: nbytes >= 1. */
uint64_t pa_poisson_weight(uint64_t nbytes, uint64_t rate);

#endif
