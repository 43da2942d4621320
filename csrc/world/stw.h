/* stw.h - who may touch managed objects: entering, leaving, stopping the world.
 *
 * Each P has two words, `inside` (its own) and `stop` (the stopper's).
 *
 *             inside = 1, look at stop            stop = 1 for all, membarrier,
 *   OUTSIDE -----------------------> INSIDE       wait until each was seen at inside == 0
 *      ^  <--- stop was set: back out   |         ---------------------------------> STOPPED
 *      +-------- inside = 0 ------------+
 *
 * Entering costs two stores and a load without a fence: membarrier(2) in the stopper puts the fence
 * between the owner's store and load (asymmetric Dekker; DESIGN section 6).  Where it cannot be had, and
 * under TSan, which does not model it, both sides use sequentially consistent operations.
 * tests/model has the exhaustive model.
 *
 * Threads of the collector take no part in this; they bracket what they do with pa_world_gc_begin/end, so that
 * fork can find them at rest.
 */
#ifndef PA_STW_H
#define PA_STW_H

#include "world/proc.h"

typedef struct pa_world {
    pa_lock lock;               /* rank WORLD: one stop or handshake at a time */
    bool initialised;           /* under the P list's lock */
    bool asymmetric;            /* membarrier works; written once, before any P is inside */
    bool stopped;               /* under the P list's lock: new Ps start with stop set */
    /* Bumped by a P that goes outside and sees its stop flag: the stopper sleeps on it. */
    _Atomic uint32_t left;
    /* Futex of who waits to enter: bumped when flags were cleared. And how many wait: a thread counts itself, then
     * reads `started` and its flag; who starts clears the flags, then bumps, then looks at the count. All
     * sequentially consistent, so that one of the two sees the other. */
    _Atomic uint32_t started, waiters;
    /* Threads of the collector at work, and whether fork wants them at rest. Sequentially consistent. */
    _Atomic uint32_t gc_active, gc_hold;
} pa_world;

extern PA_HIDDEN pa_world pa_the_world;

/* The calling thread's P, attached for managed use; NULL when out of memory or after thread exit. */
pa_proc *pa_world_attach(void);
void pa_world_enter_slow(pa_proc *p);
void pa_world_park(void);
/* Waits at most timeout_ns for a stop to end; false when it did not, outside then. */
bool pa_world_enter_within(pa_proc *p, uint64_t timeout_ns);

/* Stops every P. Returns when none is inside. Waits for those that are. */
void pa_world_stop(void);
/* Lets all go on. Returns the time from which on they may; those that sleep are woken after it. */
uint64_t pa_world_start(void);
/* Calls visit once for each managed P while it is outside and cannot get in; each goes on as soon as it was
 * visited. */
void pa_world_handshake(void (*visit)(pa_proc *p, void *argument), void *argument);
/* Calls visit for each managed P. The world is stopped. */
void pa_world_each_stw(void (*visit)(pa_proc *p, void *argument), void *argument);
/* A thread of the collector is about to touch the heap / has stopped doing so. begin waits while fork holds. */
void pa_world_gc_begin(void);
void pa_world_gc_end(void);
/* fork: waits until no thread of the collector is at work; and lets them go on. */
void pa_world_gc_hold(void);
void pa_world_gc_release(void);
/* In a fork child: only p's thread is left. */
void pa_world_reset_child(pa_proc *p);

PA_INLINE pa_proc *pa_world_self(void) { return (pa_proc *)pa_current_mcache; }

/* Is the thread of p, which may be a constant, inside? */
PA_INLINE bool pa_world_is_inside_checked(const pa_proc *p)
{
    return p && atomic_load_explicit(&p->cache.gc->inside, memory_order_relaxed) != 0;
}

/* Sets inside and looks at the flag: true when the thread may stay. */
PA_INLINE bool pa_world_try_inside(pa_proc *p)
{
    if (PA_LIKELY(!PA_TSAN && pa_the_world.asymmetric)) {
        atomic_store_explicit(&p->cache.gc->inside, 1, memory_order_relaxed);
        atomic_signal_fence(memory_order_seq_cst);
        return PA_LIKELY(atomic_load_explicit(&p->cache.gc->stop, memory_order_acquire) == 0);
    }
    atomic_store_explicit(&p->cache.gc->inside, 1, memory_order_seq_cst);
    return atomic_load_explicit(&p->cache.gc->stop, memory_order_seq_cst) == 0;
}

PA_INLINE void pa_world_enter(pa_proc *p)
{
    if (PA_UNLIKELY(!pa_world_try_inside(p)))
        pa_world_enter_slow(p);
}

PA_INLINE void pa_world_leave(pa_proc *p)
{
    atomic_store_explicit(&p->cache.gc->inside, 0, PA_TSAN ? memory_order_seq_cst : memory_order_release);
    if (PA_UNLIKELY(atomic_load_explicit(&p->cache.gc->stop, memory_order_relaxed)))
        pa_world_park();
}

/* Inside: does a stopper wait for p? */
PA_INLINE bool pa_world_is_wanted(const pa_proc *p)
{
    return atomic_load_explicit(&p->cache.gc->stop, memory_order_relaxed) != 0;
}

/* Inside. */
PA_INLINE void pa_world_poll(pa_proc *p)
{
    if (PA_UNLIKELY(pa_world_is_wanted(p))) {
        pa_world_leave(p);
        pa_world_enter(p);
    }
}

#endif
