/* span.h - a run of pages and what lives in it.
 *
 * States (pa_span.state) with the function behind each arrow:
 *
 *            pa_mheap_alloc_{span,run}          pa_mcache_bin_push
 *   DEAD ---------------------------> MANUAL ---------------------> CACHED
 *    ^ |                                ^  |                          | |
 *    | +--> MANAGED (collector)         |  | pa_mheap_free_span       | |
 *    |                                  +--|--- pa_mcache_bin_take ---+ |
 *    +-------------------------------------+----------------------------+
 *
 * MANUAL spans hold explicit blocks (malloc/free) and follow the claim protocol of heap/remote.h;
 * MANAGED spans hold objects of the collector.  The two never mix in one span.  CACHED spans are
 * empty and kept by one thread for reuse.
 *
 * Span headers are type-stable off-heap memory (sys/offheap.h): a reader that looked a span up in the
 * page table may find it recycled, never unmapped.
 */
#ifndef PA_SPAN_H
#define PA_SPAN_H

#include "base/assert.h"
#include "base/atomics.h"
#include "base/bits.h"
#include "base/config.h"
#include "base/sizeclass.h"

typedef struct pa_mcache pa_mcache;

typedef enum pa_span_state { PA_SPAN_DEAD, PA_SPAN_MANUAL, PA_SPAN_CACHED, PA_SPAN_MANAGED } pa_span_state;

/* Spans with and without pointers, and explicit ones, are kept apart. */
typedef enum pa_span_kind {
    PA_KIND_EXPLICIT,
    PA_KIND_SCAN,           /* managed, the pointer bitmap says where */
    PA_KIND_NOSCAN,         /* managed, pointer-free */
    PA_KIND_CONSERVATIVE,   /* managed, any word may be a pointer */
    PA_SPAN_KINDS
} pa_span_kind;

enum { PA_WINDOW_MOST_SLOTS = 64 }; /* a group of allocation bits */

/* Which list of its mcentral a span is on. */
typedef enum pa_span_listed { PA_UNLISTED, PA_ON_NONEMPTY, PA_ON_EMPTY } pa_span_listed;

/* Three cache lines by who writes them: the owner on every call, somebody now and then, other threads. A free
 * by another thread reads line 2 only, so that it does not take line 1 away from an owner that is
 * allocating (docs/decisions/003-fast-path.md has the figures). */
