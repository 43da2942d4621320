/* cycle.c - one collection from the first stop to the last swept span, and the thread that drives them.
 *
 * Owns pa_the_gc.  One cycle runs at a time (cycle_lock, rank GC_CYCLE, held from its first to its last
 * phase); settings, requests and history are under lock (rank GC).  The driver is a background thread, started
 * when the first cycle is wanted; where no thread can be had, who wants the cycle runs it.
 *
 * The five collectors of Go's history are one cycle with parts moved (a table: what happens in a stop):
 *
 *                      serial   parallel  concurrent-1.5     concurrent-1.6     concurrent (1.8)
 *   finishing a sweep  stop     stop      stop               before             before
 *   marking            stop, 1  stop, all concurrent         concurrent         concurrent
 *   barrier            -        -         insertion          insertion          hybrid
 *   termination check  -        -         stop               before, then stop  before, then stop
 *   roots again        -        -         stop               stop               never
 *   sweeping           stop     stop      concurrent         concurrent         concurrent
 *
 * Go: runtime/mgc.go (gcStart, gcMarkDone, gcMarkTermination).
 */
#include "gc/gc.h"

#include "base/yield.h"
#include "gc/barrier.h"
#include "gc/scavenge.h"
#include "heap/managed.h"
#include "heap/special.h"
#include "include/pyalloc.h"
#include "sys/clock.h"
#include "sys/thread.h"
#include "sys/trace.h"

enum { TRIES = 4, PERIOD_SECONDS = 120 };

pa_collector pa_the_gc = {
    .lock = PA_LOCK_INIT(GC),
    .cycle_lock = PA_LOCK_INIT(GC_CYCLE),
    .mode = PA_GC_CONCURRENT,
    .trace_fd = -1,
    .trigger_bytes = UINT64_MAX,
    .goal_bytes = UINT64_MAX,
};

static void set_phase(pa_gc_phase phase)
{
    atomic_store_explicit(&pa_the_gc.phase, phase, memory_order_release);
}

/* ---- Stops ---- */

static uint64_t stop_world(void)
{
    uint64_t now_ns = pa_clock_now_ns();
    pa_world_stop();
    pa_the_gc.stopping_ns = pa_clock_now_ns() - now_ns;
    return now_ns;
}

static unsigned pause_bucket(uint64_t ns)
{
    uint64_t units = ns >> PA_PAUSE_FIRST_SHIFT;
    unsigned i = units ? pa_log2_floor(units) + 1 : 0;
    return i < PA_PAUSE_BUCKETS ? i : PA_PAUSE_BUCKETS - 1;
}

/* Lets the world go on, and writes the stop down. Returns its length. */
static uint64_t start_world(uint64_t since_ns)
{
    pa_collector *gc = &pa_the_gc;
    uint64_t ns = pa_world_start() - since_ns;
    if (pa_trace_is_on())
        pa_trace_record(PA_TRACE_STOP, since_ns, ns, gc->stopping_ns, 0, 0);
    pa_lock_acquire(&gc->lock);
    gc->pause_ns[gc->pause_count % PA_PAUSE_HISTORY] = ns;
    gc->pause_end_unix_ns[gc->pause_count % PA_PAUSE_HISTORY] = pa_clock_unix_ns();
    gc->pauses_by_length[pause_bucket(ns)]++;
    gc->stoppings_by_length[pause_bucket(gc->stopping_ns)]++;
    gc->pause_count++;
    gc->pause_total_ns += ns;
    pa_lock_release(&gc->lock);
    return ns;
}

/* ---- Into marking ---- */

static void begin_marking_on(pa_proc *p, void *marking)
{
    pa_gcproc *g = p->cache.gc;
    g->marking = *(pa_marking *)marking;
    for (unsigned k = 0; k < PA_MANAGED_KINDS; k++)
        for (unsigned c = 1; c < PA_SIZE_CLASSES; c++) {
            pa_span *s = g->alloc[k][c];
            if (s == PA_EMPTY_SPAN)
                continue;
            pa_gcproc_account(p, s);
            if (g->marking)
                pa_managed_mark_ahead(s);
        }
    g->frames_unscanned = true;
    g->assist_debt_bytes = 0;
    g->black_bytes = 0;
    if (g->tiny)
        pa_gcwork_put(&g->work, g->tiny);
    pa_gcproc_flush_work(p);
}

