/* gc_fork.c - the collector on both sides of fork(2).
 *
 * Owns the lock that lets one fork go at a time; its handlers are installed with the first managed
 * object, after those of world/fork.c, so that its prepare runs before theirs.  Before the fork the
 * collector's threads come to rest (between two slices, so a long collection need not be waited out),
 * the world is stopped, and the settings' lock is taken.
 *
 * The child has none of those threads.  A sweep in progress simply goes on there; a marking in progress is given
 * up: barrier off, grey objects forgotten, mark bits cleared, as if the cycle had never begun.  Frames of
 * vanished threads are dropped with their Ps, handles stay.  Threads are started again when they are needed.
 */
#include <pthread.h>

#include "base/yield.h"
#include "gc/gc.h"
#include "heap/managed.h"

static struct {
    pa_lock lock;           /* rank GC_FORK: one fork at a time, from prepare to parent or child */
    bool was_inside;        /* the forking thread: it is outside during the fork */
    atomic_bool installed;  /* as in world/fork.c */
} forking = {.lock = PA_LOCK_INIT(GC_FORK)};

static void prepare(void)
{
    atomic_store_explicit(&forking.installed, true, memory_order_relaxed);
    pa_proc *self = pa_world_self();
    bool was_inside = pa_world_is_inside_checked(self);
    if (was_inside)
        pa_world_leave(self);
    pa_lock_acquire(&forking.lock);
    forking.was_inside = was_inside;
    pa_world_gc_hold();
    pa_world_stop();
    pa_lock_acquire(&pa_the_gc.lock);
}

static void parent(void)
{
    pa_lock_release(&pa_the_gc.lock);
    pa_world_start();
    pa_world_gc_release();
    bool was_inside = forking.was_inside;
    pa_lock_release(&forking.lock);
    if (was_inside)
        pa_world_enter(pa_world_self());
}

static void clear_marks(void *unused, pa_span *s)
{
    (void)unused;
    for (size_t i = 0; i < pa_div_ceil(s->nelems, 64); i++)
        s->mark_bits[i] = 0;
}

static void forget_grey(pa_proc *p, void *unused)
{
    (void)unused;
    p->cache.gc->marking = PA_MARKING_OFF;
    p->cache.gc->assist_debt_bytes = 0;
    p->cache.gc->frames_unscanned = false;
    p->cache.gc->barrier_count = 0;
    p->cache.gc->black_bytes = 0;
    pa_gcwork_flush(&p->cache.gc->work);
}

static void give_up_marking(void)
{
    pa_workpool *pool = &pa_the_procs.workpool;
    pa_the_procs.marking = PA_MARKING_OFF;
    pa_world_each_stw(forget_grey, NULL);
    while (pool->full) {
        pa_workbuf *b = pool->full;
        pool->full = b->next;
        b->next = pool->empty;
        pool->empty = b;
    }
    atomic_store(&pool->full_count, 0);
    atomic_store(&pool->overflowed, false);
    atomic_store(&pool->overflow_bytes, 0);
    for (pa_arena *a = pa_the_heap.arenas; a; a = a->next)
        pa_managed_walk(a->base, a->base + PA_ARENA_BYTES, clear_marks, NULL);
    atomic_store(&pa_the_gc.phase, PA_PHASE_OFF);
}

static void child(void)
{
    pa_collector *gc = &pa_the_gc;
    pa_lock_reset_child(&gc->lock);
    pa_lock_reset_child(&pa_the_world.lock);
    atomic_store(&gc->cycle_lock.state, 0); /* the driver's, if anybody's */
    atomic_store(&pa_the_procs.workpool.lock.state, 0);
    pa_world_reset_child(pa_world_self());
    pa_sweep_reset_child();
    gc->driver_started = false;
    gc->worker_count = 0;
    atomic_store(&gc->active_markers, 0);
    atomic_store(&pa_the_procs.workpool.hungry, 0);
    atomic_store(&gc->marking_open, false);
    atomic_store(&gc->idle_markers, 0);
    atomic_store(&gc->flat_out, false);
    atomic_store(&gc->waiting, 0);
    atomic_store(&gc->wanted, false);
    gc->forced_done = gc->forced_requested;
    if (atomic_load(&gc->phase) != PA_PHASE_OFF)
        give_up_marking();
    pa_lock_reset_child(&forking.lock);
    if (forking.was_inside)
        pa_world_enter(pa_world_self());
}

void pa_gc_install_fork(void)
{
    if (atomic_load_explicit(&forking.installed, memory_order_relaxed))
        return;
    pthread_atfork(prepare, parent, child);
    PA_YIELD(FORK_GC_HANDLED);
}
