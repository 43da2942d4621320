/* mcache.h - what one thread owns: the fast paths' tables and everything behind a miss.
 *
 * An mcache belongs to one thread; nobody else touches it but a fork child and, under `slow`, whoever
 * cleans up for it.  Fast paths (api/malloc.c) read `direct`, `current` and the bins only.
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

#include "heap/heap.h"
#include "heap/mheap.h"

enum {
    PA_DIRECT_COUNT = 130,
    /* How much the bins keep adapts between these; half goes back when it is exceeded. */
    PA_BIN_CAP_MIN_PAGES = 32,
    PA_BIN_CAP_FIRST_PAGES = 128,
    PA_BIN_CAP_MAX_PAGES = PA_BIN_MAX_PAGES,

    PA_OUTBOX_SLOTS = 64,
};

/* Blocks of one foreign span on their way back to it, linked through their first words. */
typedef struct pa_outbox_slot {
    pa_span *span; /* NULL: empty */
    void *first, *last;
    /* count is written by the owner's fast path and read relaxed by statistics: late by a block at most. The
     * rest is changed under `slow`, but for `first`, which only the owner uses. */
    uint32_t count, limit;
} pa_outbox_slot;

struct pa_mcache {
    /* Fast path. Every entry starts at the static empty span, so nothing is tested for NULL. */
    pa_span *direct[PA_DIRECT_COUNT];   /* by (size + 7) / 8, up to 1 KiB */
    pa_span *current[PA_SIZE_CLASSES];  /* written by the owner; read relaxed by walks, to know a bias */
    uint64_t bin_bits;                  /* bit i clear: bin[i] is empty */
    pa_span *bin[PA_BIN_COUNT];         /* last in, first out, linked through next */
    int32_t bin_room_pages;             /* cap - pages in the bins; below 0 while one large span exceeds the cap */
    int32_t bin_cap_pages;
    uint32_t bin_wants;                 /* spans asked for, found or not; halved when the cap is adapted */
    uint32_t outbox_count;              /* slots in use; under `slow`, read racily */
    pa_outbox_slot outbox[PA_OUTBOX_SLOTS]; /* by span; see pa_mcache_try_free_remote */
    struct pa_gcproc *gc;               /* managed half (world/gcproc.h); a constant until it is first used */
    /* Slow path. */
    uint32_t trim_seen;                 /* heap's trim_generation when last flushed */
    uint32_t slow_calls;
    uint32_t decay_round, decay_wants;  /* heap's decay.round when last looked through, and bin_wants then */
    pa_lock slow;                       /* rank PROC_SLOW; held in slow paths, uncontended but for fork */
    pa_heap *heap;
    pa_page_stock stock;
    pa_spanlist partial[PA_SIZE_CLASSES];
    uint8_t run_level[PA_SIZE_CLASSES];
};

void pa_mcache_init(pa_mcache *c, pa_heap *h);

/* Makes a span with a free block current for the class and returns it; NULL when out of memory. */
pa_span *pa_mcache_refill(pa_mcache *c, unsigned size_class);
/* A span of c other than the current one became empty (live reached 0). */
void pa_mcache_span_emptied(pa_mcache *c, pa_span *s);
/* Pushes every block of the outbox to its span. */
void pa_mcache_flush_outbox(pa_mcache *c);
/* The same, when the outbox slot holds another span's blocks or is full: flushes it, which may make c the owner
 * of s, and frees p. */
void pa_mcache_free_remote_slow(pa_mcache *c, pa_span *s, void *p);

/* A large span of npages, live, from a bin or the heap; NULL when out of memory. */
pa_span *pa_mcache_alloc_large(pa_mcache *c, size_t npages, size_t align_pages);
/* Frees a span of more than 512 pages, or drains the bins because s made them too full. */
void pa_mcache_free_large_slow(pa_mcache *c, pa_span *s);
/* Grows a large block in place, false when the pages behind it are taken; or cuts it. */
bool pa_mcache_resize_large(pa_mcache *c, pa_span *s, size_t npages);
/* Gives back what can be had without breaking up spans in use (bins, page stock, empty spans, those of
 * mcentral too), and then every free page to the OS. Returns the bytes released. */
size_t pa_mcache_release_to_os(pa_mcache *c);
/* Gives everything back: partial spans are listed, full ones abandoned. c owns nothing afterwards. */
void pa_mcache_release_all(pa_mcache *c);

/* First span in bin i, taken out. Precondition: the bin is not empty. The bin's bit stays set. */
PA_INLINE pa_span *pa_mcache_bin_pop(pa_mcache *c, unsigned i)
{
    pa_span *s = c->bin[i];
    c->bin[i] = s->next;
    c->bin_room_pages += (int32_t)s->npages;
    return s;
}

/* Precondition: s is formatted as a large span of at most 512 pages, and nobody else's. */
PA_INLINE void pa_mcache_bin_push(pa_mcache *c, pa_span *s)
{
    unsigned i = s->bin;
    s->needs_zero = 1;
    pa_span_set_state(s, PA_SPAN_CACHED);
    s->next = c->bin[i];
    c->bin[i] = s;
    c->bin_bits |= (uint64_t)1 << i;
    c->bin_room_pages -= (int32_t)s->npages;
}

/* A live large span of npages from the bin that fits, NULL when its first does not. Works on the constant
 * mcaches, whose bins are empty. Precondition: 1 <= npages <= 512. */
PA_INLINE pa_span *pa_mcache_bin_take(pa_mcache *c, size_t npages)
{
    unsigned i = pa_bin_of(npages);
    if (PA_UNLIKELY(!c->bin[i] || c->bin[i]->npages < npages))
        return NULL;
    pa_span *s = pa_mcache_bin_pop(c, i);
    c->bin_wants++;
    pa_span_set_state(s, PA_SPAN_MANUAL);
    return s;
}

/* Frees a large span (state MANUAL, class 0) of any thread into the bins. False when it must go the slow way:
 * the bins are full (those of the constant mcaches always are), which a span of more than 512 pages always
 * finds them. */
PA_INLINE bool pa_mcache_try_free_large(pa_mcache *c, pa_span *s)
{
    if (PA_UNLIKELY((int32_t)s->npages > c->bin_room_pages))
        return false;
    pa_mcache_bin_push(c, s);
    return true;
}

/* Frees a block of a small-class span that another mcache or nobody owns. Blocks of one span gather in
 * the outbox, so that one atomic operation carries many (idea: snmalloc's batched messages, Lietar et
 * al., ISMM 2019). They count as live in their span until they arrive, which keeps it from going away.
 * False when it must go the slow way: the slot is another span's, or full. */
PA_INLINE bool pa_mcache_try_free_remote(pa_mcache *c, pa_span *s, void *p)
{
    pa_outbox_slot *slot = &c->outbox[((uintptr_t)s / PA_CACHE_LINE_BYTES) % PA_OUTBOX_SLOTS];
    if (PA_UNLIKELY(slot->span != s || slot->count >= slot->limit))
        return false;
    if (PA_UNLIKELY(p == slot->first))
        pa_abort_pointer("free of", p, "already freed (double free)");
    *(void **)p = slot->first;
    slot->first = p;
    pa_owner_add(&slot->count, 1);
    return true;
}

#endif
