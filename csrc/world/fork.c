/* fork.c - a consistent heap on both sides of fork(2).
 *
 * Before the fork the calling thread takes every lock: the P list's, each P's slow-path lock, each
 * mcentral's, mheap's and the off-heap one's, in rank order.  No other thread is then inside a slow path;
 * it may be anywhere in a fast path, which touches its own mcache and its own spans only.
 * The handlers are installed by the first allocation of the process, before it takes a lock: prepare handlers run in
 * reverse order, so that those of later libraries, which may allocate, run before ours takes the locks.
 *
 * The child has one thread.  It never follows a vanished thread's lists: it walks the page table of every
 * arena instead, takes each explicit span that is not its own, rebuilds the live count as
 * carved - free - remote - off the list (bounded and checked) and lists, abandons or frees the span.  Page stocks are
 * flushed from the vanished Ps; a stock is changed under the P's slow-path lock only.
 *
 * What cannot be known is a block that a vanished thread had popped and not yet returned to its caller:
 * it stays allocated, as do all blocks that only that thread knew.
 */
#include <pthread.h>

#include "base/assert.h"
#include "base/poison.h"
#include "base/yield.h"
#include "heap/hollow.h"
#include "heap/mcentral.h"
#include "heap/profile.h"
#include "heap/remote.h"
#include "sys/trace.h"
#include "world/proc.h"
#include "world/roots.h"

/* Ps are linked newest first and come from growing blocks, so addresses are in no order: sort by repeated
 * selection. Forks are rare and threads few; equal ranks must be taken in ascending address. */
static pa_proc *next_proc_above(const pa_proc *below)
{
    pa_proc *best = NULL;
    for (pa_proc *p = pa_the_procs.all; p; p = p->next_all)
        if ((uintptr_t)p > (uintptr_t)below && (!best || p < best))
            best = p;
    return best;
}

static void lock_heap(pa_heap *h)
{
    pa_lock_acquire(&h->specials.lock);
    pa_lock_acquire(&h->decay.lock);
    pa_lock_acquire(&h->leavings.lock);
    for (unsigned k = 0; k < PA_SPAN_KINDS; k++)
        for (unsigned c = 0; c < PA_SIZE_CLASSES; c++)
            pa_lock_acquire(&h->central[k][c].lock);
    pa_lock_acquire(&h->lock);
    pa_lock_acquire(&h->offheap.lock);
}

/* The handlers are there: who forks and its child know it although the thread that installs them, which the child has
 * not, may not have come back from doing so. Written by whoever finds it out, always true; relaxed. */
static atomic_bool installed;

static void prepare(void)
{
    atomic_store_explicit(&installed, true, memory_order_relaxed);
    pa_lock_acquire(&pa_the_procs.lock);
    pa_lock_acquire(&pa_the_procs.orphan_lock);
    for (pa_proc *p = next_proc_above(NULL); p; p = next_proc_above(p))
        pa_lock_acquire(&p->cache.slow);
    pa_lock_acquire(&pa_the_roots.lock);
    if (pa_the_heap.initialised)
        lock_heap(&pa_the_heap);
    pa_profile_fork_prepare();
    pa_trace_fork_prepare();
}

static void release_all(void (*release)(pa_lock *))
{
    pa_heap *h = &pa_the_heap;
    if (h->initialised) {
        release(&h->offheap.lock);
        release(&h->lock);
        for (unsigned k = PA_SPAN_KINDS; k-- > 0;)
            for (unsigned c = PA_SIZE_CLASSES; c-- > 0;)
                release(&h->central[k][c].lock);
        release(&h->leavings.lock);
        release(&h->decay.lock);
        release(&h->specials.lock);
    }
    release(&pa_the_roots.lock);
    for (pa_proc *p = pa_the_procs.all; p; p = p->next_all)
        release(&p->cache.slow);
    release(&pa_the_procs.orphan_lock);
    release(&pa_the_procs.lock);
}

static void unlock(pa_lock *l)
{
    pa_lock_release(l);
}

static void parent(void)
{
    pa_trace_fork_parent();
    pa_profile_fork_parent();
    release_all(unlock);
}

/* Blocks on a list through first words, at most max; more means that the list is broken. */
static uint32_t list_length(const pa_span *s, uintptr_t first, uint32_t max)
{
    uint32_t n = 0;
    for (uintptr_t b = first; b; b = (uintptr_t)pa_link_get((void *)b)) {
        if (b < s->base || b >= s->limit || n++ == max)
            pa_abort_pointer("heap corruption at", (void *)b, "found in the child of a fork");
    }
    return n;
}

