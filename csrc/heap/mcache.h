/* mcache.h - what one thread owns: the fast paths' tables and everything behind a miss.
 *
 * An mcache belongs to one thread; nobody else touches it but a fork child and, under `slow`, whoever flushes
 * it while it sleeps (heap/idle.h).  Fast paths (api/malloc.c) use `direct`, `current`, the bins and the outbox.
 *
 * Spans of a small class that an mcache owns are current (one a class: malloc pops from it) or partial
 * (a list a class, oldest first).  Full ones are abandoned, empty ones go to the bins.
 * The current span's `live` is one too high (the "bias"), so that a free can tell by the count
 * reaching zero that a span became empty and is not current.
 *
 * Bins keep empty spans of 1..512 pages, 8 bins a doubling, for the next span of any class or size.
 */
#ifndef PA_MCACHE_H
#define PA_MCACHE_H

#include "base/poison.h"
#include "base/yield.h"
#include "heap/heap.h"
#include "heap/mheap.h"

enum {
    PA_DIRECT_COUNT = 130,
    /* How much the bins keep adapts between these; half goes back when it is exceeded. */
    PA_BIN_CAP_UNASKED_PAGES = 8, /* of a thread that never asked for a span */
    PA_BIN_CAP_MIN_PAGES = 32,
    PA_BIN_CAP_FIRST_PAGES = 128,
    PA_BIN_CAP_MAX_PAGES = PA_BIN_MAX_PAGES,

    /* Spans up to this are cut from and joined of other binned ones. */
    PA_BIN_MAKE_PAGES = 128,

    PA_OUTBOX_SLOTS = 64,

    /* A class takes so many blocks, up to this size, from others before it gets a span and a page of its own. */
    PA_BORROW_BLOCKS = 8,
    PA_BORROW_MAX_BYTES = 1024,
};

typedef enum pa_cache_closed {
    PA_CACHE_OPEN,
    PA_CACHE_CLOSED,  /* but the owner was busy */
    PA_CACHE_FLUSHED, /* bins, outbox and page stock are empty */
} pa_cache_closed;

/* Blocks of one foreign span on their way back to it, linked through their first words. */
typedef struct pa_outbox_slot {
    pa_span *span; /* NULL: empty */
    void *first, *last;
    /* Blocks there is room for, and how many there were at first. `left` is written by the owner's fast path and read
     * relaxed by statistics: late by a block at most. All but first and left change under `slow` only; these two
     * are the owner's while it is busy (pa_mcache_enter). */
    uint32_t left, limit;
} pa_outbox_slot;

struct pa_mcache {
    /* Fast path. Every entry starts at the static empty span, so nothing is tested for NULL. */
    pa_span *direct[PA_DIRECT_COUNT];   /* by (size + 7) / 8, up to 1 KiB */
    pa_span *current[PA_SIZE_CLASSES];  /* written by the owner; read relaxed by walks, to know a bias */
    pa_span *bin[PA_BIN_COUNT];         /* last in, first out, linked through next */
    /* The handshake over bins and outbox, see pa_mcache_enter. busy: 1 while the owner's fast paths use them; it
     * writes 1 relaxed and 0 with release. closed: pa_cache_closed, not 0 once somebody wanted to flush them; set
     * under `slow` by who flushes, cleared under `slow` by the owner's next slow path, read by its fast paths. */
    _Atomic uint32_t busy;
    uint32_t closed;
    int32_t bin_room_pages;             /* cap - pages in the bins; below 0 while one large span exceeds the cap */
    int32_t bin_cap_pages;
    uint32_t bin_wants;                 /* spans asked for, found or not; halved when the cap is adapted */
    uint32_t outbox_count;              /* slots in use; under `slow`, read racily */
    pa_outbox_slot outbox[PA_OUTBOX_SLOTS]; /* by span; see pa_mcache_try_free_remote */
    struct pa_gcproc *gc;               /* managed half (world/gcproc.h); a constant until it is first used */
    /* Mallocs above these take the slow path: PA_SMALL_MAX_BYTES and what bins can hold, or 0 while blocks are counted.
     * As `sampling`. */
    size_t medium_max_bytes, binned_max_bytes;
    /* Blocks are counted for a heap profile, and `direct` holds empty spans: see heap/sampling.h. Written under `slow`
     * by who starts or ends a profile, read relaxed by the owner: late by a call at most. */
    uint32_t sampling;
    uint32_t sample_round;              /* the owner's, so the next four: profile that sample_left belongs to */
    /* Bytes up to the next sample, and from there to the one after it. Who starts a profile sets the first to -1; when
     * the owner overwrites that, it has counted on from an earlier profile for one block. */
    int64_t sample_left, sample_next;
    uint64_t sample_random;
    struct pa_managed_sampler *managed_sampler; /* NULL until a managed object is counted */
    /* Slow path. */
    uint32_t trim_seen;                 /* heap's trim_generation when last flushed */
    uint32_t slow_calls;
    uint32_t entries;                   /* pa_mcache_enter_slow so far; the owner's, read relaxed by heap/idle.h */
    /* For heap/idle.h, relaxed: what it saw when it looked last. A stale value costs a look or a flush. */
    _Atomic uint32_t idle_entries, idle_wants;
    struct pa_mcache *next_cache;       /* every mcache ever made; published with release, never unlinked */
    uint32_t decay_round, decay_wants;  /* heap's decay.round when last looked through, and bin_wants then */
    uint32_t claimed_pages;             /* of spans that became its own by a free, since the heap was told */
    /* heap/thin.c: where its lap is (the next class; PA_SIZE_CLASSES: it ended) and when it began; cache misses that it
     * may cost yet, and a slow path; slow_calls when it got them. */
    uint32_t thin_class, thin_lap, thin_left, thin_step, thin_calls;
    pa_lock slow;                       /* rank PROC_SLOW; held in slow paths, uncontended but for fork */
    pa_heap *heap;
    pa_page_stock stock;
    pa_spanlist partial[PA_SIZE_CLASSES];
    uint8_t run_level[PA_SIZE_CLASSES];
    uint8_t borrowed[PA_SIZE_CLASSES];  /* blocks taken from larger classes, PA_BORROW_BLOCKS: no more */
};