static void set_marking_stw(pa_marking marking)
{
    pa_lock_acquire(&pa_the_procs.lock);
    pa_the_procs.marking = (uint8_t)marking;
    pa_lock_release(&pa_the_procs.lock);
}

/* Handles that were freed while nobody could enter. */
static void drop_deferred_handles_stw(void)
{
    for (struct pa_handle *h = pa_roots_take_deferred(), *next; h; h = next) {
        next = h->next;
        atomic_store_explicit(&h->value, NULL, memory_order_relaxed);
        pa_lock_acquire(&pa_the_roots.lock);
        h->next = pa_the_roots.free;
        pa_the_roots.free = h;
        pa_owner_add(&pa_the_roots.handle_count, -1);
        pa_lock_release(&pa_the_roots.lock);
    }
}

static void begin_marking_stw(pa_cycle_record *r, pa_marking marking)
{
    pa_collector *gc = &pa_the_gc;
    PA_YIELD(GC_STOPPED_FIRST);
    drop_deferred_handles_stw();
    atomic_store(&gc->scanned_bytes, 0);
    atomic_store(&gc->root_scanned_bytes, 0);
    atomic_store(&gc->marked_bytes, 0);
    atomic_store(&gc->background_credit, 0);
    atomic_store(&gc->assist_cpu_ns, 0);
    atomic_store(&gc->background_cpu_ns, 0);
    atomic_store(&gc->idle_cpu_ns, 0);
    set_marking_stw(marking);
    pa_world_each_stw(begin_marking_on, &marking);
    pa_roots_reset_jobs();
    r->frame_bytes = pa_roots_frame_bytes();
    r->global_bytes = pa_roots_global_bytes();
    gc->live_at_start = r->heap_at_start = atomic_load(&pa_the_heap.managed_live_bytes);
    pa_lock_acquire(&gc->lock);
    gc->pacer.processors = pa_thread_processors();
    gc->pacer.root_bytes = r->frame_bytes + r->global_bytes;
    pa_pacer_start(&gc->pacer, gc->live_at_start);
    r->goal = gc->pacer.goal;
    pa_lock_release(&gc->lock);
    pa_trace_note(PA_TRACE_HEAP, gc->live_at_start, r->goal, 0);
    set_phase(PA_PHASE_MARK);
}

static void scan_frames_on(pa_proc *p, void *unused)
{
    (void)unused;
    if (p->cache.gc->frames_unscanned)
        pa_roots_scan_frames(p, &p->cache.gc->work);
    pa_gcproc_flush_work(p);
}

/* ---- Out of marking ---- */

static void flush_on(pa_proc *p, void *flushed)
{
    *(bool *)flushed |= pa_gcproc_flush_work(p);
}

static void end_marking_on(pa_proc *p, void *unused)
{
    (void)unused;
    pa_gcproc_flush_spans(p);
    p->cache.gc->marking = PA_MARKING_OFF;
    p->cache.gc->assist_debt_bytes = 0;
}

/* Marks what is grey in this stop: roots that cannot be trusted, and what hangs on them. */
static void finish_marking_stw(pa_cycle_record *r, bool insertion, unsigned markers)
{
    pa_gcwork work = {.pool = &pa_the_procs.workpool};
    pa_marker m = {.work = &work, .plane = pa_mark_plane(atomic_load(&pa_the_heap.sweepgen))};
    if (insertion)
        pa_roots_scan_all_stw(&m);
    r->unbarriered_bytes = pa_roots_rescan_unbarriered_stw(&m);
    uint64_t before = atomic_fetch_add(&pa_the_gc.scanned_bytes, m.scanned_bytes) + m.scanned_bytes;
    pa_gcwork_flush(&work);
    pa_workers_mark_stw(markers);
    pa_workers_close();
    pa_the_gc.stop_scanned_bytes += atomic_load(&pa_the_gc.scanned_bytes) - before;
}

