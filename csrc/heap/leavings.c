/* leavings.c - spans that exited threads owned, by class, under one lock.
 *
 * Owns pa_heap.leavings, under its lock.  To the claim protocol (heap/remote.h) a span here is listed, as in mcentral:
 * no owner, bit 0 of `remote` clear, frees only push, and who unlinks it under the lock owns it.
 *
 *   owned --pa_leavings_add (a thread exits)--> here --pa_leavings_take (a refill without a span)--> owned
 *                                                |
 *                                                +--pa_leavings_list (idle.c, the second look)--> listed in mcentral
 *
 * A refill takes from here before it asks mcentral or the heap: a share of its class, and of every other, because a new
 * thread will want those next.  A share, not all: what one thread took, others cannot have before it exits.
 * What nobody needed for a second goes to mcentral, where empty spans are found.
 * Compare: mimalloc's abandoned segments, which the next thread reclaims; jemalloc's arenas, which outlive theirs.
 */
#include "heap/leavings.h"

#include "base/options.h"
#include "base/yield.h"
#include "heap/bins.h"
#include "heap/mcentral.h"
#include "heap/remote.h"

enum {
    SHARE = 32,       /* a visit takes one of so many spans of each class, */
    TAKE_SPANS = 64, /* but no more than these together, */
    LEAST_SPANS = 2,  /* and these of the class that is wanted, if there are as many */
    LIST_SPANS = 64,  /* moved to mcentral under one hold of the lock */
};

static bool has_partial(const pa_mcache *c)
{
    for (unsigned k = 1; k < PA_SIZE_CLASSES; k++)
        if (c->partial[k].first)
            return true;
    return false;
}

bool pa_leavings_add(pa_heap *h, pa_mcache *c)
{
    pa_leavings *l = &h->leavings;
    if (pa_the_options.decay_ms == 0 || l->refused) /* nobody would look */
        return false;
    if (!has_partial(c))
        return true;
    pa_lock_acquire(&l->lock);
    for (unsigned k = 1; k < PA_SIZE_CLASSES; k++) {
        for (pa_span *s; (s = pa_spanlist_pop_front(&c->partial[k])) != NULL;) {
            atomic_store_explicit(&s->owner, NULL, memory_order_relaxed);
            PA_YIELD(LIST_OWNER_CLEARED);
            pa_owner_set(&s->listed, PA_ON_NONEMPTY);
            pa_spanlist_push_back(&l->fresh[k], s);
            pa_owner_add(&l->count_of[k], 1);
            pa_owner_add(&l->count, 1);
        }
    }
    pa_lock_release(&l->lock);
    return true;
}

static pa_span *unlink_oldest_locked(pa_leavings *l, unsigned size_class)
{
    pa_span *s = pa_spanlist_pop_front(&l->seen[size_class]);
    if (!s)
        s = pa_spanlist_pop_front(&l->fresh[size_class]);
    if (!s)
        return NULL;
    pa_owner_set(&s->listed, PA_UNLISTED);
    pa_owner_add(&l->count_of[size_class], -1);
    pa_owner_add(&l->count, -1);
    return s;
}

static uint32_t move_locked(pa_leavings *l, pa_mcache *c, unsigned size_class, uint32_t n, pa_spanlist *taken)
{
    pa_span *s;
    uint32_t moved = 0;
    for (; moved < n && (s = unlink_oldest_locked(l, size_class)) != NULL; moved++) {
        PA_YIELD(POP_UNLINKED);
        atomic_store_explicit(&s->owner, c, memory_order_release);
        pa_spanlist_push_back(taken, s);
    }
    return moved;
}

static void take_shares_locked(pa_leavings *l, pa_mcache *c, unsigned size_class, pa_spanlist *taken)
{
    uint32_t share = l->count_of[size_class] / SHARE, left = TAKE_SPANS;
    left -= move_locked(l, c, size_class, share < LEAST_SPANS ? LEAST_SPANS : share < left ? share : left, taken);
    for (unsigned k = 1; k < PA_SIZE_CLASSES && left; k++) {
        share = k == size_class ? 0 : (l->count_of[k] + SHARE - 1) / SHARE;
        left -= move_locked(l, c, k, share < left ? share : left, taken);
    }
}

void pa_leavings_take(pa_heap *h, pa_mcache *c, unsigned size_class)
{
    pa_leavings *l = &h->leavings;
    pa_spanlist taken = {0};
    pa_span *s;
    if (pa_racy_load(&l->count) == 0 || pa_racy_load(&l->count_of[size_class]) == 0)
        return;
    pa_lock_acquire(&l->lock);
    if (l->count_of[size_class])
        take_shares_locked(l, c, size_class, &taken);
    pa_lock_release(&l->lock);
    while ((s = pa_spanlist_pop_front(&taken)) != NULL) {
        pa_span_collect_remote(s);
        if (s->live == 0)
            pa_bins_put_empty_locked(c, s);
        else
            pa_spanlist_push_back(&c->partial[s->size_class], s);
    }
}

/* False: the class has no more that is to go. */
static bool list_some(pa_heap *h, unsigned size_class, bool at_once)
{
    pa_leavings *l = &h->leavings;
    pa_spanlist some = {0};
    pa_span *s;
    pa_lock_acquire(&l->lock);
    for (int i = 0; i < LIST_SPANS && (at_once || l->seen[size_class].first); i++) {
        if (!(s = unlink_oldest_locked(l, size_class)))
            break;
        pa_spanlist_push_back(&some, s);
    }
    bool more = at_once ? l->count_of[size_class] != 0 : l->seen[size_class].first != NULL;
    if (!more && !at_once) {
        l->seen[size_class] = l->fresh[size_class];
        l->fresh[size_class] = (pa_spanlist){0};
    }
    pa_lock_release(&l->lock);
    pa_mcentral_put_list(h, size_class, &some);
    return more;
}

void pa_leavings_list(pa_heap *h, bool at_once)
{
    pa_leavings *l = &h->leavings;
    if (pa_racy_load(&l->count) == 0)
        return;
    for (unsigned k = 1; k < PA_SIZE_CLASSES; k++)
        while (pa_racy_load(&l->count_of[k]) && list_some(h, k, at_once))
            continue;
    pa_idle_note(&h->idle);
}

void pa_leavings_reset_child(pa_heap *h)
{
    pa_leavings *l = &h->leavings;
    for (unsigned k = 0; k < PA_SIZE_CLASSES; k++) {
        l->fresh[k] = l->seen[k] = (pa_spanlist){0};
        pa_owner_set(&l->count_of[k], 0);
    }
    pa_owner_set(&l->count, 0);
}
