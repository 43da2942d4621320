/* roots.c - the handle table and the list of ranges.
 *
 * Owns pa_the_roots (lock rank ROOTS).  Handle chunks are never given back, so that a marker may walk them while
 * handles come and go; a P keeps a few free slots, so that most calls take no lock.  Ranges are read under
 * the lock in pieces of 64 KiB, which is also what pa_roots_remove waits for.
 */
#include "world/roots.h"

#include <errno.h>

#include "include/pyalloc.h"

enum { PIECE_BYTES = 64 * 1024 };

pa_roots pa_the_roots = {.lock = PA_LOCK_INIT(ROOTS)};

/* ---- Handles ---- */

static bool add_chunk_locked(pa_roots *r, pa_heap *h)
{
    pa_handle_chunk *chunk = pa_offheap_alloc(&h->offheap, sizeof *chunk, PA_CACHE_LINE_BYTES);
    if (!chunk)
        return false;
    for (int i = PA_HANDLES_PER_CHUNK; i-- > 0;) {
        chunk->handles[i].next = r->free;
        r->free = &chunk->handles[i];
    }
    chunk->next = r->chunks;
    __atomic_store_n(&r->chunks, chunk, __ATOMIC_RELEASE);
    return true;
}

static void refill_cache(pa_proc *p)
{
    pa_roots *r = &pa_the_roots;
    pa_lock_acquire(&r->lock);
    if (r->free || add_chunk_locked(r, p->cache.heap))
        while (r->free && p->cache.gc->free_handle_count < PA_HANDLE_CACHE / 2) {
            struct pa_handle *h = r->free;
            r->free = h->next;
            h->next = p->cache.gc->free_handles;
            p->cache.gc->free_handles = h;
            pa_owner_add(&p->cache.gc->free_handle_count, 1);
            pa_owner_add(&r->handle_count, 1);
        }
    pa_lock_release(&r->lock);
}

static void return_handles(pa_proc *p, uint32_t keep)
{
    pa_roots *r = &pa_the_roots;
    pa_lock_acquire(&r->lock);
    while (p->cache.gc->free_handle_count > keep) {
        struct pa_handle *h = p->cache.gc->free_handles;
        p->cache.gc->free_handles = h->next;
        pa_owner_add(&p->cache.gc->free_handle_count, -1);
        h->next = r->free;
        r->free = h;
        pa_owner_add(&r->handle_count, -1);
    }
    pa_lock_release(&r->lock);
}

struct pa_handle *pa_roots_take_handle(pa_proc *p)
{
    if (PA_UNLIKELY(!p->cache.gc->free_handles))
        refill_cache(p);
    struct pa_handle *h = p->cache.gc->free_handles;
    if (PA_LIKELY(h != NULL)) {
        p->cache.gc->free_handles = h->next;
        pa_owner_add(&p->cache.gc->free_handle_count, -1);
    }
    return h;
}

void pa_roots_give_handle(pa_proc *p, struct pa_handle *h)
{
    h->next = p->cache.gc->free_handles;
    p->cache.gc->free_handles = h;
    pa_owner_add(&p->cache.gc->free_handle_count, 1);
    if (PA_UNLIKELY(p->cache.gc->free_handle_count > PA_HANDLE_CACHE))
        return_handles(p, PA_HANDLE_CACHE / 2);
}

void pa_roots_return_handles(pa_proc *p)
{
    if (p->cache.gc->free_handles)
        return_handles(p, 0);
}

void pa_roots_defer_handle(struct pa_handle *h)
{
    struct pa_handle *head = atomic_load_explicit(&pa_the_roots.deferred, memory_order_relaxed);
    do
        h->next = head;
    while (!atomic_compare_exchange_weak_explicit(&pa_the_roots.deferred, &head, h, memory_order_release,
                                                  memory_order_relaxed));
}

struct pa_handle *pa_roots_take_deferred(void)
{
    if (!atomic_load_explicit(&pa_the_roots.deferred, memory_order_relaxed))
        return NULL;
    return atomic_exchange_explicit(&pa_the_roots.deferred, NULL, memory_order_acquire);
}

/* ---- Ranges ---- */

