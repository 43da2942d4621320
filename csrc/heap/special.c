/* special.c - weak handles, cleanups, and samples of the heap profile.
 *
 * Owns h->specials: one lock (rank SPECIAL) for every record, since they are rare and short.  A record is on its
 * span's list until the object dies or the weak handle is freed; a dead object's cleanup moves to the queue.
 * Records and handles are type-stable off-heap memory.
 *
 * A sweeper that finds a span's list empty does not take the lock, and may give the span back at once: links are
 * stored with release, so that all that was done with the span before has happened by then.
 */
#include "heap/special.h"

#include "heap/profile.h"

static void set_link_locked(pa_special **link, pa_special *r)
{
    __atomic_store_n(link, r, __ATOMIC_RELEASE);
}

static pa_special *new_special_locked(pa_heap *h, pa_span *s, uint32_t idx)
{
    pa_special *r = pa_fixalloc_alloc_locked(&h->specials.records, &h->offheap);
    if (!r)
        return NULL;
    r->next = s->specials;
    r->weak = NULL;
    r->cleanup_id = 0;
    r->sample = 0;
    r->idx = idx;
    return r;
}

struct pa_weak *pa_special_add_weak(pa_heap *h, pa_span *s, uint32_t idx, void *object)
{
    pa_lock_acquire(&h->specials.lock);
    struct pa_weak *w = pa_fixalloc_alloc_locked(&h->specials.weaks, &h->offheap);
    pa_special *r = w ? new_special_locked(h, s, idx) : NULL;
    if (r) {
        r->weak = w;
        w->special = r;
        atomic_store_explicit(&w->object, object, memory_order_relaxed);
        set_link_locked(&s->specials, r);
    } else if (w) {
        pa_fixalloc_free_locked(&h->specials.weaks, w);
        w = NULL;
    }
    pa_lock_release(&h->specials.lock);
    return w;
}

bool pa_special_add_cleanup(pa_heap *h, pa_span *s, uint32_t idx, uint64_t id)
{
    pa_lock_acquire(&h->specials.lock);
    pa_special *r = new_special_locked(h, s, idx);
    if (r) {
        r->cleanup_id = id;
        set_link_locked(&s->specials, r);
    }
    pa_lock_release(&h->specials.lock);
    return r != NULL;
}

bool pa_special_add_sample(pa_heap *h, pa_span *s, uint32_t idx, uint32_t record)
{
    pa_lock_acquire(&h->specials.lock);
    pa_special *r = new_special_locked(h, s, idx);
    if (r) {
        r->sample = record;
        set_link_locked(&s->specials, r);
    }
    pa_lock_release(&h->specials.lock);
    return r != NULL;
}

static void unlink_special_locked(pa_special *r, pa_span *s)
{
    pa_special **link = &s->specials;
    while (*link != r)
        link = &(*link)->next;
    set_link_locked(link, r->next);
}

void pa_special_free_weak(pa_heap *h, struct pa_weak *w)
{
    pa_lock_acquire(&h->specials.lock);
    pa_special *r = w->special;
    if (r) {
        unlink_special_locked(r, pa_span_of(atomic_load_explicit(&w->object, memory_order_relaxed)));
        pa_fixalloc_free_locked(&h->specials.records, r);
    }
    w->special = NULL;
    atomic_store_explicit(&w->object, NULL, memory_order_relaxed);
    pa_fixalloc_free_locked(&h->specials.weaks, w);
    pa_lock_release(&h->specials.lock);
}

static void detach_locked(pa_heap *h, pa_special *r)
{
    if (r->sample) {
        pa_profile_drop(r->sample);
        pa_fixalloc_free_locked(&h->specials.records, r);
        return;
    }
    if (r->weak) {
        atomic_store_explicit(&r->weak->object, NULL, memory_order_release);
        r->weak->special = NULL;
        pa_fixalloc_free_locked(&h->specials.records, r);
        return;
    }
    r->next = NULL;
    if (h->specials.queue_last)
        h->specials.queue_last->next = r;
    else
        h->specials.queue = r;
    h->specials.queue_last = r;
    pa_owner_set(&h->specials.news, true); /* who refills looks without the lock */
    pa_owner_add(&h->specials.queued_total, 1);
}

void pa_special_sweep(pa_heap *h, pa_span *s)
{
    pa_lock_acquire(&h->specials.lock);
    pa_special **link = &s->specials;
    for (pa_special *r = *link, *next; r; r = next) {
        next = r->next;
        if (s->mark_bits[r->idx / 64] >> r->idx % 64 & 1) {
            link = &r->next;
            continue;
        }
        set_link_locked(link, next);
        detach_locked(h, r);
    }
    pa_lock_release(&h->specials.lock);
}

size_t pa_special_take_cleanups(pa_heap *h, uint64_t *ids, size_t capacity)
{
    size_t n = 0;
    pa_lock_acquire(&h->specials.lock);
    while (n < capacity && h->specials.queue) {
        pa_special *r = h->specials.queue;
        h->specials.queue = r->next;
        if (!r->next)
            h->specials.queue_last = NULL;
        ids[n++] = r->cleanup_id;
        pa_fixalloc_free_locked(&h->specials.records, r);
    }
    pa_owner_add(&h->specials.taken_total, n);
    pa_lock_release(&h->specials.lock);
    return n;
}

bool pa_special_take_news(pa_heap *h)
{
    if (!pa_racy_load(&h->specials.news))
        return false;
    pa_lock_acquire(&h->specials.lock);
    bool news = h->specials.news;
    pa_owner_set(&h->specials.news, false);
    pa_lock_release(&h->specials.lock);
    return news;
}
