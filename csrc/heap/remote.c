/* remote.c - pushing, claiming, collecting and abandoning: see the protocol in remote.h.
 *
 * No lock.  Memory order: the CAS of a push releases the link that was written into the block and, if it
 * claims, acquires what the abandoner did before its own CAS (which releases).  The exchange of a collect
 * acquires all links.  The relaxed load that starts a push needs no order: the CAS checks it.
 * The list needs no ABA protection: pushes compare the head they link to, and collects take everything.
 */
#include "heap/remote.h"

#include "base/poison.h"
#include "base/yield.h"

bool pa_span_push_remote(pa_span *s, void *first, void *last)
{
    uintptr_t old = atomic_load_explicit(&s->remote, memory_order_relaxed);
    do {
        pa_link_set_shared(last, (void *)(old & ~PA_REMOTE_UNOWNED));
        PA_YIELD(FREE_BEFORE_PUSH);
    } while (!atomic_compare_exchange_weak_explicit(&s->remote, &old, (uintptr_t)first, memory_order_acq_rel,
                                                    memory_order_relaxed));
    return old & PA_REMOTE_UNOWNED;
}

uint32_t pa_span_take_home(pa_span *s, void *first)
{
    uint32_t n = 0;
    uintptr_t last = 0;
    for (uintptr_t b = (uintptr_t)first; b; b = (uintptr_t)pa_link_get((void *)b)) {
        if (PA_UNLIKELY(b >= s->tail))
            pa_abort_pointer("free of", (void *)b, "never handed out (foreign pointer)");
        if (PA_UNLIKELY(n++ >= s->live))
            pa_abort_pointer("heap corruption at", (void *)b,
                             "a block was freed twice or written to after free");
        last = b;
    }
    pa_link_set((void *)last, s->free);
    pa_owner_set(&s->free, first);
    pa_owner_add(&s->live, -n);
    return n;
}

uint32_t pa_span_collect_remote(pa_span *s)
{
    if (!pa_span_has_remote(s))
        return 0;
    uintptr_t head = atomic_exchange_explicit(&s->remote, 0, memory_order_acquire);
    PA_ASSERT(!(head & PA_REMOTE_UNOWNED));
    return pa_span_take_home(s, (void *)head);
}

uint32_t pa_span_count_remote(const pa_span *s)
{
    uintptr_t head = atomic_load_explicit(&((pa_span *)(uintptr_t)s)->remote, memory_order_acquire);
    uint32_t n = 0;
    for (uintptr_t b = head & ~PA_REMOTE_UNOWNED; b; b = (uintptr_t)pa_link_get_shared((void *)b))
        n++;
    return n;
}

bool pa_span_abandon(pa_span *s, pa_mcache *c)
{
    PA_ASSERT(s->free == NULL && s->tail >= s->limit && (s->aside | s->hollow) == 0);
    s->idle_since = 0;
    atomic_store_explicit(&s->owner, NULL, memory_order_relaxed);
    PA_YIELD(ABANDON_OWNER_CLEARED);
    uintptr_t expected = 0;
    if (atomic_compare_exchange_strong_explicit(&s->remote, &expected, PA_REMOTE_UNOWNED, memory_order_release,
                                                memory_order_relaxed))
        return true;
    atomic_store_explicit(&s->owner, c, memory_order_release);
    pa_span_collect_remote(s);
    return false;
}
