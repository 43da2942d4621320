/* gcproc.h - the managed half of a P: inside or outside, its spans, roots, barrier and mark work.
 *
 * Made when a thread first goes inside and kept with the P; until then the mcache's `gc` points at
 * a constant that is never inside.  The owner thread writes everything while inside; who stopped
 * the P (world/stw.h) does so on its behalf while it is outside and its stop flag is set.
 */
#ifndef PA_GCPROC_H
#define PA_GCPROC_H

#include "heap/mheap.h"
#include "world/gcwork.h"

enum { PA_BARRIER_ENTRIES = 256, PA_MANAGED_KINDS = PA_SPAN_KINDS - 1, PA_HANDLE_CACHE = 32 };

struct pa_frame;
struct pa_handle;

/* What the write barrier has to do. */
typedef enum pa_marking {
    PA_MARKING_OFF,
    PA_MARKING_HYBRID,      /* shade the old and the new value (Go 1.8) */
    PA_MARKING_INSERTION    /* shade the new value only (Dijkstra; Go 1.5, 1.6): frames are scanned again */
} pa_marking;

/* The first fields, down to alloc[PA_KIND_SCAN - 1], are read by programs: include/pyalloc_inline.h. */
typedef struct pa_gcproc {
    /* ---- The handshake of world/stw.h ---- */
    /* 1 while the thread may touch managed objects. Written by the owner: relaxed 1 on entry, release 0 on
     * leaving; read by stoppers (acquire, after a membarrier). */
    _Atomic uint32_t inside;
    /* 1 while the thread must not be inside. Written by stoppers; read by the owner with acquire. */
    _Atomic uint32_t stop;
    uint32_t depth;             /* nested pa_enter; owner only */

    /* ---- Allocation; see api/mallocgc.c. Changed by the owner and, in stops, by the collector ---- */
    uint8_t marking;            /* pa_marking: barrier on, slots marked ahead; changes in stops only */
    bool trying;                /* in a pa_try_new form: nothing may be waited for; owner only */
    bool no_fence;              /* entering needs none: pa_world.asymmetric; written before the P is used */
    pa_span *alloc[PA_MANAGED_KINDS][PA_SIZE_CLASSES]; /* by kind - 1 */
    uintptr_t tiny;             /* current tiny block, 0: none */
    uint32_t tiny_offset;       /* its rest begins here; PA_TINY_BYTES when there is none */
    int64_t assist_debt_bytes;  /* allocated while marking and not yet paid for, in bytes of heap */

    /* ---- Roots ---- */
    struct pa_frame *frames;
    bool frames_unscanned;      /* this cycle has not scanned them yet */
    struct pa_handle *free_handles;
    uint32_t free_handle_count; /* read racily by statistics */

    /* ---- Marking ---- */
    pa_gcwork work;
    /* The last span that was taken empty while marking: all its objects are marked, and the barrier need not look at
     * them. black_bytes is 0 when there is none; set by the owner, cleared by it when it detaches, and in stops. */
    uintptr_t black_base;
    size_t black_bytes;
    uint32_t barrier_count;
    uintptr_t barrier[PA_BARRIER_ENTRIES]; /* shaded, not yet in work */

    /* ---- Cumulative, by size class (0 = large); read by statistics, see pa_gcproc_read_allocs ---- */
    _Atomic uint32_t account_round; /* odd while the next two and a span's counts change together */
    uint64_t alloc_bytes, mallocs[PA_SIZE_CLASSES];
    /* The most that statistics ever reported of the two, so that counts never go back. Raised by any reader,
     * relaxed: each number is true by itself. */
    _Atomic uint64_t seen_bytes, seen_mallocs[PA_SIZE_CLASSES];
} pa_gcproc;

/* Stands wherever there is none; never written. */
extern PA_HIDDEN const pa_gcproc pa_gcproc_outside;
PA_INLINE bool pa_gcproc_is_real(const pa_gcproc *gc) { return gc && gc != &pa_gcproc_outside; }
_Static_assert(offsetof(pa_gcproc, inside) % 8 == 0 && offsetof(pa_gcproc, stop) == offsetof(pa_gcproc, inside) + 4,
               "read as one word");
/* Inside, and nobody wants to stop us: managed operations may go on. A stop flag that is set just now is seen at the
 * next call; who stops waits for `inside`. */
PA_INLINE bool pa_gcproc_may_go_on(const pa_gcproc *gc)
{
    typedef uint64_t both_words __attribute__((may_alias)); /* inside is the low one */
    return pa_racy_load((const both_words *)(const void *)&gc->inside) == 1;
}

struct pa_proc;
/* Publishes one for p, which has none: it starts with the marking mode and the stop flag that all others have.
 * NULL when out of memory. The P list's lock held. */
pa_gcproc *pa_gcproc_make_locked(struct pa_proc *p);
/* What the barrier shaded and nobody marked yet becomes mark work. */
void pa_gcproc_flush_barrier(pa_gcproc *gc);
/* Barrier buffer and mark work go to the pool; true when there was something. */
bool pa_gcproc_flush_work(struct pa_proc *p);
/* Spans go back to their mcentrals, the tiny block is dropped. Before `marking` goes off. */
void pa_gcproc_flush_spans(struct pa_proc *p);
/* Opens the next window of s, one of gc's spans, of at most `most` slots, black while marking; false when s is full. By
 * the thread, inside. */
bool pa_gcproc_open_window(pa_gcproc *gc, pa_span *s, unsigned most);
/* Counts what was allocated from s, one of p's spans, since it was last counted. */
void pa_gcproc_account(struct pa_proc *p, pa_span *s);
/* The same for one large object. */
void pa_gcproc_account_large(struct pa_proc *p, uint64_t nbytes);
/* Adds what gc's thread allocated so far: what was accounted and what it took from its spans since. Waits for
 * nobody: when the thread is in the middle of accounting, the last figures that anybody saw stand in. Any
 * thread. */
void pa_gcproc_read_allocs(pa_gcproc *gc, uint64_t mallocs[PA_SIZE_CLASSES], uint64_t *bytes);
/* The thread exits: everything above, its frames and handles. */
void pa_gcproc_detach(struct pa_proc *p);
/* The same in a fork child, for a thread that was outside and is gone. */
void pa_gcproc_detach_vanished(struct pa_proc *p);

#endif
