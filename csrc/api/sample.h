/* sample.h - blocks that are due for a sample of the heap profile: their stacks are taken and written down. */
#ifndef PA_SAMPLE_H
#define PA_SAMPLE_H

#include "heap/sampling.h"
#include "include/pyalloc.h"
#include "world/proc.h"

/* A block of a small class whose bytes made pa_sampling_count pass; NULL: it is not sampled, allocate as always. c is
 * the calling thread's. Keeps errno, as all here. */
void *pa_sample_block(pa_mcache *c, unsigned size_class);
/* The same for a large block that was just allocated, which is counted here. */
void pa_sample_large(pa_mcache *c, pa_span *s);
/* A large block was resized where it is, which is a free and a malloc to the profile. c may be a constant mcache. */
void pa_sample_resized(pa_mcache *c, pa_span *s);
/* The block of s is being freed. True when it was sampled; s is like any other afterwards. */
bool pa_sample_freed(pa_span *s);

/* Element idx of s, p's current span of its kind and class, is about to be handed out by the slow path, or s is large:
 * counts it, samples it if it is due. p is inside; m is its sampler, settled. */
void pa_sample_object(pa_proc *p, pa_managed_sampler *m, pa_span *s, uint32_t idx);

/* Who walks the stack of an interpreter; see pa_profile_set_walker. */
void pa_sample_set_walker(pa_profile_walker walker, const void *loop);

#endif