static uint64_t unmanaged_bytes(void)
{
    pa_heap *h = &pa_the_heap;
    uint64_t pages = atomic_load(&h->inuse_pages) - atomic_load(&h->managed_pages);
    return (pages << PA_PAGE_SHIFT) + pa_racy_load(&h->offheap.sys_bytes) + pa_racy_load(&h->side_bytes) +
           pa_racy_load(&h->pages.metadata_bytes); /* heap/release.c counts the same */
}

void pa_gc_commit_locked(void)
{
    pa_collector *gc = &pa_the_gc;
    pa_pacer_commit(&gc->pacer, unmanaged_bytes());
    atomic_store_explicit(&gc->trigger_bytes, gc->pacer.trigger, memory_order_relaxed);
    atomic_store_explicit(&gc->goal_bytes, gc->pacer.goal, memory_order_relaxed);
}

static double processor_share(uint64_t ns, uint64_t wall_ns, unsigned processors)
{
    return wall_ns ? (double)ns / ((double)wall_ns * processors) : 0;
}

static void settle_stw(pa_cycle_record *r)
{
    pa_collector *gc = &pa_the_gc;
    pa_heap *h = &pa_the_heap;
    r->heap_at_end = atomic_load(&h->managed_live_bytes);
    r->heap_marked = atomic_load(&gc->marked_bytes) + (r->heap_at_end - gc->live_at_start);
    r->assist_cpu_ns = atomic_load(&gc->assist_cpu_ns);
    r->background_cpu_ns = atomic_load(&gc->background_cpu_ns);
    r->idle_cpu_ns = atomic_load(&gc->idle_cpu_ns);
    atomic_store(&h->managed_live_bytes, r->heap_marked);
    atomic_fetch_add(&h->sweepgen, 2);
    pa_sweep_begin_stw();
    uint64_t roots = atomic_load(&gc->root_scanned_bytes);
    uint64_t scanned = atomic_load(&gc->scanned_bytes);
    pa_lock_acquire(&gc->lock);
    double utilization = processor_share(r->assist_cpu_ns + r->background_cpu_ns, r->mark_ns, gc->pacer.processors);
    pa_pacer_end(&gc->pacer, r->heap_at_end, r->heap_marked, scanned > roots ? scanned - roots : 0, roots,
                 utilization, r->forced);
    pa_gc_commit_locked();
    pa_lock_release(&gc->lock);
}

/* Something grey turned up where marking seemed to be over: does it go on concurrently? Under the hybrid barrier
 * always, as in Go: an object that one thread held back may have most of the heap behind it, and each time at least
 * one more is marked. The older barriers have to mark in the stop anyway. */
static bool goes_on(pa_cycle_record *r, pa_gc_mode mode)
{
    return r->tries++ < TRIES || mode == PA_GC_CONCURRENT;
}

/* The stop that ends marking. False when something grey turned up: marking goes on. */
static bool terminate(pa_cycle_record *r, pa_gc_mode mode)
{
    pa_collector *gc = &pa_the_gc;
    bool insertion = mode == PA_GC_CONCURRENT_15 || mode == PA_GC_CONCURRENT_16, flushed = false;
    pa_world_gc_begin();
    PA_YIELD(GC_BEFORE_HANDSHAKE);
    if (mode != PA_GC_CONCURRENT_15) {
        pa_world_handshake(flush_on, &flushed);
        if (flushed && goes_on(r, mode)) {
            pa_world_gc_end();
            return false;
        }
    }
    PA_YIELD(GC_BEFORE_STOP);
    uint64_t mark_end_ns = pa_clock_now_ns(), since_ns = stop_world();
    PA_YIELD(GC_STOPPED_LAST);
    pa_world_each_stw(flush_on, &flushed);
    if (mode == PA_GC_CONCURRENT && pa_workpool_full_count(&pa_the_procs.workpool) && goes_on(r, mode)) {
        start_world(since_ns);
        pa_world_gc_end();
        return false;
    }
    finish_marking_stw(r, insertion, gc->markers);
    r->mark_ns = mark_end_ns - r->start_ns - r->sweep_stop_ns;
    set_phase(PA_PHASE_MARK_TERMINATION);
    if (gc->checkmark)
        pa_checkmark_run_stw();
    set_marking_stw(PA_MARKING_OFF);
    pa_world_each_stw(end_marking_on, NULL);
    settle_stw(r);
    set_phase(PA_PHASE_OFF);
    PA_YIELD(GC_STOPPED_SETTLED);
    r->mark_stop_ns = start_world(since_ns);
    pa_world_gc_end();
    return true;
}

