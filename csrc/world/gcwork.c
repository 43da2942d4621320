/* gcwork.c - moving work buffers between threads.
 *
 * Owns the pool's two lists (lock rank WORKBUF).  A gcwork keeps two buffers, so that a marker that hovers
 * around a buffer's edge does not go to the pool each time.  Buffers come from off-heap memory and are kept;
 * the first few are static, so that there are some whatever the OS says.
 *
 * Overflow: a grey object that cannot be written down must not be lost.  It is marked there and then, so that its
 * memory stays, and what hangs on it is found later by going through the marked objects of the whole heap: slow, but it
 * needs no memory, and each such walk leaves less to do (the mark stack overflow of the classic collectors;
 * Jones, Hosking, Moss, "The Garbage Collection Handbook", 2.4).
 */
#include "world/gcwork.h"

#include <string.h>

#include "heap/object.h"
#include "world/proc.h"

enum { BATCH = 32, RESERVE = 8 };

/* Never touched by programs without managed objects. */
static PA_ALIGNED(PA_CACHE_LINE_BYTES) pa_workbuf reserve[RESERVE];

static void add_empties(pa_workpool *pool, pa_workbuf *first, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        first[i].next = pool->empty;
        pool->empty = &first[i];
    }
    pool->made_count += count;
}

static void make_empties(pa_workpool *pool)
{
    if (pool->made_count == 0) {
        add_empties(pool, reserve, RESERVE);
        return;
    }
    if (pool->most && pool->made_count >= pool->most)
        return;
    for (unsigned count = BATCH; !pool->empty && count; count /= BATCH) {
        pa_workbuf *block = pa_offheap_alloc(pool->offheap, count * sizeof *block, PA_CACHE_LINE_BYTES);
        if (block)
            add_empties(pool, block, count);
    }
}

/* NULL when there is none and no memory for one. */
static pa_workbuf *take_empty(pa_workpool *pool)
{
    pa_lock_acquire(&pool->lock);
    if (!pool->empty)
        make_empties(pool);
    pa_workbuf *b = pool->empty;
    if (b)
        pool->empty = b->next;
    pa_lock_release(&pool->lock);
    if (!b)
        return NULL;
    b->next = NULL;
    b->count = 0;
    return b;
}

/* No buffer for the entry: see the essay. */
static PA_COLD void overflow(pa_workpool *pool, uintptr_t entry)
{
    pa_objref o;
    if (entry & PA_OBLET_BIT) { /* the rest of a marked object */
        atomic_store_explicit(&pool->overflowed, true, memory_order_release);
        return;
    }
    if (!pa_object_resolve(entry, &o))
        return;
    uint32_t sweepgen = atomic_load_explicit(&pa_the_heap.sweepgen, memory_order_relaxed);
    unsigned plane = pool->in_checkmark ? PA_PLANE_CHECK : pa_mark_plane(sweepgen);
    if (__atomic_fetch_or(pa_object_bit_word(&o, plane), pa_object_bit(&o), __ATOMIC_RELAXED) & pa_object_bit(&o))
        return; /* whoever marked it looks after it */
    atomic_fetch_add_explicit(&pool->overflow_bytes, pa_object_slot_bytes(&o), memory_order_relaxed);
    atomic_fetch_add_explicit(&pool->overflow_count, 1, memory_order_relaxed);
    atomic_store_explicit(&pool->overflowed, true, memory_order_release);
}

bool pa_workpool_take_overflow(pa_workpool *pool, uint64_t *marked_bytes)
{
    *marked_bytes += atomic_exchange_explicit(&pool->overflow_bytes, 0, memory_order_relaxed);
    return atomic_exchange_explicit(&pool->overflowed, false, memory_order_acquire);
}

static void put_full(pa_workpool *pool, pa_workbuf *b)
{
    pa_lock_acquire(&pool->lock);
    b->next = pool->full;
    pool->full = b;
    atomic_fetch_add_explicit(&pool->full_count, 1, memory_order_release);
    pa_lock_release(&pool->lock);
}

static void put_empty(pa_workpool *pool, pa_workbuf *b)
{
    pa_lock_acquire(&pool->lock);
    b->next = pool->empty;
    pool->empty = b;
    pa_lock_release(&pool->lock);
}

static pa_workbuf *take_full(pa_workpool *pool)
{
    if (pa_workpool_full_count(pool) == 0)
        return NULL;
    pa_lock_acquire(&pool->lock);
    pa_workbuf *b = pool->full;
    if (b) {
        pool->full = b->next;
        atomic_fetch_sub_explicit(&pool->full_count, 1, memory_order_release);
    }
    pa_lock_release(&pool->lock);
    return b;
}

static void swap(pa_gcwork *w)
{
    pa_workbuf *b = w->current;
    w->current = w->spare;
    w->spare = b;
}

void pa_gcwork_put_slow(pa_gcwork *w, uintptr_t entry)
{
    if (w->current)
        swap(w);
    if (w->current && w->current->count == PA_WORKBUF_ENTRIES) {
        put_full(w->pool, w->current);
        w->current = NULL;
    }
    if (!w->current && !(w->current = take_empty(w->pool))) {
        swap(w); /* what is there can still be taken from */
        overflow(w->pool, entry);
        return;
    }
    w->current->entries[w->current->count++] = entry;
}

uintptr_t pa_gcwork_get_slow(pa_gcwork *w)
{
    swap(w);
    if (!w->current || w->current->count == 0) {
        pa_workbuf *b = take_full(w->pool);
        if (!b) {
            if (!w->current)
                swap(w);
            return 0;
        }
        if (w->current)
            put_empty(w->pool, w->current);
        w->current = b;
    }
    return w->current->entries[--w->current->count];
}

static bool flush_one(pa_gcwork *w, pa_workbuf *b)
{
    if (!b)
        return false;
    bool some = b->count > 0;
    if (some)
        put_full(w->pool, b);
    else
        put_empty(w->pool, b);
    return some;
}

bool pa_gcwork_flush(pa_gcwork *w)
{
    bool some = flush_one(w, w->current);
    some |= flush_one(w, w->spare);
    w->current = w->spare = NULL;
    return some;
}

bool pa_gcwork_share(pa_gcwork *w)
{
    if (w->spare && w->spare->count >= PA_SHARE_MIN) {
        put_full(w->pool, w->spare);
        w->spare = NULL;
        return true;
    }
    pa_workbuf *b = w->current;
    pa_workbuf *half = b && b->count >= PA_SHARE_MIN ? take_empty(w->pool) : NULL;
    if (!half)
        return false;
    half->count = b->count / 2;
    memcpy(half->entries, b->entries, half->count * sizeof *b->entries);
    memmove(b->entries, b->entries + half->count, (b->count - half->count) * sizeof *b->entries);
    b->count -= half->count;
    put_full(w->pool, half);
    return true;
}