/* An explicit small span whose owner vanished, or that was on an mcentral list (those were cleared). */
static void rehome(pa_heap *h, pa_span *s)
{
    size_t size = pa_class_object_bytes[s->size_class];
    uint32_t carved = (uint32_t)((s->tail - s->base) / size);
    atomic_store_explicit(&s->owner, NULL, memory_order_relaxed);
    uintptr_t remote = atomic_load_explicit(&s->remote, memory_order_relaxed) & ~PA_REMOTE_UNOWNED;
    atomic_store_explicit(&s->remote, remote, memory_order_relaxed);
    s->live = carved - list_length(s, (uintptr_t)s->free, carved) - pa_span_count_out(s);
    pa_span_collect_remote(s);
    s->next = s->prev = NULL;
    if (s->live == 0)
        pa_mheap_free_span(h, s);
    else if (s->free == NULL && s->tail >= s->limit && !pa_span_has_out(s))
        atomic_store_explicit(&s->remote, PA_REMOTE_UNOWNED, memory_order_relaxed);
    else
        pa_mcentral_put(h, s);
}

static bool is_vanished(const pa_mcache *owner)
{
    return owner != pa_current_mcache;
}

static void rehome_spans(pa_heap *h)
{
    for (pa_arena *a = h->arenas; a; a = a->next) {
        uintptr_t end = a->base + PA_ARENA_BYTES;
        for (uintptr_t p = a->base; p < end;) {
            pa_span *s = pa_span_of((void *)p);
            if (!s) {
                p += PA_PAGE_BYTES;
                continue;
            }
            uintptr_t next = s->base + pa_span_bytes(s);
            pa_mcache *owner = atomic_load_explicit(&s->owner, memory_order_relaxed);
            uint32_t state = pa_span_state_racy(s);
            if (s->base == p && is_vanished(owner)) {
                if (state == PA_SPAN_CACHED)
                    pa_mheap_free_span(h, s);
                else if (state == PA_SPAN_MANUAL && s->size_class != 0)
                    rehome(h, s);
            }
            p = next;
        }
    }
}

/* A vanished thread's blocks on their way to other spans. The thread may have stopped between any two of
 * the stores of a push: what does not look like a list of blocks of the span ends the walk, and the rest
 * stays allocated. */
static void deliver_outbox(pa_mcache *c)
{
    for (unsigned i = 0; i < PA_OUTBOX_SLOTS; i++) {
        pa_span *s = c->outbox[i].span;
        void *next;
        uint32_t left = c->outbox[i].limit;
        for (void *b = s ? c->outbox[i].first : NULL; b && left--; b = next) {
            if (pa_span_of(b) != s || !pa_span_is_block(s, b))
                break;
            next = pa_link_get(b);
            (void)pa_span_push_remote(s, b, b); /* claimed or not: rehome_spans comes next */
        }
    }
}

static void forget_vanished_procs(pa_heap *h)
{
    pa_procs *procs = &pa_the_procs;
    procs->free = NULL;
    procs->attached_count = 0;
    for (pa_proc *p = procs->all; p; p = p->next_all) {
        if (&p->cache == pa_current_mcache) {
            procs->attached_count = 1;
            continue;
        }
        pa_mheap_flush_stock(h, &p->cache.stock);
        pa_gcproc *gc = p->cache.gc;
        pa_gcproc_detach_vanished(p);
        pa_mcache_init(&p->cache, h);
        p->cache.gc = gc;
        atomic_store_explicit(&p->attached, false, memory_order_relaxed);
        if (p != procs->orphan) {
            p->next_free = procs->free;
            procs->free = p;
        }
    }
}

/* Cached spans name no owner: those in this thread's bins do while the child rebuilds. */
static void mark_own_bins(pa_mcache *owner)
{
    if (!pa_mcache_is_real(pa_current_mcache))
        return;
    for (unsigned i = 0; i < PA_BIN_COUNT; i++)
        for (pa_span *s = pa_current_mcache->bin[i]; s; s = s->next)
            atomic_store_explicit(&s->owner, owner, memory_order_relaxed);
}

static void child(void)
{
    pa_heap *h = &pa_the_heap;
    pa_trace_fork_child();
    pa_profile_fork_child();
    release_all(pa_lock_reset_child);
    if (!h->initialised)
        return;
    pa_idle_reset_child(h);
    pa_leavings_reset_child(h);
    for (pa_proc *p = pa_the_procs.all; p; p = p->next_all)
        if (&p->cache != pa_current_mcache)
            deliver_outbox(&p->cache);
    for (unsigned c = 0; c < PA_SIZE_CLASSES; c++) {
        h->central[PA_KIND_EXPLICIT][c].nonempty = (pa_spanlist){0};
        h->central[PA_KIND_EXPLICIT][c].nonempty_count = 0;
    }
    atomic_store_explicit(&h->listed_explicit, 0, memory_order_relaxed);
    mark_own_bins(pa_current_mcache);
    rehome_spans(h);
    mark_own_bins(NULL);
    forget_vanished_procs(h);
}

void pa_fork_install(void)
{
    if (atomic_load_explicit(&installed, memory_order_relaxed))
        return;
    pthread_atfork(prepare, parent, child);
    PA_YIELD(FORK_HANDLED);
}
