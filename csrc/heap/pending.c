/* pending.c - counts blocks on their way home, without making anybody wait.
 *
 * Owns nothing.  A block that another thread freed lies in that thread's outbox or on its span's remote list,
 * and counts as live in the span until the span's owner collects it.  Both lists may be read only while
 * nobody empties them: the outbox under its thread's slow-path lock, a remote list under its owner's or,
 * listed, its mcentral's.
 *
 * The locks are tried, not taken: who has one is in the allocator this very moment, so that counts are in
 * motion anyway, and may hold it for as long as the OS takes to release pages.  Once threads are quiescent
 * every lock is free and every block is found.  A lock is held for one span's list, at most one span of
 * blocks, or one outbox.
 */
#include "heap/pending.h"

#include "heap/remote.h"

static uint32_t count_owned(pa_span *s, pa_mcache *owner)
{
    uint32_t n = 0;
    if (!pa_lock_try_acquire(&owner->slow))
        return 0;
    if (atomic_load_explicit(&s->owner, memory_order_relaxed) == owner)
        n = pa_span_count_remote(s);
    pa_lock_release(&owner->slow);
    return n;
}

static uint32_t count_listed(pa_mcentral *m, pa_span *s, unsigned size_class)
{
    uint32_t n = 0;
    if (!pa_lock_try_acquire(&m->lock))
        return 0;
    if (pa_racy_load(&s->size_class) == size_class && pa_racy_load(&s->listed) &&
        pa_span_state_racy(s) == PA_SPAN_MANUAL)
        n = pa_span_count_remote(s);
    pa_lock_release(&m->lock);
    return n;
}

uint32_t pa_pending_in_span(pa_heap *h, pa_span *s, unsigned size_class)
{
    if (!pa_span_has_remote(s))
        return 0;
    pa_mcache *owner = atomic_load_explicit(&s->owner, memory_order_relaxed);
    return owner ? count_owned(s, owner) : count_listed(&h->central[PA_KIND_EXPLICIT][size_class], s, size_class);
}

void pa_pending_in_outbox(pa_mcache *c, uint64_t pending[PA_SIZE_CLASSES])
{
    if (pa_racy_load(&c->outbox_count) == 0 || !pa_lock_try_acquire(&c->slow))
        return;
    for (unsigned i = 0; i < PA_OUTBOX_SLOTS; i++)
        if (c->outbox[i].span)
            pending[c->outbox[i].span->size_class] += pa_outbox_slot_count(&c->outbox[i]);
    pa_lock_release(&c->slow);
}