/* ---- The cycles ---- */

static void run_in_one_stop(pa_cycle_record *r, pa_gc_mode mode)
{
    pa_collector *gc = &pa_the_gc;
    pa_world_gc_begin();
    uint64_t since_ns = stop_world();
    set_phase(PA_PHASE_SWEEP_TERMINATION);
    pa_sweep_finish();
    begin_marking_stw(r, PA_MARKING_OFF);
    pa_world_each_stw(scan_frames_on, NULL);
    finish_marking_stw(r, false, mode == PA_GC_SERIAL ? 1 : gc->markers);
    set_phase(PA_PHASE_MARK_TERMINATION);
    if (gc->checkmark)
        pa_checkmark_run_stw();
    pa_world_each_stw(end_marking_on, NULL);
    settle_stw(r);
    set_phase(PA_PHASE_OFF);
    pa_sweep_finish();
    r->mark_stop_ns = start_world(since_ns);
    pa_world_gc_end();
}

static void run_concurrently(pa_cycle_record *r, pa_gc_mode mode)
{
    pa_world_gc_begin();
    if (mode != PA_GC_CONCURRENT_15)
        pa_sweep_finish();
    r->start_ns = pa_clock_now_ns();
    uint64_t since_ns = stop_world();
    set_phase(PA_PHASE_SWEEP_TERMINATION);
    pa_sweep_finish();
    begin_marking_stw(r, mode == PA_GC_CONCURRENT ? PA_MARKING_HYBRID : PA_MARKING_INSERTION);
    r->sweep_stop_ns = start_world(since_ns);
    PA_YIELD(GC_MARKING);
    pa_world_handshake(scan_frames_on, NULL);
    PA_YIELD(GC_FRAMES_SCANNED);
    pa_assist_revise();
    pa_world_gc_end();
    do
        pa_workers_mark();
    while (!terminate(r, mode));
}

static void write_trace(const pa_cycle_record *r)
{
    pa_collector *gc = &pa_the_gc;
    uint64_t program_ns = r->start_ns - gc->started_ns;
    uint64_t used = gc->total_assist_ns + gc->total_background_ns + gc->total_stopped_cpu_ns;
    if (gc->trace_fd >= 0)
        pa_gctrace_write(gc->trace_fd, r, program_ns, gc->pacer.processors,
                         processor_share(used, pa_clock_now_ns() - gc->started_ns, gc->pacer.processors));
}

static void write_down(const pa_cycle_record *r, uint64_t forced_batch)
{
    pa_collector *gc = &pa_the_gc;
    pa_lock_acquire(&gc->lock);
    gc->last = *r;
    gc->cycles++;
    gc->forced_cycles += r->forced;
    if (gc->forced_done < forced_batch)
        gc->forced_done = forced_batch;
    uint64_t now_ns = pa_clock_now_ns(), all_ns = (now_ns - gc->last_end_ns) * gc->pacer.processors;
    gc->last_end_ns = now_ns;
    gc->last_end_unix_ns = pa_clock_unix_ns();
    gc->total_assist_ns += r->assist_cpu_ns;
    gc->total_background_ns += r->background_cpu_ns;
    gc->total_idle_ns += r->idle_cpu_ns;
    gc->total_stopped_cpu_ns += (r->sweep_stop_ns + r->mark_stop_ns) * gc->pacer.processors;
    uint64_t gc_ns = r->assist_cpu_ns + r->background_cpu_ns;
    pa_limiter_add(&gc->limiter, gc_ns, all_ns > gc_ns ? all_ns - gc_ns : 0);
    pa_lock_release(&gc->lock);
}

static unsigned wanted_markers(pa_gc_mode mode)
{
    unsigned n = pa_thread_processors();
    if (pa_the_gc.max_markers && n > pa_the_gc.max_markers)
        n = pa_the_gc.max_markers;
    return mode == PA_GC_SERIAL ? 1 : n;
}

/* Sweeps in the background, a piece at a time, until it is done; a new cycle wanted meanwhile finishes the sweep
 * itself. */
