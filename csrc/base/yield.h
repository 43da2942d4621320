/* yield.h - named places where a test may stop a thread, so that races are repeatable.
 *
 * PA_YIELD(POINT) is nothing in ordinary builds.  With PA_WHITEBOX it calls the hook that a test
 * installed; the hook may block the thread until the test lets it go on.
 */
#ifndef PA_YIELD_H
#define PA_YIELD_H

#include "base/atomics.h"
#include "base/config.h"

#define PA_YIELD_POINTS(X)                                                   \
    X(FREE_BEFORE_PUSH)      /* remote free: list head read, CAS to come */  \
    X(FREE_AFTER_CLAIM)      /* the CAS cleared bit 0, owner not yet set */  \
    X(ABANDON_OWNER_CLEARED) /* owner = 0, CAS to come */                    \
    X(LIST_OWNER_CLEARED)    /* owner = 0, not yet linked */                 \
    X(POP_UNLINKED)          /* taken off mcentral, remote not collected */  \
    X(EXIT_BEFORE_RELEASE)   /* thread exit, nothing given back yet */       \
    X(ATTACH_LOCKED)         /* attaching, with the list of Ps locked */     \
    X(FORK_HANDLED)          /* the fork handlers are there, for others */   \
    X(FORK_GC_HANDLED)       /* so are the collector's */                    \
    X(ENTER_WAITS)           /* a thread is about to sleep until a stop ends */ \
    X(ASSIST_MARK)           /* an allocating thread is about to mark */     \
    X(ASSIST_WAIT)           /* it is about to wait for the cycle's end */   \
    X(CACHE_ENTERED)         /* a fast path found its bins open */           \
    X(FREE_PUSHED)           /* own free: block is listed, live not lowered */ \
    X(IDLE_CLOSED)           /* a cache is closed, nothing taken from it */  \
    X(GC_BEFORE_CYCLE)       /* a cycle is about to stop the world */        \
    X(GC_STOPPED_FIRST)      /* in the stop that begins marking */           \
    X(GC_MARKING)            /* marking began, no frame scanned yet */       \
    X(GC_FRAMES_SCANNED)     /* every P's frames are scanned */              \
    X(GC_BEFORE_HANDSHAKE)   /* markers found no more work */                \
    X(GC_BEFORE_STOP)        /* the handshake flushed nothing */             \
    X(GC_STOPPED_LAST)       /* in the stop that ends marking */             \
    X(GC_STOPPED_SETTLED)    /* in it, barrier off, sweepgen moved on */     \
    X(GC_SWEEP_SPAN)         /* a span was claimed for sweeping */           \
    X(GC_SWEEP_SPECIALS)     /* its weak handles are cleared, bits not yet */ \
    X(GC_SLOT_TAKEN)         /* a slot is handed out, not zeroed yet */      \
    X(GC_STORE)              /* pa_store, nothing shaded yet */              \
    X(GC_WEAK_GET)           /* pa_weak_get loaded the object */

typedef enum pa_yield_point {
#define X(name) PA_YIELD_##name,
    PA_YIELD_POINTS(X)
#undef X
        PA_YIELD_POINT_COUNT
} pa_yield_point;

#if PA_WHITEBOX
typedef void (*pa_yield_fn)(int point);
extern _Atomic(pa_yield_fn) pa_yield_hook;
#define PA_YIELD(name)                                                                      \
    do {                                                                                    \
        pa_yield_fn hook_ = atomic_load_explicit(&pa_yield_hook, memory_order_acquire);     \
        if (hook_)                                                                          \
            hook_(PA_YIELD_##name);                                                         \
    } while (0)
#else
#define PA_YIELD(name) ((void)0)
#endif

#endif