/* Empty, nothing owned. next_cache and managed_sampler are kept: a fork child does this again to those of vanished
 * threads. */
void pa_mcache_init(pa_mcache *c, pa_heap *h);
/* Links a new one into the heap's list, once. Under the lock of whoever makes them. */
void pa_mcache_publish_locked(pa_mcache *c);
/* Makes `direct` and the limits what `sampling` says. */
void pa_mcache_show_current_locked(pa_mcache *c);

/* Every slow path of the owner begins here, those of managed objects, too: takes `slow` and counts as activity. After a
 * flush, bins, outbox and page stock are in use again, and the background thread is told that there will be something
 * to flush. */
void pa_mcache_enter_slow(pa_mcache *c);

/* Makes a span with a free block current for the class and returns it; NULL when out of memory. The first blocks of a
 * class may come from the current span of a larger one, which is returned then. */
pa_span *pa_mcache_refill(pa_mcache *c, unsigned size_class);
/* A span of c other than the current one became empty (live reached 0). */
void pa_mcache_span_emptied(pa_mcache *c, pa_span *s);
/* Pushes every block of the outbox to its span. */
void pa_mcache_flush_outbox(pa_mcache *c);
void pa_mcache_flush_outbox_locked(pa_mcache *c);
/* Collects what others freed in partial spans; empty ones go to the bins. `slow` held. */
void pa_mcache_collect_partial_locked(pa_mcache *c);
/* The class has no current span afterwards; the caller decides what becomes of it. `slow` held. */
pa_span *pa_mcache_take_current_locked(pa_mcache *c, unsigned size_class);
/* The same, when the outbox slot holds another span's blocks or is full: flushes it, which may make c the owner
 * of s, and frees p. */
void pa_mcache_free_remote_slow(pa_mcache *c, pa_span *s, void *p);

/* A large span of npages, live, from a bin or the heap; NULL when out of memory. */
pa_span *pa_mcache_alloc_large(pa_mcache *c, size_t npages, size_t align_pages);
/* Frees a span of more than 512 pages, or drains the bins because s made them too full. */
void pa_mcache_free_large_slow(pa_mcache *c, pa_span *s);
/* Frees a large span all of whose pages went back to the OS already. */
void pa_mcache_free_released(pa_mcache *c, pa_span *s);
/* Grows a large block in place, false when the pages behind it are taken; or cuts it. */
bool pa_mcache_resize_large(pa_mcache *c, pa_span *s, size_t npages);
/* Gives back what can be had without breaking up spans in use (bins, page stock, empty spans, those of
 * mcentral too), and then every free page to the OS. Returns the bytes released. */
size_t pa_mcache_release_to_os(pa_mcache *c);
/* Gives everything back: partial spans are listed, full ones abandoned. c owns nothing afterwards. */
void pa_mcache_release_all(pa_mcache *c);
/* The same at the end of a thread: partial spans are left to other threads together (heap/leavings.h). */
void pa_mcache_move_out(pa_mcache *c);

/* The owner's fast paths use bins and outbox between enter and leave. Who flushes them meanwhile sets `closed`,
 * makes every thread pass a barrier (membarrier(2)) and looks at `busy`: at 0, the owner is out and cannot come back
 * without seeing `closed`, which sends it into a slow path. So neither needs an atomic operation here: two
 * stores and a load. What was read before an enter that succeeds is still so: `closed` stays set after a flush
 * until the owner itself clears it. */
