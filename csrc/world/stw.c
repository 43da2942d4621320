/* stw.c - stopping the world without signals (DESIGN section 6; Go: runtime/proc.go, stopTheWorld).
 *
 * Owns pa_the_world.  A stopper holds its lock (rank WORLD) from stop to start; the flags are set under the P
 * list's lock, so that a P that comes later starts with the flag that the others have.
 *
 * A waiting stopper spins for a moment and then sleeps on `left`, which a leaving P bumps when it sees its flag, so
 * that a thread that is inside and was preempted gets the processor.  The leaving thread looks at the flag without a
 * fence, so it may miss it: the stopper's sleeps are short.
 *
 * All who wait to enter sleep on one word, `started`, and are woken by one call when all flags are clear already.
 * Waking them one by one let the first of them take the stopper's processor for a scheduler's slice while the others
 * were still stopped (docs/decisions/016).
 */
#include "world/stw.h"

#include "base/assert.h"
#include "base/yield.h"
#include "sys/clock.h"
#include "sys/thread.h"

enum { SPINS = 200, NAP_NS = 50 * 1000 };

pa_world pa_the_world = {.lock = PA_LOCK_INIT(WORLD)};

/* ---- One P ---- */

pa_proc *pa_world_attach(void)
{
    pa_mcache *c = pa_proc_attach();
    if (!pa_mcache_is_real(c))
        return NULL;
    pa_proc *p = (pa_proc *)c;
    if (PA_LIKELY(pa_gcproc_is_real(c->gc)))
        return p;
    pa_lock_acquire(&pa_the_procs.lock);
    if (!pa_the_world.initialised) {
        pa_the_world.asymmetric = pa_thread_membarrier_register();
        pa_the_world.initialised = true;
    }
    bool ok = pa_gcproc_make_locked(p) != NULL;
    pa_lock_release(&pa_the_procs.lock);
    return ok ? p : NULL;
}

void pa_world_park(void)
{
    atomic_fetch_add_explicit(&pa_the_world.left, 1, memory_order_release);
    pa_thread_wake_all(&pa_the_world.left);
}

/* p's flag is clear afterwards; false when timeout_ns (< 0: none) passed first. */
static bool wait_for_start(pa_proc *p, int64_t timeout_ns)
{
    pa_world *w = &pa_the_world;
    uint64_t end_ns = timeout_ns < 0 ? 0 : pa_clock_now_ns() + (uint64_t)timeout_ns;
    bool clear = false, late = false;
    atomic_fetch_add(&w->waiters, 1);
    while (!clear && !late) {
        uint32_t started = atomic_load(&w->started);
        clear = atomic_load(&p->cache.gc->stop) == 0;
        int64_t left_ns = timeout_ns < 0 ? -1 : (int64_t)(end_ns - pa_clock_now_ns());
        late = timeout_ns >= 0 && left_ns <= 0;
        if (clear || late)
            break;
        PA_YIELD(ENTER_WAITS);
        pa_thread_wait(&w->started, started, left_ns);
    }
    atomic_fetch_sub(&w->waiters, 1);
    return clear;
}

/* Flags were cleared. */
static void wake_waiters(void)
{
    pa_world *w = &pa_the_world;
    atomic_fetch_add(&w->started, 1);
    if (atomic_load(&w->waiters))
        pa_thread_wake_all(&w->started);
}

void pa_world_enter_slow(pa_proc *p)
{
    do {
        pa_world_leave(p);
        (void)wait_for_start(p, -1);
    } while (!pa_world_try_inside(p));
}

bool pa_world_enter_within(pa_proc *p, uint64_t timeout_ns)
{
    while (!pa_world_try_inside(p)) {
        pa_world_leave(p);
        if (!wait_for_start(p, (int64_t)timeout_ns))
            return false;
    }
    return true;
}

/* ---- All of them ---- */

/* Another P's managed half: it may just be made. */
static pa_gcproc *gcproc_of(pa_proc *p)
{
    return __atomic_load_n(&p->cache.gc, __ATOMIC_ACQUIRE);
}

static void set_flag(pa_proc *p, bool stop)
{
    atomic_store_explicit(&gcproc_of(p)->stop, stop, memory_order_seq_cst);
}

/* All flags are set: from here on a P that is seen outside stays there. */
static void fence(void)
{
    if (!PA_TSAN && pa_the_world.asymmetric)
        pa_thread_membarrier();
    else
        atomic_thread_fence(memory_order_seq_cst);
}

static bool is_outside(pa_proc *p)
{
    return atomic_load_explicit(&gcproc_of(p)->inside, PA_TSAN ? memory_order_seq_cst : memory_order_acquire) == 0;
}

static void wait_a_little(int *turns)
{
    if (++*turns < SPINS) {
        pa_cpu_relax();
    } else {
        uint32_t left = atomic_load_explicit(&pa_the_world.left, memory_order_acquire);
        pa_thread_wait(&pa_the_world.left, left, NAP_NS);
    }
}

