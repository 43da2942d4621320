/* gcwork.h - grey objects: buffers of pointers still to be marked and scanned (Go: runtime/mgcwork.go).
 *
 * Entries are words that were found in pointer slots - interior pointers, pointers to marked objects and
 * foreign words among them, but for those whose top bit is set (pa_gcwork_may_point); who takes one out
 * resolves it, tests and sets its mark.  Marking on the way out and not on the way in lets the marker prefetch mark
 * bit and object first (gc/mark.c).  Entries with the top bit set are oblets: the address inside a marked large
 * object from where to scan on.
 *
 * A gcwork belongs to one thread (or to who stopped it).  The pool is shared.
 *
 * Without memory for another buffer an entry is not written down: its object is marked, and the pool remembers that
 * marked objects exist whose pointers nobody looked at (`overflowed`). Who ends marking then looks through all
 * marked objects once more, in the stop (gc/overflow.c).
 */
#ifndef PA_GCWORK_H
#define PA_GCWORK_H

#include "base/lock.h"
#include "sys/offheap.h"

enum { PA_WORKBUF_BYTES = 2048, PA_WORKBUF_ENTRIES = (PA_WORKBUF_BYTES - 16) / 8, PA_SHARE_MIN = 4 };
#define PA_OBLET_BIT ((uintptr_t)1 << 63)

typedef struct pa_workbuf {
    struct pa_workbuf *next;
    uint64_t count;
    uintptr_t entries[PA_WORKBUF_ENTRIES];
} pa_workbuf;

typedef struct pa_workpool {
    pa_lock lock;           /* rank WORKBUF */
    pa_workbuf *full, *empty;
    /* Buffers in `full`. Written under lock; read racily: "is there work?", and exactly in a stop. */
    _Atomic uint64_t full_count;
    _Atomic uint32_t hungry; /* markers that look for work: who has much shares it */
    uint64_t made_count;    /* under lock */
    uint64_t most;          /* no more are made; 0: as many as there is memory for. Set by tests */
    pa_offheap *offheap;
    /* Set by who could not write an entry down (release), taken in the stop that ends marking. */
    _Atomic bool overflowed;
    _Atomic uint64_t overflow_count, overflow_bytes; /* objects marked so: ever, and bytes since last taken */
    bool in_checkmark;      /* marks go to checkmark's plane; changes in stops */
} pa_workpool;

typedef struct pa_gcwork {
    pa_workbuf *current, *spare;
    pa_workpool *pool;
} pa_gcwork;

void pa_gcwork_put_slow(pa_gcwork *w, uintptr_t entry);
/* 0 when there is nothing here and in the pool. */
uintptr_t pa_gcwork_get_slow(pa_gcwork *w);
/* Hands everything to the pool; true when there was something. */
bool pa_gcwork_flush(pa_gcwork *w);
/* True when marked objects were not scanned since the last call; adds the bytes marked so to *marked_bytes. */
bool pa_workpool_take_overflow(pa_workpool *pool, uint64_t *marked_bytes);
/* Gives half of what is here to the pool when there is enough; else false. */
bool pa_gcwork_share(pa_gcwork *w);

/* Can a word from a slot be an entry? NULL and what would look like an oblet cannot: no object is up there. */
PA_INLINE bool pa_gcwork_may_point(uintptr_t value) { return (intptr_t)value > 0; }

PA_INLINE void pa_gcwork_put(pa_gcwork *w, uintptr_t entry)
{
    pa_workbuf *b = w->current;
    if (PA_UNLIKELY(!b || b->count == PA_WORKBUF_ENTRIES)) {
        pa_gcwork_put_slow(w, entry);
        return;
    }
    b->entries[b->count++] = entry;
}

PA_INLINE uintptr_t pa_gcwork_get(pa_gcwork *w)
{
    pa_workbuf *b = w->current;
    if (PA_UNLIKELY(!b || b->count == 0))
        return pa_gcwork_get_slow(w);
    return b->entries[--b->count];
}

PA_INLINE uint64_t pa_workpool_full_count(pa_workpool *pool)
{
    return atomic_load_explicit(&pool->full_count, memory_order_acquire);
}

#endif
