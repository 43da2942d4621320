/* sampling.c - counting bytes up to the next sample, and the spans that sampled blocks live in.
 *
 * Owns the sampling fields of an mcache.  They are the owner's, but for `sampling`, the limits and `direct`, which
 * pa_mcache_set_sampling changes under the mcache's slow-path lock while the owner runs: the owner changes `direct`
 * under that lock only, and finds in each place either its current span or the empty one, both of which are right.
 *
 * Distances come from base/poisson.h; the process of sample points has no memory, so it does not matter that a count is
 * kept by each thread, that it goes on when the P gets another thread, or that it starts anew with each profile.
 *
 * Idea: guarded and sampled allocations with spans of their own are tcmalloc's (sampled spans hold one object); Go
 * counts in mallocgc (runtime/malloc.go, profilealloc).
 */
#include "heap/sampling.h"

#include "heap/bins.h"
#include "heap/profile.h"
#include "heap/remote.h"

/* ---- On and off ---- */

void pa_mcache_set_sampling(pa_mcache *c, bool on)
{
    pa_lock_acquire(&c->slow);
    pa_owner_set(&c->sampling, on);
    if (on) /* what is left of an earlier profile's distance is void: the next block asks pa_sampling_is_due */
        pa_owner_set(&c->sample_left, -1);
    pa_mcache_show_current_locked(c);
    pa_lock_release(&c->slow);
}

/* ---- When ---- */

static int64_t distance(uint64_t *state)
{
    return pa_poisson_distance(pa_random_next(state), pa_profile_rate());
}

uint32_t pa_sampling_is_due(pa_mcache *c, size_t nbytes)
{
    uint32_t round = pa_profile_round_racy();
    if (!(round & 1))
        return 0;
    if (c->sample_round != round) { /* what was left is an earlier profile's */
        c->sample_round = round;
        c->sample_random = pa_profile_seed();
        pa_owner_set(&c->sample_left, distance(&c->sample_random));
        if (!pa_sampling_count(c, nbytes))
            return 0;
    }
    c->sample_next = distance(&c->sample_random);
    pa_owner_set(&c->sample_left, INT64_MAX / 2);
    return round;
}

void pa_sampling_resume(pa_mcache *c)
{
    pa_owner_set(&c->sample_left, c->sample_next);
}

/* ---- Where ---- */

pa_span *pa_mcache_take_sampled(pa_mcache *c, unsigned size_class)
{
    size_t nbytes = pa_class_object_bytes[size_class], npages = (nbytes + PA_PAGE_BYTES - 1) >> PA_PAGE_SHIFT;
    pa_decay_notify(&c->heap->decay);
    pa_mcache_enter_slow(c);
    pa_span *s = pa_bins_take(c, npages, npages);
    if (!s)
        s = pa_mheap_alloc_run(c->heap, &c->stock, npages, npages);
    if (s) {
        pa_span_format_explicit(s, size_class);
        s->limit = s->base + nbytes;
        pa_owner_set(&s->tail, s->limit);
        pa_owner_set(&s->live, 1);
        atomic_store_explicit(&s->remote, PA_REMOTE_UNOWNED, memory_order_relaxed);
        PA_UNPOISON(s->base, nbytes);
    }
    pa_lock_release(&c->slow);
    return s;
}

void pa_span_set_sample(pa_span *s, uint32_t record)
{
    if (!record)
        return;
    atomic_store_explicit(&s->sample, record, memory_order_relaxed);
    pa_owner_set(&s->magic, 0);
}

uint32_t pa_span_take_sample(pa_span *s)
{
    uint32_t record = atomic_exchange_explicit(&s->sample, 0, memory_order_relaxed);
    if (record && !pa_racy_load(&s->pins))
        pa_owner_set(&s->magic, s->size_class ? pa_class_magic[s->size_class] : 1);
    return record;
}

/* ---- Managed ---- */

pa_managed_sampler *pa_sampling_managed(pa_mcache *c)
{
    uint32_t round = pa_profile_round_racy();
    if (!c->managed_sampler)
        c->managed_sampler = pa_offheap_alloc(&c->heap->offheap, sizeof(pa_managed_sampler), PA_CACHE_LINE_BYTES);
    pa_managed_sampler *m = c->managed_sampler;
    if (!m || m->round == round)
        return m;
    m->round = round;
    uint64_t state = pa_profile_seed();
    for (unsigned k = 0; k < PA_SPAN_KINDS - 1; k++)
        for (unsigned i = 0; i < PA_SIZE_CLASSES; i++) {
            struct pa_managed_stream *stream = &m->streams[k][i];
            stream->left = distance(&state);
            if (stream->span) /* what it gave away before is not this profile's */
                stream->seen = pa_span_handed_out_count(stream->span);
        }
    m->random = state;
    return m;
}

static struct pa_managed_stream *stream_of(pa_managed_sampler *m, const pa_span *s)
{
    return &m->streams[s->kind - 1][s->size_class];
}

void pa_sampling_settle(pa_managed_sampler *m, pa_span *s, bool leaving)
{
    struct pa_managed_stream *stream = stream_of(m, s);
    uint32_t handed_out = pa_span_handed_out_count(s);
    if (stream->span == s)
        stream->left -= (int64_t)(handed_out - stream->seen) * (int64_t)pa_class_object_bytes[s->size_class];
    stream->span = leaving ? NULL : s;
    stream->seen = handed_out;
}

unsigned pa_sampling_room(const pa_managed_sampler *m, const pa_span *s)
{
    int64_t left = m->streams[s->kind - 1][s->size_class].left;
    int64_t room = left > 0 ? left / pa_class_object_bytes[s->size_class] : 0;
    return room < UINT16_MAX ? (unsigned)room : UINT16_MAX;
}

bool pa_sampling_take(pa_managed_sampler *m, const pa_span *s, size_t nbytes)
{
    struct pa_managed_stream *stream = stream_of(m, s);
    stream->left -= (int64_t)nbytes;
    stream->seen += s->size_class != 0; /* not counted again */
    if (stream->left >= 0)
        return false;
    stream->left = distance(&m->random);
    return true;
}
