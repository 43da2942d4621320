/* gcwork.c - moving work buffers between threads.
 *
 * Owns the pool's two lists (lock rank WORKBUF).  A gcwork keeps two buffers, so that a marker that hovers
 * around a buffer's edge does not go to the pool each time.  Buffers come from off-heap memory and are kept;
 * one is set aside while the world is quiet (pa_gcwork_put_slow never fails without saying so: a collector that
 * cannot write down a grey object has lost it, so out of memory here ends the process).
 */
#include "world/gcwork.h"

#include <string.h>

#include "base/assert.h"

enum { BATCH = 32, SHARE_MIN = 8 };

static pa_workbuf *take_empty(pa_workpool *pool)
{
    pa_lock_acquire(&pool->lock);
    pa_workbuf *b = pool->empty;
    if (b) {
        pool->empty = b->next;
    } else {
        char *block = pa_offheap_alloc(pool->offheap, BATCH * sizeof *b, PA_CACHE_LINE_BYTES);
        if (!block)
            block = pa_offheap_alloc(pool->offheap, sizeof *b, PA_CACHE_LINE_BYTES);
        else
            for (int i = 1; i < BATCH; i++) {
                pa_workbuf *more = (pa_workbuf *)(block + i * sizeof *b);
                more->next = pool->empty;
                pool->empty = more;
            }
        b = (pa_workbuf *)block;
        pool->made_count += BATCH;
    }
    pa_lock_release(&pool->lock);
    if (!b) {
        pa_log_line("out of memory for the collector's work buffers");
        PA_CHECK(b != NULL);
    }
    b->next = NULL;
    b->count = 0;
    return b;
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
    if (!w->current)
        w->current = take_empty(w->pool);
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

void pa_gcwork_share(pa_gcwork *w)
{
    if (w->spare && w->spare->count >= SHARE_MIN) {
        put_full(w->pool, w->spare);
        w->spare = NULL;
    } else if (w->current && w->current->count >= SHARE_MIN) {
        pa_workbuf *b = w->current, *half = take_empty(w->pool);
        half->count = b->count / 2;
        memcpy(half->entries, b->entries, half->count * sizeof *b->entries);
        memmove(b->entries, b->entries + half->count, (b->count - half->count) * sizeof *b->entries);
        b->count -= half->count;
        put_full(w->pool, half);
    }
}
