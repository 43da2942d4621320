/* assist.c - allocating threads pay for what they allocate while marking goes on (Go: mgcmark.go, gcAssistAlloc).
 *
 * Owns each P's assist_debt_bytes (its thread only).  Debt in bytes allocated becomes scan work by the pacer's
 * ratio.  Credit that background markers earned is taken first; then the thread marks, at most PIECE_BYTES of
 * scan work a call, so that no single allocation waits long; what is left stays as debt.
 *
 * The work may be in other threads' hands, and those may not be running: with more threads than processors a
 * preempted one holds up the end of a cycle for a scheduler's round.  Beyond the goal, allocating threads
 * therefore mark what there is and else wait for the end, WAIT_NS at a time: that gives the others the processors,
 * and the markers, who need no longer leave any to them.
 */
#include "gc/gc.h"

#include "base/yield.h"
#include "sys/clock.h"
#include "sys/thread.h"
#include "sys/trace.h"

#define PIECE_BYTES ((int64_t)32 * 1024)       /* scan work a call, about 0.1 ms of random memory */
enum { TRY_PIECES = 8, MIN_DEBT_BYTES = 16 * 1024, WAIT_NS = 2 * 1000 * 1000, NAP_NS = 200 * 1000 };

void pa_assist_revise(void)
{
    pa_collector *gc = &pa_the_gc;
    pa_lock_acquire(&gc->lock);
    pa_pacer_revise(&gc->pacer, atomic_load_explicit(&pa_the_heap.managed_live_bytes, memory_order_relaxed),
                    atomic_load_explicit(&gc->scanned_bytes, memory_order_relaxed));
    double per_mib = gc->limiter.limiting ? 0 : gc->pacer.assist_per_byte * (1 << 20);
    pa_lock_release(&gc->lock);
    atomic_store_explicit(&gc->assist_per_mib, (uint64_t)per_mib, memory_order_relaxed);
}

/* Is a cycle wanted or marking? */
static bool cycle_is_due(pa_collector *gc)
{
    return atomic_load_explicit(&gc->wanted, memory_order_relaxed) ||
           atomic_load_explicit(&gc->phase, memory_order_relaxed) != PA_PHASE_OFF;
}

static int64_t take_credit(int64_t wanted)
{
    pa_collector *gc = &pa_the_gc;
    int64_t have = atomic_load_explicit(&gc->background_credit, memory_order_relaxed);
    while (have > 0) {
        int64_t take = have < wanted ? have : wanted;
        if (atomic_compare_exchange_weak_explicit(&gc->background_credit, &have, have - take, memory_order_relaxed,
                                                  memory_order_relaxed))
            return take;
    }
    return 0;
}

/* Scan work done. */
static int64_t mark_piece(pa_proc *p, int64_t wanted)
{
    pa_collector *gc = &pa_the_gc;
    pa_marker m = {.work = &p->cache.gc->work,
                   .plane = pa_mark_plane(atomic_load_explicit(&pa_the_heap.sweepgen, memory_order_relaxed))};
    PA_YIELD(ASSIST_MARK);
    uint64_t before_ns = pa_clock_thread_cpu_ns(), begin_ns = pa_trace_begin();
    atomic_fetch_add(&gc->active_markers, 1);
    pa_mark_drain(&m, (uint64_t)wanted);
    /* What is kept here nobody finds: markers would believe that all is done. */
    if (pa_the_procs.workpool.hungry || pa_workpool_full_count(&pa_the_procs.workpool) == 0)
        pa_gcwork_flush(m.work);
    atomic_fetch_sub(&gc->active_markers, 1);
    atomic_fetch_add_explicit(&gc->scanned_bytes, m.scanned_bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&gc->marked_bytes, m.marked_bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&gc->assist_cpu_ns, pa_clock_thread_cpu_ns() - before_ns, memory_order_relaxed);
    pa_trace_end(PA_TRACE_ASSIST, begin_ns, m.scanned_bytes, 0, 0);
    return (int64_t)m.scanned_bytes;
}

