/* peak.h - telling somebody that the heap has come to use more pages than ever before.
 *
 * Pages come into use under locks, where nothing can be written; so a flag is set there, and the next slow path that
 * holds no lock calls.  A zeroed pa_peak is one that nobody watches: then a new peak costs one more load.
 */
#ifndef PA_PEAK_H
#define PA_PEAK_H

#include "base/atomics.h"

typedef struct pa_peak {
    /* Pages in use that are worth a call when exceeded; 0: nobody wants to know. Written by who is told, read relaxed
     * where pages come into use: late is fine. */
    _Atomic uint64_t above_pages;
    /* The most pages in use since somebody watches. Relaxed and racily kept, so about. */
    _Atomic uint64_t highest_pages;
    /* Exceeded, and nobody was told. Set with release, so that who sees it (acquire) sees `notify` too; cleared by the
     * one that calls it. */
    _Atomic bool due;
    void (*notify)(void); /* set before above_pages first is; any thread, no lock of ours held, must not allocate */
} pa_peak;

/* So many pages are in use now. Any lock may be held. */
PA_INLINE void pa_peak_note(pa_peak *p, uint64_t inuse_pages)
{
    uint64_t above = atomic_load_explicit(&p->above_pages, memory_order_relaxed);
    if (PA_LIKELY(above == 0))
        return;
    if (inuse_pages > atomic_load_explicit(&p->highest_pages, memory_order_relaxed))
        atomic_store_explicit(&p->highest_pages, inuse_pages, memory_order_relaxed);
    if (inuse_pages > above)
        atomic_store_explicit(&p->due, true, memory_order_release);
}

/* Slow paths, with no lock held. */
PA_INLINE void pa_peak_tell(pa_peak *p)
{
    if (PA_UNLIKELY(atomic_load_explicit(&p->due, memory_order_relaxed)) &&
        atomic_exchange_explicit(&p->due, false, memory_order_acquire))
        p->notify();
}

#endif
