/* workers.c - who marks, how much of the processors, and how they know that they are done.
 *
 * Marker 0 is the thread that drives the cycle; the others are background threads started with the first cycle
 * that can use them.  Their shares come from the pacer: dedicated workers mark all the time, one fractional
 * worker part of it (Go: a quarter of the processors, runtime/mgcpacer.go).  When processors are idle -
 * measured: the process's processor time less the collector's, over the last milliseconds, and whether our own
 * slices there are interrupted - as many markers as there are idle processors may mark all the time, which is what
 * makes a collection that the program waits for short.  One more than that would take turns with a thread of the
 * program, a scheduler's slice (3 ms) at a time.
 *
 * Where the kernel lets a thread choose (Linux 6.12), the collector's threads take short slices of a processor: they
 * get one sooner, and threads of the program wait less behind them (docs/decisions/034).  The slices of the program's
 * threads are its own.
 *
 * A marker works in slices of SLICE_BYTES of scan work between pa_world_gc_begin and _end.  It is "active" from
 * before it takes work until it has handed back what is left.  So: no buffer in the pool, nobody active, and
 * still no buffer in the pool, means that nothing is grey but what Ps hold.  Locks: none held while marking.
 */
#include "gc/gc.h"
#include "sys/clock.h"
#include "sys/thread.h"

#define SLICE_BYTES ((uint64_t)128 * 1024)
enum { TICK_NS = 1000 * 1000, NAP_NS = 100 * 1000, BACK_OFF_NS = 20 * 1000 * 1000, SPINS = 300 };
static const double idle_margin = 0.4; /* of a processor that must be unused before we take more than our share */
static const double idle_slack = 0.4;  /* of a processor that the program may use of one that counts as idle */

typedef enum role { ROLE_IDLE, ROLE_FRACTIONAL, ROLE_DEDICATED } role;

/* ---- One slice ---- */

static void account(bool as_idle, uint64_t cpu_ns)
{
    pa_collector *gc = &pa_the_gc;
    atomic_fetch_add_explicit(as_idle ? &gc->idle_cpu_ns : &gc->background_cpu_ns, cpu_ns, memory_order_relaxed);
}

static void publish(pa_marker *m, bool credit)
{
    pa_collector *gc = &pa_the_gc;
    atomic_fetch_add_explicit(&gc->scanned_bytes, m->scanned_bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&gc->marked_bytes, m->marked_bytes, memory_order_relaxed);
    if (credit)
        atomic_fetch_add_explicit(&gc->background_credit, (int64_t)m->scanned_bytes, memory_order_relaxed);
    m->scanned_bytes = m->marked_bytes = 0;
}

/* A slice of marking; true when it found something to do. Nothing when need_open and marking is closed: being
 * active comes before looking, and pa_workers_close does it the other way round. */
static bool mark_slice(pa_gcwork *work, bool need_open)
{
    pa_collector *gc = &pa_the_gc;
    atomic_fetch_add(&gc->active_markers, 1);
    if (need_open && !atomic_load(&gc->marking_open)) {
        atomic_fetch_sub(&gc->active_markers, 1);
        return false;
    }
    pa_marker m = {.work = work,
                   .plane = pa_mark_plane(atomic_load_explicit(&pa_the_heap.sweepgen, memory_order_relaxed))};
    while (m.scanned_bytes < SLICE_BYTES && pa_roots_do_job(&m))
        continue;
    pa_mark_drain(&m, SLICE_BYTES);
    bool worked = m.scanned_bytes > 0 || m.marked_bytes > 0;
    publish(&m, true);
    pa_gcwork_flush(work);
    atomic_fetch_sub(&gc->active_markers, 1);
    return worked;
}

/* Nothing grey but in the Ps? See the essay for the order of the three looks. */
static bool is_drained(void)
{
    pa_collector *gc = &pa_the_gc;
    return !pa_roots_jobs_left() && pa_workpool_full_count(&pa_the_procs.workpool) == 0 &&
           atomic_load(&gc->active_markers) == 0 && pa_workpool_full_count(&pa_the_procs.workpool) == 0;
}

/* ---- Shares of the processors ---- */

/* One marker's account of its share of one cycle; its thread only. */
typedef struct share {
    role role;
    unsigned marker;
    double fraction;            /* of a processor; fractional workers */
    uint64_t start_ns, used_ns;
    unsigned dry;               /* slices in a row without work */
} share;

