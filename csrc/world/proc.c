/* proc.c - attaching threads, letting them go, and serving those that have no P.
 *
 * Owns the list of Ps (lock rank PROC_LIST, above everything else here).  P storage is type-stable and
 * reused, but only after release_all: no span names a P that no thread has.
 *
 * A thread is attached by its first miss.  The process's first attach installs the fork handlers before it takes any
 * lock: another thread may fork at any time, and a child of a fork without them would find the lock held for ever.
 * pthread_setspecific may itself allocate, so the thread-local pointer is set before the key.  The key's destructor
 * gives all back and points the thread at the `exited` mcache; the C library goes on freeing after that (its own
 * thread-local data), and such calls are served by the orphan P under its lock, keeping nothing.
 */
#include "world/proc.h"

#include <pthread.h>

#include "base/assert.h"
#include "base/yield.h"

PA_TLS pa_mcache *pa_current_mcache = (pa_mcache *)(uintptr_t)&pa_mcache_unattached;
/* The same, for programs (include/pyalloc_inline.h): the library itself needs no symbol for it at load time. */
extern PA_EXPORT PA_TLS pa_mcache *pa_inline_thread __attribute__((alias("pa_current_mcache")));

#define EMPTY PA_EMPTY_SPAN
#define NO_SPANS                                                                                               \
    {                                                                                                          \
        .direct = {[0 ... PA_DIRECT_COUNT - 1] = EMPTY},                                                       \
        .current = {[0 ... PA_SIZE_CLASSES - 1] = EMPTY},                                                      \
        .gc = (pa_gcproc *)(uintptr_t)&pa_gcproc_outside,                                                      \
    }
const pa_mcache pa_mcache_unattached = NO_SPANS;
/* Of zeros until the first thread exits: each pointer in a constant costs a relocation, and its page, at start. */
pa_mcache pa_mcache_exited;
static pa_proc orphan;

pa_heap pa_the_heap;
pa_procs pa_the_procs = {
    .lock = PA_LOCK_INIT(PROC_LIST),
    .orphan_lock = PA_LOCK_INIT(PROC_LIST),
    .workpool = {.lock = PA_LOCK_INIT(WORKBUF), .offheap = &pa_the_heap.offheap},
};

static pthread_key_t exit_key;
static bool exit_key_made;

/* P list's lock held. The same contents every time, and complete before a thread points at it. */
static void fill_exited_locked(void)
{
    if (pa_mcache_exited.gc)
        return;
    pa_mcache_exited = pa_mcache_unattached;
}

static void thread_exit(void *argument)
{
    pa_proc *p = argument;
    pa_gcproc_detach(p);
    pa_mcache_move_out(&p->cache);
    pa_lock_acquire(&pa_the_procs.lock);
    fill_exited_locked();
    pa_current_mcache = &pa_mcache_exited;
    atomic_store_explicit(&p->attached, false, memory_order_relaxed);
    p->next_free = pa_the_procs.free;
    pa_the_procs.free = p;
    pa_owner_add(&pa_the_procs.attached_count, -1);
    pa_lock_release(&pa_the_procs.lock);
}

static pa_proc *make_locked(pa_procs *procs, pa_heap *h, pa_proc *p)
{
    if (!p && (p = pa_offheap_alloc(&h->offheap, sizeof *p, PA_CACHE_LINE_BYTES)) != NULL)
        pa_owner_add(&procs->count, 1);
    if (!p)
        return NULL;
    pa_mcache_init(&p->cache, h);
    p->cache.gc = (pa_gcproc *)(uintptr_t)&pa_gcproc_outside;
    pa_mcache_publish_locked(&p->cache);
    p->next_all = procs->all;
    __atomic_store_n(&procs->all, p, __ATOMIC_RELEASE);
    return p;
}

static pa_proc *acquire(pa_procs *procs, pa_heap *h)
{
    pa_proc *p = NULL;
    pa_lock_acquire(&procs->lock);
    if (pa_heap_init_locked(h)) {
        if (!exit_key_made)
            exit_key_made = pthread_key_create(&exit_key, thread_exit) == 0;
        if ((p = procs->free) != NULL)
            procs->free = p->next_free;
        else if (exit_key_made)
            p = make_locked(procs, h, NULL);
        if (p) {
            atomic_store_explicit(&p->attached, true, memory_order_relaxed);
            pa_owner_add(&procs->attached_count, 1);
        }
    }
    PA_YIELD(ATTACH_LOCKED);
    pa_lock_release(&procs->lock);
    return p;
}

static pthread_once_t fork_handled = PTHREAD_ONCE_INIT;
/* The thread that installs the fork handlers, named by its thread-local variable; NULL: none. A thread compares it with
 * itself only, so relaxed. */
static _Atomic(pa_mcache **) fork_installer;

static void install_fork_handlers(void)
{
    atomic_store_explicit(&fork_installer, &pa_current_mcache, memory_order_relaxed);
    pa_fork_install();
    atomic_store_explicit(&fork_installer, NULL, memory_order_relaxed);
}

/* Before any lock is taken. Nobody goes on before it is done, but an allocation by pthread_atfork itself (glibc: when
 * 48 handlers are there already), which is served without. */
static void handle_forks(void)
{
    if (atomic_load_explicit(&fork_installer, memory_order_relaxed) != &pa_current_mcache)
        pthread_once(&fork_handled, install_fork_handlers);
}

pa_mcache *pa_proc_attach(void)
{
    if (pa_current_mcache != &pa_mcache_unattached)
        return pa_current_mcache;
    handle_forks();
    if (pa_current_mcache != &pa_mcache_unattached) /* by pthread_atfork's own allocation */
        return pa_current_mcache;
    pa_proc *p = acquire(&pa_the_procs, &pa_the_heap);
    if (!p)
        return pa_current_mcache;
    p->cache.trim_seen = atomic_load_explicit(&pa_the_heap.trim_generation, memory_order_relaxed);
    pa_current_mcache = &p->cache;
    if (pthread_setspecific(exit_key, p) != 0) /* it has no memory for the key: do not leak the P */
        thread_exit(p);
    return pa_current_mcache;
}

/* In its own storage, so it cannot fail once there is a heap; most programs never need it and never touch it. */
static bool make_orphan(pa_procs *procs)
{
    pa_lock_acquire(&procs->lock);
    if (!procs->orphan && pa_heap_init_locked(&pa_the_heap))
        __atomic_store_n(&procs->orphan, make_locked(procs, &pa_the_heap, &orphan), __ATOMIC_RELEASE);
    pa_lock_release(&procs->lock);
    return procs->orphan != NULL;
}

void *pa_proc_with_orphan(void *(*body)(pa_mcache *c, void *argument), void *argument)
{
    pa_procs *procs = &pa_the_procs;
    if (!__atomic_load_n(&procs->orphan, __ATOMIC_ACQUIRE) && !make_orphan(procs))
        return NULL; /* nothing was ever allocated, and nothing can be */
    pa_lock_acquire(&procs->orphan_lock);
    void *result = body(&procs->orphan->cache, argument);
    pa_mcache_release_all(&procs->orphan->cache);
    pa_lock_release(&procs->orphan_lock);
    return result;
}