typedef struct PA_ALIGNED(64) pa_span {
    /* ---- Line 1: the owner's ---- */
    union {
        void *free;             /* explicit: blocks that can be had now, linked through their first word */
        uintptr_t bump;         /* managed: next slot of the window. The slots below it are handed out, but for those
                                   that the last sweep found in use, and hold complete objects (zeroed, laid out).
                                   Written by the P that has the span (release), read by conservative look-ups */
    };
    uintptr_t tail;             /* start of the never-carved part. Read racily by diagnoses */
    union {
        uint32_t layout;        /* managed: pa_layout of every object; by the P that has the span */
        uint32_t live;          /* explicit: blocks not on `free`, not out and not in the tail, + 1 while current,
                                   so that reaching 0 means "empty and not in use" (mcache.h). Read racily by walks */
    };
    uint32_t bump_end;          /* managed: low half of the address where the window ends; windows are short */
    uint8_t listed;             /* on an mcentral list (pa_span_listed); under that list's lock, read racily */
    uint8_t needs_zero;         /* pages may hold old data */
    uint32_t lap;               /* explicit: in which heap/idle.c saw it last; under the owner's `slow` */
    struct pa_span *next, *prev; /* list of the owner or of mcentral, or the bin */
    /* Explicit, small: OS pages of free blocks that nobody gets, a bit each (heap/hollow.h): still backed, and given
     * back. By the owner in its slow paths or, under its `slow`, by who flushes it. */
    uint64_t aside, hollow;

    /* ---- Line 2: who and what; written by who owns the pages when the span changes hands or use. Freers read it
     * plainly: the block that they hold keeps it as it is. Walks read base, npages and size_class relaxed,
     * and believe the page table where the two disagree. ---- */
    PA_ALIGNED(64) _Atomic(pa_mcache *) owner; /* explicit: the mcache that may touch line 1; NULL = none. Written by
                                   the owner giving up and by a claimer (release); read relaxed by every free: only
                                   "is it me?" is asked, and only I can make that true or false. Walks follow it
                                   (acquire). */
    uintptr_t base;
    uint64_t magic;             /* ceil(2^64 / element size): block test; 1 for large spans, 0 while there are pins
                                   or a sample */
    uintptr_t limit;            /* end of the last element */
    _Atomic uint32_t state;     /* pa_span_state. Written by who owns the pages; read by anybody who looks an
                                   address up: relaxed, a diagnosis only. */
    uint32_t npages;
    uint8_t size_class;         /* 0 = large: one element */
    uint8_t kind;               /* pa_span_kind */
    uint8_t bin;                /* pa_bin_of(npages) while it is at most 512 pages */
    uint32_t pins;              /* explicit: registered root ranges in its blocks; under the roots' lock, read racily */
    /* For heap/thin.c, by whoever may write the masks above: when it looked last, since when nothing was allocated here
     * (0: something may have been since it looked), on its clock; and `live` when it last took blocks off. */
    uint32_t thin_seen, idle_since, thin_live;
    /* Explicit: record of the heap profile for the only block, 0: none; then the magic is 0 as well. Set by who
     * allocates the block, cleared by who frees it; relaxed. */
    _Atomic uint32_t sample;

    /* ---- Line 3: other threads (explicit), the collector (managed) ---- */
    PA_ALIGNED(64) _Atomic uintptr_t remote; /* see heap/remote.h: list head | unowned bit */
    uint64_t alloc_cache;       /* inverted allocation bits from free_idx up to the next multiple of 64; any when
                                   free_idx is one. This and the next five: written by the P that has the span, or
                                   by its sweeper */
    uint64_t *alloc_bits;       /* as of the last sweep; see heap/gcside.h */
    uint64_t *mark_bits;        /* by the markers, atomically */
    uint32_t free_idx;          /* slots below it are handed out, or in the window */
    uint32_t alloc_count;       /* those and the others in use; this and count_at_refill: read racily by statistics */
    uint16_t nelems;            /* at most 1024 */
    uint16_t count_at_refill;   /* pa_span_handed_out_count when it was last accounted */
    /* Managed, against the heap's sweepgen g: g - 2 needs sweeping, g - 1 is being swept, g swept; 0 unless managed.
     * CAS g - 2 -> g - 1 makes the sweeper the owner (acquire); it stores g when done (release). */
    uint32_t sweepgen;
    struct pa_special *specials; /* weak handles and cleanups, by element; under the specials' lock (release); its
                                   sweeper asks without it whether there are any (acquire) */
    void *fixalloc_word;             /* last word: sys/offheap.h */
} pa_span;
_Static_assert(offsetof(pa_span, fixalloc_word) + sizeof(void *) == sizeof(pa_span),
               "the last word is the fixalloc's");

/* The static span that stands wherever there is none: no free block, no tail, no owner. */
extern PA_HIDDEN const pa_span pa_empty_span;
#define PA_EMPTY_SPAN ((pa_span *)(uintptr_t)&pa_empty_span)

PA_INLINE uint32_t pa_span_state_racy(const pa_span *s)
{
    return atomic_load_explicit(&((pa_span *)(uintptr_t)s)->state, memory_order_relaxed);
}

PA_INLINE void pa_span_set_state(pa_span *s, pa_span_state state)
{
    atomic_store_explicit(&s->state, state, memory_order_relaxed);
}

PA_INLINE size_t pa_span_bytes(const pa_span *s) { return (size_t)s->npages << PA_PAGE_SHIFT; }

PA_INLINE size_t pa_span_element_bytes(const pa_span *s)
{
    return s->size_class ? pa_class_object_bytes[s->size_class] : pa_span_bytes(s);
}

/* Threads keep empty spans of up to 512 pages in bins: exact up to 16 pages, then 8 a doubling. */
enum { PA_BIN_COUNT = 64, PA_BIN_MAX_PAGES = 512 };

/* Precondition: 1 <= npages <= PA_BIN_MAX_PAGES. */
PA_INLINE unsigned pa_bin_of(size_t npages)
{
    if (npages <= 16)
        return (unsigned)npages - 1;
    unsigned e = pa_log2_floor(npages);
    return 16 + (e - 4) * 8 + ((unsigned)(npages >> (e - 3)) & 7);
}

/* Caller owns the pages. */
PA_INLINE void pa_span_set_npages(pa_span *s, size_t npages)
{
    pa_owner_set(&s->npages, (uint32_t)npages);
    s->bin = npages <= PA_BIN_MAX_PAGES ? (uint8_t)pa_bin_of(npages) : 0;
}

