/* idle.h - flushing what a thread keeps, on its behalf: it sleeps, or somebody wants the memory now.
 *
 * A thread flushes itself in its slow paths (heap/mcache.h).  One that went to sleep has none, so others do it: the
 * background thread, slow paths of other threads now and then, and pa_free_os_memory at once.
 */
#ifndef PA_IDLE_H
#define PA_IDLE_H

#include "base/atomics.h"
#include "base/config.h"

struct pa_heap;
struct pa_mcache;

typedef enum pa_idle_barrier { PA_BARRIER_UNKNOWN, PA_BARRIER_WORKS, PA_BARRIER_NONE } pa_idle_barrier;

typedef struct pa_idle {
    /* When the next look may be, monotonic. Moved by compare-and-swap: who moves it looks. */
    _Atomic uint64_t next_ns;
    /* Looks come round in laps (idle.c): numbers given out so far, never 0 */
    _Atomic uint32_t laps;
    /* the lap under way, 0: none, and where it goes on. Written by who looks, relaxed: two that look at once, which
     * takes a look longer than the interval, look at some spans twice. */
    _Atomic uint32_t lap, lap_class, lap_kept;
    _Atomic(struct pa_mcache *) lap_cache; /* NULL: at listed spans */
    /* Something may be to be done that this lap did not see. Set (release) by whoever makes it so, cleared by who
     * begins a lap (acquire), so that the lap sees it. */
    _Atomic bool news;
    _Atomic bool quiet;       /* the last look ended a lap, and nothing was left; by who looks, relaxed */
    /* pa_idle_barrier: is there a membarrier(2)? Written by whoever tries, with the same answer; relaxed. */
    _Atomic uint32_t barrier;
    _Atomic uint32_t caches;  /* in the heap's list; written under the P list's lock, read relaxed */
    _Atomic uint64_t flushes; /* caches flushed so far; for tests and reports */
} pa_idle;

/* Flushes threads that did nothing since the last look, and frees spans that became empty in their hands or nobody's,
 * at most one look every PYALLOC_DECAY_MS; more often is cheap and does nothing. self: the caller's mcache, whose
 * slow-path lock it holds; NULL: it holds no lock.
 * True when a whole lap found nothing, and every mcache was flushed since its thread last came through a slow path
 * (so never for a self): nothing will be left to do until one does, and that calls pa_decay_wake. */
bool pa_idle_look(struct pa_heap *h, struct pa_mcache *self, uint64_t now_ns);
/* Flushes all but self's at once, whether their threads sleep or not. The caller holds no lock. Returns the bytes of
 * spans in use that went back to the OS. */
size_t pa_idle_flush_all(struct pa_heap *h, const struct pa_mcache *self);
/* Somebody made something to be looked at. */
PA_INLINE void pa_idle_note(pa_idle *idle)
{
    atomic_store_explicit(&idle->news, true, memory_order_release);
}
/* A fork child asks the kernel for its barrier again. */
void pa_idle_reset_child(struct pa_heap *h);

#endif
