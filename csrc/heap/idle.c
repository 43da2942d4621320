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
 *   it, and partial spans are allocated from in slow paths only.  While we have the lock, `live` can only fall, by the
 *   owner's frees, so a late value is too high and costs a look; each free lowers it with release and touches the span
 *   no more, so that who reads (acquire) the value sees all that the frees did.  No barrier is needed here.
 *   A live of 0 is a span that the owner just emptied and is about to take: not ours.
 * - Of a partial span with a block in somebody's hands, what is behind the head of its free list: the owner may put
 *   blocks in front of it meanwhile, no more, so pages of free blocks can go (heap/hollow.h, keep_head).
 * - Not taken: current spans; the owner may be half-way through a malloc or free there, and only an instruction of
 *   its own could tell.
 *
 * Blocks of the outbox are pushed to their spans as in heap/remote.h, to the sleeper's own as well; spans that this
 * claims are listed, since nobody but the sleeper may make it their owner.
 * A thread sleeps when it neither came through a slow path of its own (pa_mcache_enter_slow) nor asked for a span
 * between two looks.  All outboxes are delivered before any span is looked at, since a block may be the last of
 * anybody's span.
 *
 * Spans are looked at in laps: those that nobody owns (mcentral's), then each sleeper's partial ones, class by class,
 * as far as a look's budget goes; the next look goes on there.  A span that was seen moves to the end of its list
 * with the lap's number, so a list ends where that number stands.  A look is quiet when it ends a lap in which nothing
 * was delivered, freed, passed by because its thread was awake, not idle for long enough, or made by somebody behind
 * its back (`news`).
 * Idea of the asymmetric barrier: as in world/stw.h.
 */
#include "heap/idle.h"

#include "base/options.h"
#include "base/yield.h"
#include "heap/bins.h"
#include "heap/mcentral.h"
#include "heap/remote.h"
#include "heap/thin.h"
#include "sys/thread.h"

enum {
    LOOK_FLUSHES = 64,   /* caches flushed in one look: each costs a barrier, some microseconds */
    SLOW_PATH_YIELDS = 100,
    LOOK_MISSES = 1 << 17, /* cache misses that one look may cost: some milliseconds */
    SPAN_MISSES = 2,     /* a span, and one each of its blocks that waits */
    CACHE_MISSES = 16,   /* a cache without spans */
    LISTED_AT_ONCE = 16, /* listed spans looked at under their lock */
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

static pa_mcache *first_cache(pa_heap *h)
{
    return atomic_load_explicit(&h->mcaches, memory_order_acquire);
}

/* Nothing left to deliver until its owner opens it: flushed, or closed as well as it can be. Who sees an exiting
 * thread's mark sees its news. */
static bool is_done(pa_heap *h, pa_mcache *c)
{
    uint32_t closed = __atomic_load_n(&c->closed, __ATOMIC_ACQUIRE);
    return closed == PA_CACHE_FLUSHED ||
           (closed == PA_CACHE_CLOSED &&
            atomic_load_explicit(&h->idle.barrier, memory_order_relaxed) == PA_BARRIER_NONE);
}

static bool all_done(pa_heap *h)
{
    for (pa_mcache *c = first_cache(h); c; c = c->next_cache)
        if (!is_done(h, c))
            return false;
    return true;
}

/* ---- First: page stock, outbox, bins ---- */

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

/* Notes news if the outbox had any. c->slow is held. */
static void deliver_locked(pa_heap *h, pa_mcache *c)
{
    __atomic_store_n(&c->closed, PA_CACHE_CLOSED, PA_TSAN ? __ATOMIC_SEQ_CST : __ATOMIC_RELAXED);
    bool passed = pass_barrier(h);
    PA_YIELD(IDLE_CLOSED);
    if (passed && atomic_load_explicit(&c->busy, PA_TSAN ? memory_order_seq_cst : memory_order_acquire) == 0) {
        if (c->outbox_count)
            pa_idle_note(&h->idle);
        flush_outbox(h, c);
        pa_bins_drain_locked(c, 0);
        __atomic_store_n(&c->closed, PA_CACHE_FLUSHED, __ATOMIC_RELEASE);
    }
    pa_mheap_flush_stock(h, &c->stock);
    atomic_fetch_add_explicit(&h->idle.flushes, 1, memory_order_relaxed);
}

/* Did its thread come through a slow path or ask for a span since this was last asked? */
static bool is_active(pa_mcache *c)
{
    uint32_t entries = pa_racy_load(&c->entries), wants = pa_racy_load(&c->bin_wants);
    bool same = entries == atomic_load_explicit(&c->idle_entries, memory_order_relaxed) &&
                wants == atomic_load_explicit(&c->idle_wants, memory_order_relaxed);
    atomic_store_explicit(&c->idle_entries, entries, memory_order_relaxed);
    atomic_store_explicit(&c->idle_wants, wants, memory_order_relaxed);
    return !same;
}

static void deliver_of_sleepers(pa_heap *h, const pa_mcache *self)
{
    uint32_t flushes = LOOK_FLUSHES;
    for (pa_mcache *c = first_cache(h); c; c = c->next_cache) {
        if (c == self || is_done(h, c) || is_active(c) || flushes == 0 || !pa_lock_try_acquire(&c->slow))
            continue;
        deliver_locked(h, c);
        flushes--;
        pa_lock_release(&c->slow);
    }
}

/* ---- Then: empty spans ---- */

/* Where a lap is, and what this look may still spend on it. */
typedef struct walk {
    uint32_t lap;        /* its number */
    pa_mcache *cache;    /* NULL: at listed spans */
    uint32_t size_class; /* next; PA_SIZE_CLASSES: done with these */
    uint32_t kept;       /* listed spans of the class that were looked at and stay */
    uint64_t misses;
    bool found;          /* something was freed, or could not be looked at, or not yet */
    pa_thinner thinner;  /* for spans with live blocks */
} walk;

static void spend(walk *w, uint64_t misses)
{
    w->misses -= misses < w->misses ? misses : w->misses;
}

static pa_thinner thinner_at(pa_heap *h, const pa_mcache *self, uint64_t now_ns)
{
    return (pa_thinner){.heap = h, .now = pa_thin_clock(now_ns),
                        .reason = self ? PA_RELEASE_TICK : PA_RELEASE_BACKGROUND};
}

/* Takes over what the thinner did since this was last asked. */
static void settle(walk *w)
{
    spend(w, w->thinner.misses);
    w->found |= w->thinner.later;
    w->thinner.misses = 0;
    w->thinner.later = false;
}

static uint32_t new_lap(pa_heap *h)
{
    uint32_t lap = atomic_fetch_add_explicit(&h->idle.laps, 1, memory_order_relaxed) + 1;
    return lap ? lap : new_lap(h);
}

/* The owner may be freeing into it right now. */
static bool is_wholly_free(pa_span *s, walk *w)
{
    spend(w, SPAN_MISSES);
    if (!pa_span_has_remote(s))
        return false;
    uint32_t live = __atomic_load_n(&s->live, __ATOMIC_ACQUIRE), waiting = pa_span_count_remote(s);
    spend(w, waiting);
    return live != 0 && live == waiting;
}

/* Partial spans of a class that this lap did not see yet. False: there are more than it may look at. */
static bool collect_partial(pa_heap *h, pa_spanlist *partial, walk *w)
{
    pa_span *dead = NULL, *s;
    while ((s = partial->first) != NULL && s->lap != w->lap && w->misses) {
        pa_spanlist_remove(partial, s);
        s->lap = w->lap;
        if (is_wholly_free(s, w)) {
            pa_span_collect_remote(s);
            PA_CHECK(s->live == 0);
            s->next = dead;
            dead = s;
            w->found = true;
        } else {
            if (__atomic_load_n(&s->live, __ATOMIC_ACQUIRE) != 0) /* 0: its owner is about to take it */
                pa_thin_span(&w->thinner, s, true);
            pa_spanlist_push_back(partial, s);
            settle(w);
        }
    }
    pa_mheap_free_span_list(h, dead);
    return !s || s->lap == w->lap;
}

/* The classes that are left of c. c->slow is held. */
static void collect_cache_locked(pa_heap *h, pa_mcache *c, walk *w)
{
    while (w->size_class < PA_SIZE_CLASSES && collect_partial(h, &c->partial[w->size_class], w))
        w->size_class++;
}

static bool collect_sleeper(pa_heap *h, pa_mcache *c, walk *w)
{
    if (w->misses == 0)
        return false;
    /* Awake: it collects its own, and another lap looks at it once it sleeps. */
    if (pa_racy_load(&c->closed) == PA_CACHE_OPEN || !pa_lock_try_acquire(&c->slow)) {
        w->found = true;
        return true;
    }
    spend(w, CACHE_MISSES);
    collect_cache_locked(h, c, w);
    pa_lock_release(&c->slow);
    return w->size_class == PA_SIZE_CLASSES;
}

/* Spans on their way to the heap are on no list: who has no slow-path lock keeps fork out by the decay lock. */
static pa_mcentral_ticked tick_listed(pa_heap *h, const pa_mcache *self, walk *w, uint32_t max_spans)
{
    if (!self)
        pa_lock_acquire(&h->decay.lock);
    pa_mcentral_ticked did = pa_thin_listed(&w->thinner, w->size_class, max_spans);
    if (!self)
        pa_lock_release(&h->decay.lock);
    return did;
}

static bool collect_listed(pa_heap *h, const pa_mcache *self, walk *w)
{
    for (; w->size_class < PA_SIZE_CLASSES; w->size_class++, w->kept = 0) {
        for (uint32_t count; (count = pa_mcentral_count(h, w->size_class)) > w->kept;) {
            if (w->misses == 0)
                return false;
            uint32_t spans = count - w->kept < LISTED_AT_ONCE ? count - w->kept : LISTED_AT_ONCE;
            pa_mcentral_ticked did = tick_listed(h, self, w, spans);
            if (did.spans == 0)
                break;
            spend(w, (uint64_t)did.spans * SPAN_MISSES + did.blocks);
            settle(w);
            w->kept += did.spans - did.freed;
            w->found |= did.freed != 0;
        }
    }
    return true;
}

/* As above: fork is kept out. */
static void list_leavings(pa_heap *h, const pa_mcache *self)
{
    if (!self)
        pa_lock_acquire(&h->decay.lock);
    pa_leavings_list(h, false);
    if (!self)
        pa_lock_release(&h->decay.lock);
}

/* Goes on with a lap. True: it came to the end. */
static bool walk_on(pa_heap *h, const pa_mcache *self, walk *w)
{
    if (!w->cache) {
        if (!collect_listed(h, self, w))
            return false;
        w->cache = first_cache(h);
        w->size_class = 1;
    }
    for (; w->cache; w->cache = w->cache->next_cache, w->size_class = 1)
        if (!collect_sleeper(h, w->cache, w))
            return false;
    return true;
}

/* ---- Looks ---- */

static walk resume(pa_heap *h, const pa_mcache *self, uint64_t now_ns)
{
    pa_idle *idle = &h->idle;
    walk w = {.lap = atomic_load_explicit(&idle->lap, memory_order_relaxed), .misses = LOOK_MISSES,
              .thinner = thinner_at(h, self, now_ns)};
    if (w.lap) {
        w.cache = atomic_load_explicit(&idle->lap_cache, memory_order_relaxed);
        w.size_class = atomic_load_explicit(&idle->lap_class, memory_order_relaxed);
        w.kept = atomic_load_explicit(&idle->lap_kept, memory_order_relaxed);
    } else {
        atomic_exchange_explicit(&idle->news, false, memory_order_acquire);
        w.lap = new_lap(h);
        w.size_class = 1;
    }
    return w;
}

static void pause_walk(pa_heap *h, const walk *w, bool ended)
{
    pa_idle *idle = &h->idle;
    atomic_store_explicit(&idle->lap, ended ? 0 : w->lap, memory_order_relaxed);
    atomic_store_explicit(&idle->lap_cache, w->cache, memory_order_relaxed);
    atomic_store_explicit(&idle->lap_class, w->size_class, memory_order_relaxed);
    atomic_store_explicit(&idle->lap_kept, w->kept, memory_order_relaxed);
}

static bool nothing_is_left(pa_heap *h)
{
    return all_done(h) && pa_racy_load(&h->leavings.count) == 0 &&
           !atomic_load_explicit(&h->idle.news, memory_order_relaxed);
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
        return atomic_load_explicit(&idle->quiet, memory_order_relaxed) && nothing_is_left(h);
    walk w = resume(h, self, now_ns);
    deliver_of_sleepers(h, self);
    list_leavings(h, self);
    bool ended = walk_on(h, self, &w);
    if (w.found)
        pa_idle_note(idle);
    pause_walk(h, &w, ended);
    bool quiet = ended && nothing_is_left(h);
    atomic_store_explicit(&idle->quiet, quiet, memory_order_relaxed);
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

size_t pa_idle_flush_all(pa_heap *h, const pa_mcache *self)
{
    for (pa_mcache *c = first_cache(h); c; c = c->next_cache) {
        if (c == self || is_done(h, c) || !acquire(c))
            continue;
        deliver_locked(h, c);
        pa_lock_release(&c->slow);
    }
    walk w = {.lap = new_lap(h), .misses = UINT64_MAX,
              .thinner = {.heap = h, .reason = PA_RELEASE_ASKED, .at_once = true}};
    for (pa_mcache *c = first_cache(h); c; c = c->next_cache) {
        if (c == self || !acquire(c))
            continue;
        w.size_class = 1;
        collect_cache_locked(h, c, &w);
        pa_lock_release(&c->slow);
    }
    return w.thinner.released_bytes;
}

void pa_idle_reset_child(pa_heap *h)
{
    atomic_store_explicit(&h->idle.barrier, PA_BARRIER_UNKNOWN, memory_order_relaxed);
    atomic_store_explicit(&h->idle.lap, 0, memory_order_relaxed);
    atomic_store_explicit(&h->idle.quiet, false, memory_order_relaxed);
    pa_idle_note(&h->idle);
}