PA_INLINE void pa_mcache_leave(pa_mcache *c)
{
    atomic_store_explicit(&c->busy, 0, memory_order_release);
}
PA_INLINE bool pa_mcache_enter(pa_mcache *c)
{
    atomic_store_explicit(&c->busy, 1, PA_TSAN ? memory_order_seq_cst : memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    if (PA_LIKELY(!__atomic_load_n(&c->closed, PA_TSAN ? __ATOMIC_SEQ_CST : __ATOMIC_RELAXED))) {
        atomic_signal_fence(memory_order_seq_cst);
        PA_YIELD(CACHE_ENTERED);
        return true;
    }
    pa_mcache_leave(c);
    return false;
}

/* The caller holds `slow` and is the owner, or keeps it out (heap/idle.h). */
PA_INLINE void pa_mcache_clear_slot_locked(pa_mcache *c, pa_outbox_slot *slot)
{
    pa_owner_set(&slot->span, NULL);
    pa_owner_set(&slot->left, 0);
    pa_owner_set(&slot->limit, 0);
    pa_owner_add(&c->outbox_count, -1);
}

/* c->outbox[header address / 64 % 64]; the compiler does not see that one shift is enough. */
PA_INLINE pa_outbox_slot *pa_outbox_slot_of(pa_mcache *c, const pa_span *s)
{
    _Static_assert(sizeof(pa_outbox_slot) * 2 == PA_CACHE_LINE_BYTES, "a slot for each cache line");
    uintptr_t offset = (uintptr_t)s / 2 % (PA_OUTBOX_SLOTS * sizeof(pa_outbox_slot));
    return (pa_outbox_slot *)((char *)c->outbox + offset / sizeof(pa_outbox_slot) * sizeof(pa_outbox_slot));
}

PA_INLINE uint32_t pa_outbox_slot_count(const pa_outbox_slot *slot)
{
    return pa_racy_load(&slot->limit) - pa_racy_load(&slot->left);
}

/* Takes s, the first span in bin i, of npages, out. */
PA_INLINE void pa_mcache_bin_pop(pa_mcache *c, unsigned i, pa_span *s, uint32_t npages)
{
    pa_owner_set(&c->bin[i], s->next);
    pa_owner_add(&c->bin_room_pages, (int32_t)npages);
}

/* Precondition: s is formatted as a large span of npages, at most 512, and nobody else's. */
PA_INLINE void pa_mcache_bin_push(pa_mcache *c, pa_span *s, uint32_t npages)
{
    unsigned i = s->bin;
    PA_POISON(s->base, pa_span_bytes(s));
    s->needs_zero = 1;
    pa_span_set_state(s, PA_SPAN_CACHED);
    s->next = c->bin[i];
    pa_owner_set(&c->bin[i], s);
    pa_owner_add(&c->bin_room_pages, -(int32_t)npages);
}

/* A live large span of npages from the bin that fits, NULL when its first does not. Works on the constant
 * mcaches, which it never writes: their bins are empty. Precondition: 1 <= npages <= 512. */
PA_INLINE pa_span *pa_mcache_bin_take(pa_mcache *c, size_t npages)
{
    unsigned i = pa_bin_of(npages);
    pa_span *s = pa_racy_load(&c->bin[i]);
    if (PA_UNLIKELY(!s))
        return NULL;
    uint32_t have = pa_racy_load(&s->npages);
    if (PA_UNLIKELY(have < npages || !pa_mcache_enter(c)))
        return NULL;
    pa_mcache_bin_pop(c, i, s, have);
    pa_owner_add(&c->bin_wants, 1);
    pa_span_set_state(s, PA_SPAN_MANUAL);
    pa_mcache_leave(c);
    return s;
}

/* Frees a large span (state MANUAL, class 0) of any thread into the bins. False when it must go the slow way:
 * the bins are full (those of the constant mcaches always are), which a span of more than 512 pages always
 * finds them. */
PA_INLINE bool pa_mcache_try_free_large(pa_mcache *c, pa_span *s)
{
    uint32_t npages = s->npages;
    if (PA_UNLIKELY((int32_t)npages > pa_racy_load(&c->bin_room_pages) || !pa_mcache_enter(c)))
        return false;
    pa_mcache_bin_push(c, s, npages);
    pa_mcache_leave(c);
    return true;
}

/* Frees a block of a small-class span that another mcache or nobody owns. Blocks of one span gather in
 * the outbox, so that one atomic operation carries many (idea: snmalloc's batched messages, Lietar et
 * al., ISMM 2019). They count as live in their span until they arrive, which keeps it from going away.
 * False when it must go the slow way: the slot is another span's, or full. */
PA_INLINE bool pa_mcache_try_free_remote(pa_mcache *c, pa_span *s, void *p)
{
    pa_outbox_slot *slot = pa_outbox_slot_of(c, s);
    if (PA_UNLIKELY(pa_racy_load(&slot->span) != s || pa_racy_load(&slot->left) == 0 || !pa_mcache_enter(c)))
        return false;
    if (PA_UNLIKELY(p == slot->first))
        pa_abort_pointer("free of", p, "already freed (double free)");
    pa_link_set(p, slot->first);
    PA_POISON(p, pa_span_element_bytes(s));
    slot->first = p;
    pa_owner_add(&slot->left, -1);
    pa_mcache_leave(c);
    return true;
}

#endif
