/* idle.c - takes back what a sleeping thread keeps: page stock, outbox, bins, and spans that others emptied.
 *
 * Owns nothing but the figures in pa_heap.idle.  Works on another thread's mcache under its slow-path lock, which
 * the owner holds in every slow path.  The owner's fast paths take no lock, so each part needs a reason of its own:
 *
 * - The page stock is used in slow paths only.
 * - Bins and outbox are used between pa_mcache_enter and pa_mcache_leave.  We set `closed`, make every thread of the
 *   process pass a barrier, and find `busy` at 0: the owner is out, and stays out until its next slow path, which
 *   waits for us.  At 1 it is at work, or was interrupted there: the next look tries again.
 * - A partial span all of whose live blocks wait on `remote`: nobody holds a block of it, so nobody can free into
 *   it, and partial spans are allocated from in slow paths only.  `live` is read after the barrier: if the owner's
 *   decrement for its last free is seen, so is all that free did before.  A live of 0 is a span that the
 *   owner just emptied and is about to take: not ours.
 * - Not taken: current spans, and partial spans with a block in somebody's hands; the owner may be half-way through
 *   a malloc or free there, and only an instruction of its own could tell.
 *
 * Blocks of the outbox are pushed to their spans as in heap/remote.h, to the sleeper's own as well; spans that this
 * claims are listed, since nobody but the sleeper may make it their owner.
 * A thread sleeps when neither its slow-path lock was taken nor a span asked for between two looks.
 * Idea of the asymmetric barrier: as in world/stw.h.
 */
#include "heap/idle.h"

#include "base/options.h"
#include "base/yield.h"
#include "heap/mcache.h"
#include "heap/mcentral.h"
#include "heap/remote.h"
#include "sys/thread.h"

enum {
    LOOK_FLUSHES = 64,   /* caches flushed in one look: each costs a barrier, some microseconds */
    SLOW_PATH_YIELDS = 100,
    LOOK_SPANS = 4096,   /* partial spans looked at in one look: each costs a cache miss or two */
};

/* Every other thread passes a full barrier. False: this kernel or its sandbox has none. TSan does not know
 * membarrier; there the handshake's words are sequentially consistent (pa_mcache_enter). */
static bool pass_barrier(pa_heap *h)
{
    if (PA_TSAN)
        return true;
    uint32_t state = atomic_load_explicit(&h->idle.barrier, memory_order_relaxed);
    if (state == PA_BARRIER_UNKNOWN)
        state = pa_thread_membarrier_register() ? PA_BARRIER_WORKS : PA_BARRIER_NONE;
    if (state == PA_BARRIER_WORKS && !pa_thread_try_membarrier())
        state = PA_BARRIER_NONE;
    atomic_store_explicit(&h->idle.barrier, state, memory_order_relaxed);
    return state == PA_BARRIER_WORKS;
}

static bool is_flushed(pa_mcache *c)
{
    return pa_racy_load(&c->closed) == PA_CACHE_FLUSHED;
}

/* Claimed by a push of ours, so not full. */
static void list_or_free(pa_heap *h, pa_span *s)
{
    PA_YIELD(FREE_AFTER_CLAIM);
    pa_span_collect_remote(s);
    if (s->live == 0)
        pa_mheap_free_span(h, s);
    else
        pa_mcentral_put(h, s);
}

/* Caller keeps the owner out. */
static void flush_outbox(pa_heap *h, pa_mcache *c)
{
    for (unsigned i = 0; i < PA_OUTBOX_SLOTS && c->outbox_count; i++) {
        pa_outbox_slot full = c->outbox[i];
        if (!full.span)
            continue;
        pa_mcache_clear_slot_locked(c, &c->outbox[i]);
        if (pa_span_push_remote(full.span, full.first, full.last))
            list_or_free(h, full.span);
    }
}

/* True also for one that the owner is freeing into right now, unless a barrier came before. */
static bool seems_wholly_free(pa_span *s)
{
    if (!pa_span_has_remote(s))
        return false;
    uint32_t live = __atomic_load_n(&s->live, __ATOMIC_ACQUIRE);
    return live != 0 && pa_span_count_remote(s) == live;
}

/* Frees spans that others emptied, looking at *spans of them at most, those looked at longest ago first. */
static void collect_partial(pa_heap *h, pa_mcache *c, bool passed, uint32_t *spans)
{
    for (unsigned k = 1; k < PA_SIZE_CLASSES; k++) {
        pa_span *last = c->partial[k].last, *s = NULL;
        while (last && s != last && *spans) {
            s = pa_spanlist_pop_front(&c->partial[k]);
            --*spans;
            bool empty = seems_wholly_free(s);
            if (empty && !passed) {
                if (!pass_barrier(h)) {
                    pa_spanlist_push_back(&c->partial[k], s);
                    return;
                }
                passed = true;
                empty = seems_wholly_free(s);
            }
            if (empty) {
                pa_span_drop_remote(s);
                pa_mheap_free_span(h, s);
            } else {
                pa_spanlist_push_back(&c->partial[k], s);
            }
        }
    }
}

