/* gc_control.c - the collector's settings and its part of the statistics: GOGC, memory limit, mode, gctrace.
 *
 * Owns nothing.  Settings are under the collector's lock; those that wait for a cycle leave the heap first, so that the
 * cycle need not wait for them.  What the environment says (base/options.h) is taken up with the first call.
 */
#include <pthread.h>
#include <unistd.h>

#include "api/report.h"
#include "base/options.h"
#include "gc/gc.h"
#include "gc/scavenge.h"
#include "include/pyalloc.h"
#include "sys/clock.h"
#include "sys/thread.h"

/* ---- Environment ---- */

static void configure_locked(pa_collector *gc)
{
    pa_pacer_init(&gc->pacer, pa_thread_processors());
    pa_limiter_init(&gc->limiter, gc->pacer.processors);
    gc->pacer.gc_percent = (int)pa_the_options.gogc;
    gc->pacer.memory_limit = pa_the_options.memlimit == PA_OFF_BYTES ? UINT64_MAX : (uint64_t)pa_the_options.memlimit;
    if (pa_the_options.gctrace > 0)
        gc->trace_fd = STDERR_FILENO;
    gc->max_markers = (unsigned)pa_the_options.gc_workers;
    gc->started_ns = gc->last_end_ns = pa_clock_now_ns();
    pa_gc_commit_locked();
    __atomic_store_n(&gc->configured, true, __ATOMIC_RELEASE);
}

static pthread_once_t fork_handled = PTHREAD_ONCE_INIT;

void pa_gc_configure(void)
{
    pa_collector *gc = &pa_the_gc;
    if (PA_LIKELY(__atomic_load_n(&gc->configured, __ATOMIC_ACQUIRE)))
        return;
    pa_proc_attach(); /* the heap must be there */
    /* Before anybody goes on: a fork without our handlers would leave the child a world that never stops. Outside every
     * lock: pthread_atfork may allocate. */
    pthread_once(&fork_handled, pa_gc_install_fork);
    pa_lock_acquire(&gc->lock);
    if (!gc->configured)
        configure_locked(gc);
    pa_lock_release(&gc->lock);
}

/* ---- Settings ---- */

/* Runs with the calling thread outside, whatever its depth. */
typedef struct outside {
    pa_proc *proc;
} outside;

static outside go_outside(void)
{
    pa_gc_configure();
    pa_proc *p = pa_world_self();
    outside o = {.proc = p->cache.gc->depth > 0 ? p : NULL};
    if (o.proc)
        pa_world_leave(o.proc);
    return o;
}

static void come_back(outside o)
{
    if (o.proc)
        pa_world_enter(o.proc);
}

PA_EXPORT void pa_gc(void)
{
    outside o = go_outside();
    pa_gc_run_forced();
    come_back(o);
}

PA_EXPORT int pa_set_gc_percent(int percent)
{
    pa_collector *gc = &pa_the_gc;
    pa_gc_configure();
    pa_lock_acquire(&gc->lock);
    int before = gc->pacer.gc_percent;
    gc->pacer.gc_percent = percent < 0 ? -1 : percent;
    pa_gc_commit_locked();
    pa_lock_release(&gc->lock);
    return before;
}

PA_EXPORT int64_t pa_set_memory_limit(int64_t nbytes)
{
    pa_collector *gc = &pa_the_gc;
    pa_gc_configure();
    pa_lock_acquire(&gc->lock);
    uint64_t before = gc->pacer.memory_limit;
    if (nbytes >= 0) {
        gc->pacer.memory_limit = nbytes == INT64_MAX ? UINT64_MAX : (uint64_t)nbytes;
        pa_limit_set(&pa_the_heap, gc->pacer.memory_limit);
        pa_gc_commit_locked();
    }
    pa_lock_release(&gc->lock);
    if (nbytes >= 0 && pa_the_heap.initialised)
        pa_scavenge_limit_changed();
    return before > INT64_MAX ? INT64_MAX : (int64_t)before;
}

PA_EXPORT int pa_set_gc_mode(int mode)
{
    pa_collector *gc = &pa_the_gc;
    if (mode < PA_GC_SERIAL || mode > PA_GC_CONCURRENT)
        return -1;
    outside o = go_outside();
    pa_lock_acquire(&gc->cycle_lock);
    int before = atomic_exchange(&gc->mode, mode);
    pa_lock_release(&gc->cycle_lock);
    come_back(o);
    return before;
}

PA_EXPORT int pa_set_gctrace(int fd)
{
    pa_collector *gc = &pa_the_gc;
    pa_gc_configure();
    pa_lock_acquire(&gc->lock);
    int before = gc->trace_fd;
    gc->trace_fd = fd < 0 ? -1 : fd;
    pa_lock_release(&gc->lock);
    return before;
}

PA_EXPORT bool pa_gc_set_checkmark(bool on)
{
    pa_collector *gc = &pa_the_gc;
    outside o = go_outside();
    pa_lock_acquire(&gc->cycle_lock);
    bool before = gc->checkmark;
    gc->checkmark = on;
    pa_lock_release(&gc->cycle_lock);
    come_back(o);
    return before;
}

/* ---- Statistics ---- */

void pa_gc_stats_locked(pa_gc_stats *out)
{
    const pa_collector *gc = &pa_the_gc;
    out->cycles = gc->cycles;
    out->forced_cycles = gc->forced_cycles;
    out->pause_total_ns = gc->pause_total_ns;
    out->pause_count = gc->pause_count;
    out->last_gc_unix_ns = gc->last_end_unix_ns;
    out->next_gc_bytes = gc->pacer.goal;
    out->heap_marked_bytes = gc->pacer.heap_marked;
    out->assist_ns = gc->total_assist_ns;
    out->background_ns = gc->total_background_ns;
    out->idle_ns = gc->total_idle_ns;
    out->stopped_ns = gc->total_stopped_cpu_ns;
    out->unbarriered_bytes = gc->last.unbarriered_bytes;
    out->gc_percent = gc->pacer.gc_percent;
    out->memory_limit = gc->pacer.memory_limit > INT64_MAX ? INT64_MAX : (int64_t)gc->pacer.memory_limit;
    out->processors = gc->pacer.processors;
    uint64_t wall_ns = pa_clock_now_ns() - gc->started_ns;
    uint64_t used_ns = gc->total_assist_ns + gc->total_background_ns + gc->total_stopped_cpu_ns;
    out->cpu_fraction = wall_ns ? (double)used_ns / ((double)wall_ns * out->processors) : 0;
}

PA_EXPORT size_t pa_read_gc_pauses(uint64_t *pause_ns, uint64_t *pause_end_unix_ns, size_t capacity)
{
    pa_collector *gc = &pa_the_gc;
    pa_lock_acquire(&gc->lock);
    uint64_t have = gc->pause_count < PA_PAUSE_HISTORY ? gc->pause_count : PA_PAUSE_HISTORY;
    size_t n = capacity < have ? capacity : have;
    for (size_t i = 0; i < n; i++) {
        uint64_t at = (gc->pause_count - 1 - i) % PA_PAUSE_HISTORY;
        pause_ns[i] = gc->pause_ns[at];
        if (pause_end_unix_ns)
            pause_end_unix_ns[i] = gc->pause_end_unix_ns[at];
    }
    pa_lock_release(&gc->lock);
    return n;
}