/* Is p the start of an element? One multiplication (Lemire, Kaser, Kurz, "Faster
 * remainder by direct computation", 2019). Precondition: p lies in the span's pages. A cached span
 * has no element that is a block: its state says so. */
PA_INLINE bool pa_span_is_element(const pa_span *s, const void *p)
{
    return (uintptr_t)p < s->limit && ((uintptr_t)p - s->base) * s->magic < s->magic;
}

/* The same, and was it carved? For the owner, on whose line 1 this reads. */
PA_INLINE bool pa_span_is_carved_element(const pa_span *s, const void *p)
{
    return (uintptr_t)p < pa_racy_load(&s->tail) && ((uintptr_t)p - s->base) * s->magic < s->magic;
}

/* The same without the magic, so true for the blocks of a span with pins as well. */
PA_INLINE bool pa_span_is_block(const pa_span *s, const void *p)
{
    if ((uintptr_t)p < s->base || (uintptr_t)p >= pa_racy_load(&s->tail))
        return false;
    return s->size_class ? pa_class_is_object_start(s->size_class, (uint32_t)((uintptr_t)p - s->base))
                         : (uintptr_t)p == s->base;
}

/* A pinned block must not be freed: without its magic a span fails every fast test, so that the slow path looks. */
void pa_span_pin(pa_span *s);
void pa_span_unpin(pa_span *s);

/* Formats an empty span for explicit blocks of a small class. Caller owns the span. */
void pa_span_format_explicit(pa_span *s, unsigned size_class);
/* Formats a span as one block of no owner. Caller owns the span. */
void pa_span_format_large(pa_span *s);

/* Moves an eighth of the span, at least 4 KiB or one block (of blocks over 1 KiB no more than that), from the tail to
 * `free`. False when the tail is used up.
 * Caller owns the span; precondition: s->free == NULL. */
bool pa_span_carve(pa_span *s);

/* ---- Managed: windows of free slots, found by allocation bits (Go: allocCache, runtime/mbitmap.go) ----
 *
 *     base            bump        bump_end, free_idx        group of 64
 *      | handed out ... | the window  |  alloc_cache ... |
 *
 * A window is a row of free slots without a gap. Opening one is what counts and marks its slots, together; taking a
 * slot moves bump, and that is all.
 */

/* Opens the next window, of at most `most` slots. False: no slot is free. By who has the span; the window before it
 * is used up. */
bool pa_span_open_window(pa_span *s, unsigned most);
/* What is left of the window is as if it had never been opened. By who has the span. */
void pa_span_close_window(pa_span *s);

PA_INLINE bool pa_span_window_is_empty(const pa_span *s) { return (uint32_t)s->bump == s->bump_end; }

PA_INLINE void pa_span_set_window(pa_span *s, uintptr_t from, uintptr_t end)
{
    __atomic_store_n(&s->bump, from, __ATOMIC_RELEASE);
    pa_owner_set(&s->bump_end, (uint32_t)end);
}

/* The slot at bump holds a complete object. */
PA_INLINE void pa_span_hand_out(pa_span *s, size_t slot_bytes)
{
    __atomic_store_n(&s->bump, s->bump + slot_bytes, __ATOMIC_RELEASE);
}

/* Slots of the window. Read racily by statistics, which may find the span recycled as one without a class. */
PA_INLINE uint32_t pa_span_window_slots(const pa_span *s)
{
    uint32_t nbytes = pa_racy_load(&s->bump_end) - (uint32_t)pa_racy_load(&s->bump);
    uint32_t slot_bytes = pa_class_object_bytes[pa_racy_load(&s->size_class)];
    return nbytes && slot_bytes ? nbytes / slot_bytes : 0;
}

/* Objects, those included that the next sweep will free. Read racily by statistics: two halves of different windows
 * are none. */
PA_INLINE uint32_t pa_span_handed_out_count(const pa_span *s)
{
    uint32_t count = pa_racy_load(&s->alloc_count), slots = pa_span_window_slots(s);
    return slots <= PA_WINDOW_MOST_SLOTS && slots <= count ? count - slots : count;
}

/* A swept managed span: is the slot a complete object's? (Others may be marked ahead.) */
PA_INLINE bool pa_span_is_handed_out(const pa_span *s, uint32_t idx)
{
    return s->base + idx * pa_span_element_bytes(s) < __atomic_load_n(&s->bump, __ATOMIC_ACQUIRE) ||
           pa_racy_load(&s->alloc_bits[idx / 64]) >> idx % 64 & 1;
}

#endif
