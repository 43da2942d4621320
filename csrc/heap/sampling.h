/* sampling.h - how a thread's allocations are counted while there is a heap profile, and what a sampled block is.
 *
 * The fast paths have no instruction for it.  While a profile is on, a thread's `direct` table holds the empty span in
 * every place, so that each small malloc misses, and the slow path counts its bytes before it pops; medium and large
 * blocks miss by their limits (pa_mcache.medium_max_bytes).  Managed objects are counted by windows, below.
 *
 * A sampled explicit block has a span to itself that nobody owns, as if it had been abandoned full (heap/remote.h), and
 * whose magic is 0: its free fails every fast test, and the slow path drops the record.
 */
#ifndef PA_SAMPLING_H
#define PA_SAMPLING_H

#include "heap/mcache.h"

/* Turns counting on or off for c, whose thread may be running. No lock of its mcache or below held. */
void pa_mcache_set_sampling(pa_mcache *c, bool on);

/* c allocates nbytes: true when it may be due for a sample, which pa_sampling_is_due decides. The owner's. */
PA_INLINE bool pa_sampling_count(pa_mcache *c, size_t nbytes)
{
    int64_t left = pa_owner_get(&c->sample_left) - (int64_t)nbytes;
    pa_owner_set(&c->sample_left, left);
    return PA_UNLIKELY(left < 0);
}
/* A block of nbytes made the count pass: is it sampled? When it is, counting rests until the next two calls: what the
 * thread allocates to find out its own stack is not sampled. Returns the round it is sampled for, 0: it is not. */
uint32_t pa_sampling_is_due(pa_mcache *c, size_t nbytes);
void pa_sampling_resume(pa_mcache *c);

/* One block of a small class, live, in a span of its own; NULL when out of memory. */
pa_span *pa_mcache_take_sampled(pa_mcache *c, unsigned size_class);

/* The block of s, which has one, gets a record (0: none), or loses it. Whoever allocates or frees the block. */
void pa_span_set_sample(pa_span *s, uint32_t record);
/* The record, 0 when there was none or somebody was faster. */
uint32_t pa_span_take_sample(pa_span *s);

/* ---- Managed objects ----
 *
 * Nobody frees them, so a span's count tells how many it gave away since somebody looked.  What must not be missed is
 * the next sampled one: a window (heap/span.h) ends before it, so that its allocation takes the slow path.  Each class
 * and kind is a stream of its own. */
typedef struct pa_managed_sampler {
    uint32_t round;
    uint64_t random;
    struct pa_managed_stream {
        pa_span *span;      /* current when we looked last, NULL: none */
        uint32_t seen;      /* pa_span_handed_out_count then */
        int64_t left;       /* bytes up to the next sample */
    } streams[PA_SPAN_KINDS - 1][PA_SIZE_CLASSES];
} pa_managed_sampler;

/* c's sampler, made when it is first needed; NULL when out of memory. The owner's. */
pa_managed_sampler *pa_sampling_managed(pa_mcache *c);
/* Counts what s, c's current span of its kind and class, gave away since. leaving: it is current no more. By who
 * allocates from s, or keeps its thread out. */
void pa_sampling_settle(pa_managed_sampler *m, pa_span *s, bool leaving);
/* How many objects of s's kind and class may be allocated before one is due for a sample; 0: the next one is. */
unsigned pa_sampling_room(const pa_managed_sampler *m, const pa_span *s);
/* An object of nbytes is about to be handed out from s by the slow path: is it due for a sample? Precondition:
 * settled. */
bool pa_sampling_take(pa_managed_sampler *m, const pa_span *s, size_t nbytes);

#endif