static void sweep_in_background(bool hurry)
{
    pa_collector *gc = &pa_the_gc;
    uint64_t freed_bytes = 0, begin_ns = pa_sweep_is_done() ? 0 : pa_trace_begin();
    for (bool more = true; more && (hurry || !atomic_load_explicit(&gc->wanted, memory_order_relaxed));) {
        pa_world_gc_begin();
        more = pa_sweep_some(&freed_bytes);
        pa_world_gc_end();
        if (!hurry)
            pa_thread_yield();
    }
    pa_trace_end(PA_TRACE_SWEEP, begin_ns, freed_bytes, 0, 0);
}

/* Phases and stops follow one another without gaps, but for a few clock readings. */
static void trace_cycle(const pa_cycle_record *r)
{
    if (!pa_trace_is_on())
        return;
    uint64_t mark_ns = r->start_ns + r->sweep_stop_ns, end_ns = mark_ns + r->mark_ns;
    pa_trace_record(PA_TRACE_CYCLE, r->start_ns, pa_clock_now_ns() - r->start_ns, r->number, r->heap_marked, r->forced);
    pa_trace_record(PA_TRACE_SWEEP_TERMINATION, r->start_ns, r->sweep_stop_ns, r->number, 0, 0);
    pa_trace_record(PA_TRACE_MARK, mark_ns, r->mark_ns, r->number, r->background_cpu_ns, r->assist_cpu_ns);
    pa_trace_record(PA_TRACE_MARK_TERMINATION, end_ns, r->mark_stop_ns, r->number, 0, 0);
    pa_trace_note(PA_TRACE_HEAP, r->heap_marked, atomic_load_explicit(&pa_the_gc.goal_bytes, memory_order_relaxed),
                  0);
    pa_lock_acquire(&pa_the_heap.lock);
    pa_release_trace_memory_locked(&pa_the_heap);
    pa_lock_release(&pa_the_heap.lock);
}

static void run_cycle(bool forced, uint64_t forced_batch)
{
    pa_collector *gc = &pa_the_gc;
    pa_lock_acquire(&gc->cycle_lock);
    pa_gc_mode mode = (pa_gc_mode)atomic_load(&gc->mode);
    pa_workers_ensure(wanted_markers(mode) - 1);
    atomic_store(&gc->wanted, false);
    PA_YIELD(GC_BEFORE_CYCLE);
    pa_cycle_record r = {.number = gc->cycles + 1, .forced = forced, .start_ns = pa_clock_now_ns()};
    if (mode == PA_GC_SERIAL || mode == PA_GC_PARALLEL)
        run_in_one_stop(&r, mode);
    else
        run_concurrently(&r, mode);
    if (forced) {
        sweep_in_background(true);
        while (!pa_sweep_is_done())
            pa_thread_yield();
    }
    write_down(&r, forced_batch);
    trace_cycle(&r);
    write_trace(&r);
    pa_lock_release(&gc->cycle_lock);
    atomic_fetch_add(&gc->done_word, 1);
    pa_thread_wake_all(&gc->done_word);
}

/* ---- Requests and the driver ---- */

static void notify_cleanups(void)
{
    if (!pa_special_take_news(&pa_the_heap))
        return;
    pa_lock_acquire(&pa_the_gc.lock);
    void (*notify)(void *) = pa_the_gc.notify;
    void *argument = pa_the_gc.notify_argument;
    pa_lock_release(&pa_the_gc.lock);
    if (notify)
        notify(argument);
}

/* What is to be done now? Returns false for nothing; periodic: look again in two minutes. */
static bool take_request(bool *forced, uint64_t *forced_batch, bool *periodic)
{
    pa_collector *gc = &pa_the_gc;
    pa_lock_acquire(&gc->lock);
    *forced_batch = gc->forced_requested;
    *forced = gc->forced_requested != gc->forced_done;
    *periodic = gc->pacer.gc_percent >= 0 && atomic_load(&pa_the_heap.managed_pages);
    bool overdue = *periodic && pa_clock_now_ns() - gc->last_end_ns > (uint64_t)PERIOD_SECONDS * 1000000000u;
    pa_lock_release(&gc->lock);
    /* A thread may have asked on the strength of the trigger before the last cycle. */
    bool reached = atomic_load(&pa_the_heap.managed_live_bytes) >= atomic_load(&gc->trigger_bytes);
    if (!reached)
        atomic_store(&gc->wanted, false);
    return *forced || overdue || (reached && atomic_load(&gc->wanted));
}