static share share_of(unsigned marker)
{
    const pa_pacer *p = &pa_the_gc.pacer;
    share s = {.role = ROLE_IDLE, .marker = marker, .start_ns = pa_clock_now_ns()};
    pa_lock_acquire(&pa_the_gc.lock);
    s.fraction = p->fractional_utilization;
    if (marker < p->dedicated_workers)
        s.role = ROLE_DEDICATED;
    else if (marker == p->dedicated_workers && s.fraction > 0)
        s.role = ROLE_FRACTIONAL;
    pa_lock_release(&pa_the_gc.lock);
    return s;
}

/* How far its share is used up, ns of wall time; <= 0: it may mark. */
static int64_t ahead_ns(const share *s)
{
    if (s->role == ROLE_DEDICATED)
        return 0;
    if (s->role == ROLE_IDLE)
        return 2 * TICK_NS;
    double due_ns = (double)s->used_ns / s->fraction;
    int64_t ahead = (int64_t)due_ns - (int64_t)(pa_clock_now_ns() - s->start_ns);
    return ahead > TICK_NS / 4 ? ahead : 0;
}

/* A slice on what we took for an idle processor went slowly: somebody else wants it, perhaps another process. */
static void notice_competition(uint64_t wall_ns, uint64_t cpu_ns)
{
    if (wall_ns > TICK_NS / 2 && cpu_ns < wall_ns / 4 * 3) {
        atomic_store_explicit(&pa_the_gc.not_idle_before_ns, pa_clock_now_ns() + BACK_OFF_NS, memory_order_relaxed);
        atomic_store_explicit(&pa_the_gc.idle_markers, 0, memory_order_relaxed);
    }
}

static bool may_mark_beyond_share(unsigned marker)
{
    pa_collector *gc = &pa_the_gc;
    return marker < atomic_load_explicit(&gc->idle_markers, memory_order_relaxed) ||
           atomic_load_explicit(&gc->flat_out, memory_order_relaxed) ||
           atomic_load_explicit(&gc->waiting, memory_order_relaxed);
}

/* Marks one slice or rests; returns when either is over or the word moved. */
static void mark_or_rest(share *s, pa_gcwork *work)
{
    pa_collector *gc = &pa_the_gc;
    uint32_t word = atomic_load_explicit(&gc->work_word, memory_order_acquire);
    int64_t ahead = ahead_ns(s);
    bool idle = ahead > 0;
    if (idle && !may_mark_beyond_share(s->marker)) {
        pa_thread_wait(&gc->work_word, word, ahead < TICK_NS ? ahead : TICK_NS);
        return;
    }
    uint64_t before_ns = pa_clock_thread_cpu_ns(), start_ns = pa_clock_now_ns();
    pa_world_gc_begin();
    bool worked = mark_slice(work, true);
    pa_world_gc_end();
    uint64_t cpu_ns = pa_clock_thread_cpu_ns() - before_ns;
    if (!atomic_load_explicit(&gc->flat_out, memory_order_relaxed)) /* a stop counts as a whole */
        account(idle, cpu_ns);
    if (idle)
        notice_competition(pa_clock_now_ns() - start_ns, cpu_ns);
    else
        s->used_ns += cpu_ns;
    s->dry = worked ? 0 : s->dry + 1;
    if (s->dry == 0)
        return;
    atomic_fetch_add(&pa_the_procs.workpool.hungry, 1);
    for (int i = 0; i < SPINS && pa_workpool_full_count(&pa_the_procs.workpool) == 0; i++)
        pa_cpu_relax();
    if (s->dry > 2 && pa_workpool_full_count(&pa_the_procs.workpool) == 0)
        pa_thread_wait(&gc->work_word, word, NAP_NS);
    atomic_fetch_sub(&pa_the_procs.workpool.hungry, 1);
}

/* ---- Background threads ---- */

static void *worker(void *argument)
{
    pa_collector *gc = &pa_the_gc;
    unsigned marker = (unsigned)(uintptr_t)argument;
    (void)pa_thread_set_slice(PA_COLLECTOR_SLICE_NS);
    pa_gcwork work = {.pool = &pa_the_procs.workpool};
    for (;;) {
        uint32_t word = atomic_load_explicit(&gc->work_word, memory_order_acquire);
        if (!atomic_load(&gc->marking_open) || marker >= atomic_load(&gc->markers)) {
            pa_thread_wait(&gc->work_word, word, -1);
            continue;
        }
        share s = share_of(marker);
        while (atomic_load(&gc->marking_open))
            mark_or_rest(&s, &work);
    }
    return NULL;
}

