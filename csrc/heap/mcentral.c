/* mcentral.c - lists of spans without an owner.
 *
 * Each list has its own lock (rank MCENTRAL, mheap's is below it).  Invariant for explicit spans: on the
 * list <=> owner NULL and bit 0 of remote clear (heap/remote.h); a span is unlinked before its blocks are
 * collected, so that collecting always has one owner, the holder of the lock.
 * Unlike Go's mcentral (partial/full sets by sweep generation since 1.15) these are the nonempty and empty
 * lists of Go 1.14 and before; only managed spans use `empty`.
 */
#include "heap/mcentral.h"

#include "base/yield.h"
#include "heap/mheap.h"
#include "heap/remote.h"

static bool seems_empty(pa_heap *h, pa_mcentral *m)
{
    return atomic_load_explicit(&h->listed_explicit, memory_order_relaxed) == 0 ||
           pa_racy_load(&m->nonempty_count) == 0;
}

static void link_locked(pa_heap *h, pa_mcentral *m, pa_span *s)
{
    atomic_fetch_add_explicit(&h->listed_explicit, 1, memory_order_relaxed);
    pa_owner_set(&s->listed, 1);
    pa_spanlist_push_back(&m->nonempty, s);
    pa_owner_add(&m->nonempty_count, 1);
}

static pa_span *unlink_first_locked(pa_heap *h, pa_mcentral *m)
{
    pa_span *s = pa_spanlist_pop_front(&m->nonempty);
    if (s) {
        atomic_fetch_sub_explicit(&h->listed_explicit, 1, memory_order_relaxed);
        pa_owner_set(&s->listed, 0);
        pa_owner_add(&m->nonempty_count, -1);
    }
    return s;
}

static void give_up_locked(pa_heap *h, pa_mcentral *m, pa_span *s)
{
    atomic_store_explicit(&s->owner, NULL, memory_order_relaxed);
    PA_YIELD(LIST_OWNER_CLEARED);
    link_locked(h, m, s);
}

void pa_mcentral_put(pa_heap *h, pa_span *s)
{
    pa_mcentral *m = &h->central[PA_KIND_EXPLICIT][s->size_class];
    pa_lock_acquire(&m->lock);
    give_up_locked(h, m, s);
    pa_lock_release(&m->lock);
}

void pa_mcentral_put_list(pa_heap *h, unsigned size_class, pa_spanlist *spans)
{
    pa_mcentral *m = &h->central[PA_KIND_EXPLICIT][size_class];
    pa_span *s;
    if (!spans->first)
        return;
    pa_lock_acquire(&m->lock);
    while ((s = pa_spanlist_pop_front(spans)) != NULL)
        give_up_locked(h, m, s);
    pa_lock_release(&m->lock);
}

pa_span *pa_mcentral_take(pa_heap *h, unsigned size_class, pa_mcache *new_owner)
{
    pa_mcentral *m = &h->central[PA_KIND_EXPLICIT][size_class];
    if (seems_empty(h, m))
        return NULL;
    pa_span *dead = NULL, *s;
    pa_lock_acquire(&m->lock);
    while ((s = unlink_first_locked(h, m)) != NULL) {
        PA_YIELD(POP_UNLINKED);
        pa_span_collect_remote(s);
        if (s->live != 0) {
            atomic_store_explicit(&s->owner, new_owner, memory_order_release);
            break;
        }
        s->next = dead;
        dead = s;
    }
    pa_lock_release(&m->lock);
    if (!s && dead) { /* an empty one is as good */
        s = dead;
        dead = s->next;
        s->next = NULL;
        atomic_store_explicit(&s->owner, new_owner, memory_order_release);
    }
    pa_mheap_free_span_list(h, dead);
    return s;
}

pa_span *pa_mcentral_detach(pa_heap *h, unsigned size_class, uint32_t max_spans)
{
    pa_mcentral *m = &h->central[PA_KIND_EXPLICIT][size_class];
    pa_span *first = NULL, **end = &first, *s;
    if (seems_empty(h, m))
        return NULL;
    pa_lock_acquire(&m->lock);
    for (; max_spans && (s = unlink_first_locked(h, m)) != NULL; max_spans--) {
        *end = s;
        end = &s->next;
    }
    pa_lock_release(&m->lock);
    return first;
}

uint32_t pa_mcentral_count(pa_heap *h, unsigned size_class)
{
    pa_mcentral *m = &h->central[PA_KIND_EXPLICIT][size_class];
    return seems_empty(h, m) ? 0 : pa_racy_load(&m->nonempty_count);
}

pa_mcentral_ticked pa_mcentral_tick(pa_heap *h, unsigned size_class, uint32_t max_spans)
{
    pa_mcentral *m = &h->central[PA_KIND_EXPLICIT][size_class];
    pa_mcentral_ticked did = {0};
    if (seems_empty(h, m))
        return did;
    pa_span *dead = NULL;
    pa_lock_acquire(&m->lock);
    uint32_t n = m->nonempty_count < max_spans ? m->nonempty_count : max_spans;
    for (; did.spans < n; did.spans++) {
        pa_span *s = unlink_first_locked(h, m);
        did.blocks += pa_span_collect_remote(s);
        if (s->live == 0) {
            s->next = dead;
            dead = s;
            did.freed++;
        } else {
            link_locked(h, m, s);
        }
    }
    pa_lock_release(&m->lock);
    pa_mheap_free_span_list(h, dead);
    return did;
}

void pa_mcentral_collect_all(pa_heap *h)
{
    for (unsigned c = 1; c < PA_SIZE_CLASSES; c++)
        pa_mcentral_tick(h, c, UINT32_MAX);
}