void pa_assist_charge(pa_proc *p, uint64_t nbytes)
{
    pa_collector *gc = &pa_the_gc;
    pa_gcproc *g = p->cache.gc;
    g->assist_debt_bytes += (int64_t)nbytes;
    if (g->assist_debt_bytes < MIN_DEBT_BYTES)
        return;
    double per_byte = (double)atomic_load_explicit(&gc->assist_per_mib, memory_order_relaxed) / (1 << 20);
    if (per_byte <= 0) {
        g->assist_debt_bytes = 0;
        return;
    }
    int64_t owed = (int64_t)((double)g->assist_debt_bytes * per_byte);
    owed -= take_credit(owed);
    if (owed > 0)
        owed -= mark_piece(p, owed < PIECE_BYTES ? owed : PIECE_BYTES);
    g->assist_debt_bytes = owed > 0 ? (int64_t)((double)owed / per_byte) : 0;
}

/* Threads that hold up others while they mark pay seldom, and then all at once (api/mallocgc.c, the try forms). */
bool pa_assist_try_charge(pa_proc *p, uint64_t nbytes)
{
    pa_gcproc *g = p->cache.gc;
    double per_byte = (double)atomic_load_explicit(&pa_the_gc.assist_per_mib, memory_order_relaxed) / (1 << 20);
    if (per_byte <= 0) {
        g->assist_debt_bytes = 0;
        return true;
    }
    int64_t owed = (int64_t)((double)(g->assist_debt_bytes + (int64_t)nbytes) * per_byte);
    if (owed > TRY_PIECES * PIECE_BYTES) {
        owed -= take_credit(owed);
        g->assist_debt_bytes = owed > 0 ? (int64_t)((double)owed / per_byte) : 0;
        if (owed <= TRY_PIECES * PIECE_BYTES)
            return true;
        g->assist_debt_bytes -= (int64_t)nbytes;
        return false;
    }
    g->assist_debt_bytes += (int64_t)nbytes;
    return true;
}

void pa_assist_settle(pa_proc *p)
{
    pa_gcproc *g = p->cache.gc;
    for (int i = 0; i < 2 * TRY_PIECES && g->marking && g->assist_debt_bytes >= MIN_DEBT_BYTES; i++) {
        pa_assist_charge(p, 0);
        pa_world_poll(p);
    }
}

bool pa_assist_must_wait(uint64_t nbytes)
{
    pa_collector *gc = &pa_the_gc;
    uint64_t live = atomic_load_explicit(&pa_the_heap.managed_live_bytes, memory_order_relaxed);
    return PA_UNLIKELY(live + nbytes > atomic_load_explicit(&gc->goal_bytes, memory_order_relaxed)) && cycle_is_due(gc);
}

void pa_assist_wait(pa_proc *p, uint64_t nbytes)
{
    pa_collector *gc = &pa_the_gc;
    uint64_t end_ns = pa_clock_now_ns() + WAIT_NS;
    for (;;) {
        uint32_t word = atomic_load_explicit(&gc->done_word, memory_order_acquire);
        /* Settings may have changed, and the mode may be one without a goal: look again each time. */
        if (!pa_assist_must_wait(nbytes) || pa_clock_now_ns() >= end_ns)
            return;
        if (p->cache.gc->marking && mark_piece(p, PIECE_BYTES) > 0) {
            pa_world_poll(p);
            continue;
        }
        uint64_t begin_ns = pa_trace_begin();
        atomic_fetch_add(&gc->waiting, 1);
        pa_world_leave(p);
        PA_YIELD(ASSIST_WAIT);
        pa_thread_wait(&gc->done_word, word, NAP_NS);
        pa_world_enter(p);
        atomic_fetch_sub(&gc->waiting, 1);
        pa_trace_end(PA_TRACE_ASSIST_WAIT, begin_ns, 0, 0, 0);
    }
}