/* c->slow is held. */
static void flush_locked(pa_heap *h, pa_mcache *c, uint32_t *spans)
{
    bool passed = false;
    if (!is_flushed(c)) {
        __atomic_store_n(&c->closed, PA_CACHE_CLOSED, PA_TSAN ? __ATOMIC_SEQ_CST : __ATOMIC_RELAXED);
        passed = pass_barrier(h);
        PA_YIELD(IDLE_CLOSED);
        if (passed &&
            atomic_load_explicit(&c->busy, PA_TSAN ? memory_order_seq_cst : memory_order_acquire) == 0) {
            flush_outbox(h, c);
            pa_mcache_drain_bins_locked(c, 0);
            __atomic_store_n(&c->closed, PA_CACHE_FLUSHED, __ATOMIC_RELAXED);
        }
        pa_mheap_flush_stock(h, &c->stock);
        atomic_fetch_add_explicit(&h->idle.flushes, 1, memory_order_relaxed);
    }
    collect_partial(h, c, passed, spans);
}

/* Did its thread come through a slow path or ask for a span since this was last asked? */
static bool is_active(pa_mcache *c)
{
    uint64_t acquisitions = pa_racy_load(&c->slow.acquisitions);
    uint32_t wants = pa_racy_load(&c->bin_wants);
    bool same = acquisitions == atomic_load_explicit(&c->idle_acquisitions, memory_order_relaxed) &&
                wants == atomic_load_explicit(&c->idle_wants, memory_order_relaxed);
    atomic_store_explicit(&c->idle_acquisitions, acquisitions, memory_order_relaxed);
    atomic_store_explicit(&c->idle_wants, wants, memory_order_relaxed);
    return !same;
}

static pa_mcache *first_cache(pa_heap *h)
{
    return atomic_load_explicit(&h->mcaches, memory_order_acquire);
}

/* Ours, not the owner's: does not count as activity. */
static void release(pa_mcache *c)
{
    atomic_store_explicit(&c->idle_acquisitions, c->slow.acquisitions, memory_order_relaxed);
    pa_lock_release(&c->slow);
}

/* True when c was flushed, and nothing happened in it since. */
static bool look_at(pa_heap *h, pa_mcache *c, uint32_t *flushes, uint32_t *spans)
{
    if (is_active(c) || *flushes == 0 || *spans == 0)
        return is_flushed(c);
    if (!pa_lock_try_acquire(&c->slow))
        return false;
    if (!is_flushed(c))
        --*flushes;
    flush_locked(h, c, spans);
    bool flushed = is_flushed(c);
    release(c);
    return flushed || atomic_load_explicit(&h->idle.barrier, memory_order_relaxed) == PA_BARRIER_NONE;
}

static bool all_flushed(pa_heap *h, pa_mcache *self)
{
    bool has_barrier = atomic_load_explicit(&h->idle.barrier, memory_order_relaxed) != PA_BARRIER_NONE;
    for (pa_mcache *c = first_cache(h); c && has_barrier; c = c->next_cache)
        if (c != self && !is_flushed(c))
            return false;
    return true;
}

bool pa_idle_look(pa_heap *h, pa_mcache *self, uint64_t now_ns)
{
    pa_idle *idle = &h->idle;
    uint64_t interval_ns = (uint64_t)pa_the_options.decay_ms * 1000000;
    uint64_t due_ns = atomic_load_explicit(&idle->next_ns, memory_order_relaxed);
    if (interval_ns == 0)
        return true;
    if (now_ns < due_ns || !atomic_compare_exchange_strong_explicit(&idle->next_ns, &due_ns, now_ns + interval_ns,
                                                                    memory_order_relaxed, memory_order_relaxed))
        return all_flushed(h, self);
    uint32_t flushes = LOOK_FLUSHES, spans = LOOK_SPANS;
    bool quiet = true;
    pa_mcache *begin = atomic_load_explicit(&idle->cursor, memory_order_relaxed);
    pa_mcache *c = begin = begin ? begin : first_cache(h);
    while (c) {
        if (c != self && !look_at(h, c, &flushes, &spans))
            quiet = false;
        c = c->next_cache ? c->next_cache : first_cache(h);
        if (c == begin)
            break;
        if (spans == 0) { /* the next look goes on here */
            quiet = false;
            break;
        }
    }
    atomic_store_explicit(&idle->cursor, c, memory_order_relaxed);
    return quiet;
}

/* A thread in a slow path is awake: it is waited for a little, and sees the trim generation otherwise. */
static bool acquire(pa_mcache *c)
{
    for (int turns = 0; !pa_lock_try_acquire(&c->slow); turns++) {
        if (turns == SLOW_PATH_YIELDS)
            return false;
        pa_thread_yield();
    }
    return true;
}

void pa_idle_flush_all(pa_heap *h, const pa_mcache *self)
{
    uint32_t spans = UINT32_MAX;
    for (pa_mcache *c = first_cache(h); c; c = c->next_cache) {
        if (c == self || !acquire(c))
            continue;
        flush_locked(h, c, &spans);
        release(c);
    }
}

void pa_idle_reset_child(pa_heap *h)
{
    atomic_store_explicit(&h->idle.barrier, PA_BARRIER_UNKNOWN, memory_order_relaxed);
    atomic_store_explicit(&h->idle.cursor, NULL, memory_order_relaxed);
}