static pa_proc *first_proc(void)
{
    return __atomic_load_n(&pa_the_procs.all, __ATOMIC_ACQUIRE);
}

static void set_all_flags(bool stop)
{
    pa_lock_acquire(&pa_the_procs.lock);
    pa_the_world.stopped = stop;
    for (pa_proc *p = first_proc(); p; p = p->next_all)
        if (pa_gcproc_is_real(gcproc_of(p)))
            set_flag(p, stop);
    pa_lock_release(&pa_the_procs.lock);
}

void pa_world_stop(void)
{
    pa_lock_acquire(&pa_the_world.lock);
    set_all_flags(true);
    fence();
    int turns = 0;
    for (pa_proc *p = first_proc(); p; p = p->next_all)
        while (pa_gcproc_is_real(gcproc_of(p)) && !is_outside(p))
            wait_a_little(&turns);
}

uint64_t pa_world_start(void)
{
    set_all_flags(false);
    uint64_t now_ns = pa_clock_now_ns(); /* who is woken may take this processor for a scheduler's slice */
    wake_waiters();
    pa_lock_release(&pa_the_world.lock);
    return now_ns;
}

void pa_world_each_stw(void (*visit)(pa_proc *p, void *argument), void *argument)
{
    for (pa_proc *p = first_proc(); p; p = p->next_all)
        if (pa_gcproc_is_real(gcproc_of(p)))
            visit(p, argument);
}

/* A P that was seen outside keeps its flag until it was visited, then goes on; so a P that attaches meanwhile
 * must not be caught half-way: it starts without the flag and is not visited. */
void pa_world_handshake(void (*visit)(pa_proc *p, void *argument), void *argument)
{
    pa_lock_acquire(&pa_the_world.lock);
    pa_lock_acquire(&pa_the_procs.lock);
    for (pa_proc *p = first_proc(); p; p = p->next_all)
        if (pa_gcproc_is_real(gcproc_of(p)))
            set_flag(p, true);
    pa_lock_release(&pa_the_procs.lock);
    fence();
    int turns = 0;
    for (bool waiting = true; waiting;) {
        bool visited = false;
        waiting = false;
        for (pa_proc *p = first_proc(); p; p = p->next_all) {
            if (!pa_gcproc_is_real(gcproc_of(p)) ||
                !atomic_load_explicit(&gcproc_of(p)->stop, memory_order_relaxed))
                continue;
            if (!is_outside(p)) {
                waiting = true;
                continue;
            }
            visit(p, argument);
            set_flag(p, false);
            visited = true;
        }
        if (visited)
            wake_waiters();
        if (waiting)
            wait_a_little(&turns);
    }
    pa_lock_release(&pa_the_world.lock);
}

/* ---- The collector's own threads ---- */

void pa_world_gc_begin(void)
{
    for (;;) {
        atomic_fetch_add(&pa_the_world.gc_active, 1);
        if (PA_LIKELY(atomic_load(&pa_the_world.gc_hold) == 0))
            return;
        pa_world_gc_end();
        while (atomic_load(&pa_the_world.gc_hold))
            pa_thread_wait(&pa_the_world.gc_hold, 1, -1);
    }
}

void pa_world_gc_end(void)
{
    atomic_fetch_sub(&pa_the_world.gc_active, 1);
    if (PA_UNLIKELY(atomic_load(&pa_the_world.gc_hold)))
        pa_thread_wake_all(&pa_the_world.gc_active);
}

void pa_world_gc_hold(void)
{
    atomic_store(&pa_the_world.gc_hold, 1);
    for (uint32_t n; (n = atomic_load(&pa_the_world.gc_active)) != 0;)
        pa_thread_wait(&pa_the_world.gc_active, n, NAP_NS);
}

void pa_world_gc_release(void)
{
    atomic_store(&pa_the_world.gc_hold, 0);
    pa_thread_wake_all(&pa_the_world.gc_hold);
}

void pa_world_reset_child(pa_proc *self)
{
    atomic_store(&pa_the_world.gc_active, 0);
    atomic_store(&pa_the_world.gc_hold, 0);
    atomic_store(&pa_the_world.waiters, 0);
    pa_the_world.stopped = false;
    if (pa_the_world.initialised)
        pa_the_world.asymmetric = pa_thread_membarrier_register();
    for (pa_proc *p = first_proc(); p; p = p->next_all) {
        if (!pa_gcproc_is_real(gcproc_of(p)))
            continue;
        atomic_store(&gcproc_of(p)->stop, 0);
        gcproc_of(p)->no_fence = pa_the_world.asymmetric && !PA_TSAN;
        if (p != self)
            atomic_store(&gcproc_of(p)->inside, 0);
    }
}