void pa_workers_ensure(unsigned wanted)
{
    pa_collector *gc = &pa_the_gc;
    while (gc->worker_count < wanted && gc->worker_count < PA_MAX_WORKERS &&
           pa_thread_start(worker, (void *)(uintptr_t)(gc->worker_count + 1), "pyalloc-mark"))
        gc->worker_count++;
    atomic_store(&gc->markers, 1 + (gc->worker_count < wanted ? gc->worker_count : wanted));
}

static void wake_workers(void)
{
    atomic_fetch_add_explicit(&pa_the_gc.work_word, 1, memory_order_release);
    pa_thread_wake_all(&pa_the_gc.work_word);
}

void pa_workers_close(void)
{
    atomic_store(&pa_the_gc.marking_open, false);
    atomic_store(&pa_the_gc.idle_markers, 0);
    atomic_store(&pa_the_gc.flat_out, false);
    while (atomic_load(&pa_the_gc.active_markers)) /* slices that are ending: what they had is in the pool */
        pa_thread_yield();
}

/* ---- Measuring idle processors ---- */

typedef struct meter {
    uint64_t wall_ns, process_ns, gc_ns;
    double busy;                /* processors that the program used lately; < 0: not known yet */
} meter;

static meter read_meter(void)
{
    pa_collector *gc = &pa_the_gc;
    return (meter){.busy = -1,
                   .wall_ns = pa_clock_now_ns(),
                   .process_ns = pa_clock_process_cpu_ns(),
                   .gc_ns = atomic_load_explicit(&gc->background_cpu_ns, memory_order_relaxed) +
                            atomic_load_explicit(&gc->idle_cpu_ns, memory_order_relaxed)};
}

/* Once a millisecond: are there processors that neither the program nor our own share uses? */
static void tick(meter *last)
{
    pa_collector *gc = &pa_the_gc;
    meter now = read_meter();
    if (now.wall_ns - last->wall_ns < TICK_NS)
        return;
    double wall = (double)(now.wall_ns - last->wall_ns), used = (double)(now.process_ns - last->process_ns),
           ours = (double)(now.gc_ns - last->gc_ns);
    double busy = used > ours ? (used - ours) / wall : 0;
    /* Slices that are under way are in `used` already and not in `ours`: a mean of several looks tells more. */
    now.busy = last->busy < 0 ? busy : last->busy + (busy - last->busy) / 4;
    unsigned before = atomic_load_explicit(&gc->idle_markers, memory_order_relaxed), allowed = 0;
    double left = gc->pacer.processors - now.busy;
    if (left - gc->pacer.processors * PA_PACER_BACKGROUND > idle_margin &&
        now.wall_ns >= atomic_load_explicit(&gc->not_idle_before_ns, memory_order_relaxed))
        allowed = (unsigned)(left + idle_slack);
    atomic_store_explicit(&gc->idle_markers, allowed, memory_order_relaxed);
    if (allowed > before)
        wake_workers();
    *last = now;
    pa_assist_revise();
}

void pa_workers_mark(void)
{
    pa_collector *gc = &pa_the_gc;
    pa_gcwork work = {.pool = &pa_the_procs.workpool};
    share s = share_of(0);
    meter last = read_meter();
    if (!atomic_load(&gc->marking_open)) {
        atomic_store(&gc->marking_open, true);
        wake_workers();
    }
    while (!is_drained()) {
        mark_or_rest(&s, &work);
        tick(&last);
    }
}

void pa_workers_mark_stw(unsigned markers)
{
    pa_collector *gc = &pa_the_gc;
    pa_gcwork work = {.pool = &pa_the_procs.workpool};
    atomic_store(&gc->flat_out, true);
    if (markers > 1 && !atomic_load(&gc->marking_open)) {
        atomic_store(&gc->marking_open, true);
        wake_workers();
    }
    for (bool more = true; more;) {
        while (!is_drained())
            mark_slice(&work, false);
        pa_marker m = {.work = &work, .plane = pa_mark_plane(atomic_load(&pa_the_heap.sweepgen))};
        more = pa_overflow_rescan_stw(&m);
        publish(&m, false);
        pa_gcwork_flush(&work);
    }
}