bool pa_roots_has_slot(uintptr_t addr)
{
    for (pa_handle_chunk *c = __atomic_load_n(&pa_the_roots.chunks, __ATOMIC_ACQUIRE); c; c = c->next)
        if (addr >= (uintptr_t)c->handles && addr < (uintptr_t)(c->handles + PA_HANDLES_PER_CHUNK))
            return true;
    bool found = false;
    pa_lock_acquire(&pa_the_roots.lock);
    for (pa_root_range *r = pa_the_roots.ranges; r && !found; r = r->next)
        found = r->flags == PA_ROOTS_BARRIERED && addr >= r->base && addr < r->end;
    pa_lock_release(&pa_the_roots.lock);
    return found;
}

/* The explicit span whose block holds the range, if one does. */
static pa_span *explicit_span_of(uintptr_t base)
{
    pa_span *s = pa_span_of((void *)base);
    return s && pa_span_state_racy(s) == PA_SPAN_MANUAL && base < s->limit ? s : NULL;
}

int pa_roots_add_range(uintptr_t base, size_t nbytes, int flags)
{
    pa_roots *r = &pa_the_roots;
    bool known = flags == PA_ROOTS_BARRIERED || flags == PA_ROOTS_UNBARRIERED || flags == PA_ROOTS_CONSERVATIVE;
    if (!known || base == 0 || nbytes == 0 || (base | nbytes) % sizeof(void *) || base + nbytes < base)
        return EINVAL;
    int result = 0;
    pa_lock_acquire(&r->lock);
    pa_root_range **link = &r->ranges;
    for (; *link && !result; link = &(*link)->next)
        if (base < (*link)->end && (*link)->base < base + nbytes)
            result = EINVAL;
    r->range_records.object_bytes = sizeof(pa_root_range);
    r->range_records.align = _Alignof(pa_root_range);
    pa_root_range *range = result ? NULL : pa_fixalloc_alloc_locked(&r->range_records, &pa_the_heap.offheap);
    if (range) {
        *range = (pa_root_range){.base = base, .end = base + nbytes, .id = ++r->next_range_id, .flags = flags};
        *link = range;
        if (explicit_span_of(base))
            pa_span_pin(explicit_span_of(base));
        r->range_bytes += nbytes;
        r->unbarriered_bytes += flags ? nbytes : 0;
    } else if (!result) {
        result = ENOMEM;
    }
    pa_lock_release(&r->lock);
    return result;
}

bool pa_roots_remove_range(uintptr_t base, pa_root_range *removed)
{
    pa_roots *r = &pa_the_roots;
    pa_lock_acquire(&r->lock);
    pa_root_range **link = &r->ranges;
    while (*link && (*link)->base != base)
        link = &(*link)->next;
    pa_root_range *range = *link;
    if (range) {
        *removed = *range;
        *link = range->next;
        if (explicit_span_of(base))
            pa_span_unpin(explicit_span_of(base));
        r->range_bytes -= range->end - range->base;
        r->unbarriered_bytes -= range->flags ? range->end - range->base : 0;
        pa_fixalloc_free_locked(&r->range_records, range);
    }
    pa_lock_release(&r->lock);
    return range != NULL;
}

bool pa_roots_has_range_in(uintptr_t base, size_t nbytes)
{
    bool found = false;
    pa_lock_acquire(&pa_the_roots.lock);
    for (pa_root_range *r = pa_the_roots.ranges; r && !found; r = r->next)
        found = r->base < base + nbytes && base < r->end;
    pa_lock_release(&pa_the_roots.lock);
    return found;
}

/* First range from id on that has all the flags. */
static pa_root_range *find_range_locked(pa_roots *r, uint64_t id, int flags)
{
    pa_root_range *range = r->ranges;
    while (range && (range->id < id || (range->flags & flags) != flags))
        range = range->next;
    return range;
}

void pa_roots_visit_ranges(int flags, pa_range_visitor visit, void *context)
{
    pa_roots *r = &pa_the_roots;
    uint64_t id = 0;
    size_t done = 0;
    for (;;) {
        pa_lock_acquire(&r->lock);
        pa_root_range *range = find_range_locked(r, id, flags);
        if (range && range->id != id) {
            id = range->id;
            done = 0;
        }
        if (range) {
            uintptr_t from = range->base + done;
            uintptr_t to = range->end - from > PIECE_BYTES ? from + PIECE_BYTES : range->end;
            visit(context, range, from, to);
            done += to - from;
            if (to == range->end) {
                id++;
                done = 0;
            }
        }
        pa_lock_release(&r->lock);
        if (!range)
            return;
    }
}
