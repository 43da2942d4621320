/* decay.h - how much free memory to keep backed, and when to give the rest to the OS.
 *
 * Free pages that stay backed are what makes the next phase fast; those of an idle process are waste.  What
 * may stay is a tenth, 1 MiB at least, over the peak of what was in use in the last second or two, so that a loop of
 * that period keeps all its pages (docs/decisions/006-idle-memory.md).  First fit wanders: blocks of mixed sizes leave
 * holes, and a loop touches more pages than are ever in use at once.  Pages that were taken again soon after they went
 * back say by how much; so much more may stay for as long as the heap goes on being turned over
 * (docs/decisions/035-pages-taken-again.md).
 *
 * Somebody looks every PYALLOC_DECAY_MS (slow paths, or gc/scavenge.h's thread where it runs) and releases three
 * quarters of what is too much, in pieces, so that no single malloc of many pays for all of it.
 */
#ifndef PA_DECAY_H
#define PA_DECAY_H

#include "base/lock.h"

struct pa_heap;

#define PA_DECAY_WINDOW_NS ((uint64_t)1000000000)
#define PA_DECAY_SLACK_BYTES PA_MIB        /* kept whatever the peak, if a tenth is less */
#define PA_DECAY_LEAST_BYTES (64 * PA_KIB) /* less is not worth a system call */
#define PA_DECAY_PIECE_BYTES (32 * PA_MIB) /* released in one go */
#define PA_DECAY_RARE_PIECE_BYTES (256 * PA_MIB) /* by a slow path that was long awaited: the next may be, too */
#define PA_DECAY_NEVER UINT64_MAX

enum { PA_DUE_IDLE = 1, PA_DUE_ERRAND = 2 };

typedef struct pa_decay {
    /* When the next look is due, on the coarse monotonic clock. Read relaxed by every slow path; whoever moves
     * it forward by compare-and-swap does the look, so one of many does. 0 at start: the first slow path sets it. */
    _Atomic uint64_t next_ns;
    /* Looks so far. Written by who looks, read relaxed by slow paths: a thread that sees a new number looks
     * through its own caches. Late is fine. */
    _Atomic uint32_t round;
    /* A thread of ours releases; slow paths leave it to that. Written by that thread's starter, with release for
     * pa_decay_wake, which calls `notify`; else read relaxed. */
    _Atomic bool background;
    /* Bits. PA_DUE_IDLE: free and backed pages came to exceed notify_above_pages; or there is no background thread yet,
     * and those in use by several threads do, or many spans in use got holes. Set under mheap's lock, with release, so
     * that who sees it (acquire) sees `notify` too; cleared by the one that calls it, outside every lock.
     * PA_DUE_ERRAND: the same for `errand`, set by a fork child's only thread. */
    _Atomic uint32_t notify_due;
    uint64_t notify_above_pages; /* under mheap's lock; 0: nobody wants to know */
    void (*notify)(void);        /* set before notify_above_pages first is; starts the thread or wakes it */
    void (*errand)(void);        /* what else waits for the next slow path: it may start a thread */
    bool refused;                /* under mheap's lock: no thread was to be had; what is held is no reason to retry */
    bool stuck;                  /* under mheap's lock: the OS refused what is free; the limit is no reason to wake */

    pa_lock lock;                /* rank SCAVENGE: what follows, and held by the thread while it releases */
    uint64_t window_ns;          /* when the current window began */
    uint64_t peak_bytes, previous_peak_bytes; /* in use, of this window and the one before, without what is hollow */
    uint64_t hollow_bytes;       /* as of the last look */
    uint64_t released_bytes, previous_released_bytes; /* handed to who releases, in these windows */
    uint64_t missed_bytes;       /* released too early, so more than the peak may stay */
    uint64_t owed_bytes;         /* of that look, still to be released */
} pa_decay;

/* What is in use and free, bytes. */
typedef struct pa_decay_view {
    uint64_t inuse, peak_inuse; /* now, and the highest since the last look, both without hollow */
    uint64_t hollow;            /* pages of free blocks inside spans that went back (heap/hollow.h) */
    uint64_t free_backed;
    uint64_t above_goal;        /* of the memory limit (heap/release.h) */
    uint64_t taken, taken_unbacked; /* from the free pages since the last look; of those, with nothing behind them */
} pa_decay_view;

/* Free and backed bytes that may stay for a peak and what is in use. */
uint64_t pa_decay_allowance(uint64_t peak_bytes, uint64_t inuse_bytes);
/* One look: updates peaks and owed. Lock held, or nobody else has d. */
void pa_decay_look(pa_decay *d, uint64_t now_ns, pa_decay_view v);
/* The next piece of what is owed, at most so much; 0: nothing. Lock held. */
uint64_t pa_decay_take(pa_decay *d, uint64_t most_bytes);

/* Reads the heap's figures and begins a new peak. Takes mheap's lock. */
pa_decay_view pa_decay_view_of(struct pa_heap *h);

/* Slow paths, with a thread's slow-path lock held: looks and releases when it is due. */
void pa_decay_tick(struct pa_heap *h, uint64_t now_ns);
PA_INLINE bool pa_decay_is_due(pa_decay *d, uint64_t now_ns)
{
    return now_ns >= atomic_load_explicit(&d->next_ns, memory_order_relaxed);
}

/* errand is called once, by the next slow path outside every lock. Precondition: no other thread is here. */
void pa_decay_set_errand(pa_decay *d, void (*errand)(void));
/* Once more, by the slow path after this one. From the errand itself. */
void pa_decay_repeat_errand(pa_decay *d);

/* Slow paths, with no lock held: tells whoever wants to know of idle memory. That may start a thread, which allocates:
 * before an allocation takes its block in hand, or after a free is over. */
void pa_decay_notify_slow(pa_decay *d);
/* Wakes the background thread where there is one; any lock may be held. */
PA_INLINE void pa_decay_wake(pa_decay *d)
{
    if (PA_UNLIKELY(atomic_load_explicit(&d->background, memory_order_acquire)))
        d->notify();
}
PA_INLINE void pa_decay_notify(pa_decay *d)
{
    if (PA_UNLIKELY(atomic_load_explicit(&d->notify_due, memory_order_relaxed)))
        pa_decay_notify_slow(d);
}

#endif