static void *driver(void *unused)
{
    (void)unused;
    pa_collector *gc = &pa_the_gc;
    (void)pa_thread_set_slice(PA_COLLECTOR_SLICE_NS);
    for (;;) {
        uint32_t word = atomic_load_explicit(&gc->driver_word, memory_order_acquire);
        bool forced, periodic;
        uint64_t batch;
        if (take_request(&forced, &batch, &periodic)) {
            run_cycle(forced, batch);
            sweep_in_background(false);
            pa_scavenge_after_sweep();
        } else {
            pa_thread_wait(&gc->driver_word, word, periodic ? (int64_t)PERIOD_SECONDS * 1000000000 : -1);
        }
        notify_cleanups();
    }
    return NULL;
}

/* False when there is no driver and none can be started. */
static bool ensure_driver(void)
{
    pa_collector *gc = &pa_the_gc;
    if (PA_LIKELY(__atomic_load_n(&gc->driver_started, __ATOMIC_ACQUIRE)))
        return true;
    pa_lock_acquire(&gc->lock);
    if (!gc->driver_started) {
        gc->last_end_ns = pa_clock_now_ns();
        __atomic_store_n(&gc->driver_started, pa_thread_start(driver, NULL, "pyalloc-gc"), __ATOMIC_RELEASE);
    }
    bool ok = gc->driver_started;
    pa_lock_release(&gc->lock);
    return ok;
}

static void wake_driver(void)
{
    atomic_fetch_add_explicit(&pa_the_gc.driver_word, 1, memory_order_release);
    pa_thread_wake_all(&pa_the_gc.driver_word);
}

void pa_gc_wake_for_cleanups(void)
{
    if (ensure_driver())
        wake_driver();
}

bool pa_gc_request(void)
{
    if (atomic_load_explicit(&pa_the_gc.wanted, memory_order_relaxed) ||
        atomic_load_explicit(&pa_the_gc.phase, memory_order_relaxed) != PA_PHASE_OFF)
        return true;
    if (!ensure_driver())
        return false;
    if (!atomic_exchange(&pa_the_gc.wanted, true))
        wake_driver();
    return true;
}

void pa_gc_run_here(void)
{
    run_cycle(false, 0);
    sweep_in_background(false);
    notify_cleanups();
}

void pa_gc_run_forced(void)
{
    pa_collector *gc = &pa_the_gc;
    pa_trace_note(PA_TRACE_FORCED, 0, 0, 0);
    if (!ensure_driver()) {
        run_cycle(true, 0);
        notify_cleanups();
        return;
    }
    pa_lock_acquire(&gc->lock);
    uint64_t ticket = ++gc->forced_requested;
    pa_lock_release(&gc->lock);
    wake_driver();
    for (;;) {
        uint32_t word = atomic_load_explicit(&gc->done_word, memory_order_acquire);
        pa_lock_acquire(&gc->lock);
        bool done = gc->forced_done >= ticket;
        pa_lock_release(&gc->lock);
        if (done)
            return;
        pa_thread_wait(&gc->done_word, word, -1);
    }
}

bool pa_gc_run_for_room(void)
{
    pa_collector *gc = &pa_the_gc;
    uint64_t began_ns = pa_clock_now_ns();
    if (began_ns < atomic_load_explicit(&gc->room_not_before_ns, memory_order_relaxed))
        return false;
    pa_gc_run_forced();
    atomic_store_explicit(&gc->room_took_ns, pa_clock_now_ns() - began_ns, memory_order_relaxed);
    return true;
}

void pa_gc_room_was_in_vain(void)
{
    pa_collector *gc = &pa_the_gc;
    uint64_t took_ns = atomic_load_explicit(&gc->room_took_ns, memory_order_relaxed);
    atomic_store_explicit(&gc->room_not_before_ns, pa_clock_now_ns() + took_ns, memory_order_relaxed);
}
