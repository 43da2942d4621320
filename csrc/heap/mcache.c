/* mcache.c - refill, claim, retire and trim: a thread's dealings with the heap.
 *
 * Owns one thread's spans, outbox and page stock; its bins are bins.c's.  Slow paths hold c->slow (rank PROC_SLOW),
 * so that fork finds every other thread's mcache between two steps, and so that heap/idle.c can flush it while the
 * thread sleeps; the owner's fast paths use bins and outbox without it (pa_mcache_enter).  A fork child rebuilds
 * from the page table (world/fork.c).
 *
 * A miss goes down one step at a time: collect what other threads freed into the current span; blocks whose memory
 * went back to the OS (heap/hollow.h); carve the tail; give the full span up; the oldest partial span; mcentral; an
 * empty span from the bins; the page heap.  New spans of a class grow by doubling from the table's size ("run
 * level") to 64-256 KiB, so that small programs stay small and large ones take the lock rarely.
 *
 * Invariants: current[k] is the empty span or owned, class k, biased by 1; partial[k] holds owned, unbiased
 * spans of class k with live > 0.
 * Ideas: Go's mcache (runtime/mcache.go); owning several spans a class and the frees of others follow
 * Leijen, Zorn, de Moura, "Mimalloc: Free List Sharding in Action" (2019) in spirit.
 */
#include "heap/mcache.h"

#include "base/yield.h"
#include "heap/bins.h"
#include "heap/hollow.h"
#include "heap/leavings.h"
#include "heap/mcentral.h"
#include "heap/profile.h"
#include "heap/remote.h"
#include "heap/thin.h"
#include "sys/clock.h"

enum {
    TICK_CALLS = 512,     /* slow calls between two walks over all partial spans */
    TICK_CENTRAL_SPANS = 8,
    LOOK_AHEAD = 8,       /* partial spans that a refill may pass by */
    OUTBOX_CALLS = 64,    /* slow calls between two flushes of the outbox */
    NOTICE_CLAIMED_PAGES = 2048, /* 16 MiB of full spans got holes: if the thread falls asleep now, they stay */
};

void pa_mcache_init(pa_mcache *c, pa_heap *h)
{
    *c = (pa_mcache){
        .next_cache = c->next_cache,
        .managed_sampler = c->managed_sampler,
        .closed = PA_CACHE_FLUSHED,
        .sampling = pa_profile_round_racy() & 1,
        .thin_class = PA_SIZE_CLASSES,
        .decay_round = atomic_load_explicit(&h->decay.round, memory_order_relaxed),
    };
    for (unsigned i = 0; i < PA_SIZE_CLASSES; i++)
        c->current[i] = PA_EMPTY_SPAN;
    c->direct[PA_DIRECT_COUNT - 1] = PA_EMPTY_SPAN;
    pa_mcache_show_current_locked(c);
    c->bin_cap_pages = c->bin_room_pages = PA_BIN_CAP_UNASKED_PAGES;
    c->slow.rank = PA_RANK_PROC_SLOW;
    c->heap = h;
    c->trim_seen = atomic_load_explicit(&h->trim_generation, memory_order_relaxed);
}

void pa_mcache_publish_locked(pa_mcache *c)
{
    c->next_cache = atomic_load_explicit(&c->heap->mcaches, memory_order_relaxed);
    atomic_store_explicit(&c->heap->mcaches, c, memory_order_release);
    atomic_fetch_add_explicit(&c->heap->idle.caches, 1, memory_order_relaxed);
}

void pa_mcache_enter_slow(pa_mcache *c)
{
    pa_lock_acquire(&c->slow);
    pa_owner_add(&c->entries, 1);
    if (PA_LIKELY(!c->closed))
        return;
    __atomic_store_n(&c->closed, PA_CACHE_OPEN, __ATOMIC_RELAXED);
    pa_idle_note(&c->heap->idle);
    pa_decay_wake(&c->heap->decay);
}

/* ---- Current span ---- */

/* What small mallocs of the class pop from. */
static void show(pa_mcache *c, unsigned size_class, pa_span *s)
{
    size_t top = pa_class_object_bytes[size_class];
    if (top > PA_SMALL_MAX_STEP8_BYTES)
        return;
    size_t below = size_class > 1 ? pa_class_object_bytes[size_class - 1] : 0;
    for (size_t i = size_class > 1 ? below / 8 + 1 : 0; i <= top / 8; i++)
        pa_owner_set(&c->direct[i], s);
}

static void set_current(pa_mcache *c, unsigned size_class, pa_span *s)
{
    pa_owner_set(&c->current[size_class], s);
    if (PA_LIKELY(!c->sampling))
        show(c, size_class, s);
}

void pa_mcache_show_current_locked(pa_mcache *c)
{
    bool counted = c->sampling;
    pa_owner_set(&c->medium_max_bytes, counted ? 0 : PA_SMALL_MAX_BYTES);
    pa_owner_set(&c->binned_max_bytes, counted ? 0 : (size_t)PA_BIN_MAX_PAGES << PA_PAGE_SHIFT);
    for (unsigned k = 1; k < PA_SIZE_CLASSES; k++)
        show(c, k, counted ? PA_EMPTY_SPAN : c->current[k]);
}

static pa_span *make_current(pa_mcache *c, unsigned size_class, pa_span *s)
{
    pa_owner_add(&s->live, 1);
    s->idle_since = 0;
    set_current(c, size_class, s);
    return s;
}

pa_span *pa_mcache_take_current_locked(pa_mcache *c, unsigned size_class)
{
    pa_span *s = c->current[size_class];
    if (s == PA_EMPTY_SPAN)
        return NULL;
    set_current(c, size_class, PA_EMPTY_SPAN);
    pa_owner_add(&s->live, -1);
    return s;
}

static void tick(pa_mcache *c, unsigned size_class);
static void retire_empty_currents(pa_mcache *c);

/* ---- Outbox ---- */

enum { OUTBOX_SLOT_BYTES = 16384, OUTBOX_SLOT_BLOCKS = 128 };

static void claim(pa_mcache *c, pa_span *s)
{
    PA_YIELD(FREE_AFTER_CLAIM);
    c->claimed_pages += s->npages;
    if (PA_UNLIKELY(c->claimed_pages >= NOTICE_CLAIMED_PAGES)) {
        c->claimed_pages = 0;
        pa_mheap_notice_holes(c->heap);
    }
    atomic_store_explicit(&s->owner, c, memory_order_release);
    pa_span_collect_remote(s);
    if (s->live == 0)
        pa_bins_put_empty_locked(c, s);
    else
        pa_spanlist_push_back(&c->partial[s->size_class], s);
}

/* A list of freed blocks comes home to a span that c owns. */
static void splice(pa_mcache *c, pa_span *s, void *first)
{
    pa_span_take_home(s, first);
    if (s->live == 0) {
        pa_spanlist_remove(&c->partial[s->size_class], s);
        pa_bins_put_empty_locked(c, s);
    }
}

static void flush_slot(pa_mcache *c, pa_outbox_slot *slot)
{
    pa_outbox_slot full = *slot;
    if (!full.span)
        return;
    pa_mcache_clear_slot_locked(c, slot);
    if (atomic_load_explicit(&full.span->owner, memory_order_relaxed) == c) /* it became ours meanwhile */
        splice(c, full.span, full.first);
    else if (pa_span_push_remote(full.span, full.first, full.last))
        claim(c, full.span);
}

void pa_mcache_flush_outbox_locked(pa_mcache *c)
{
    if (c->outbox_count == 0)
        return;
    for (unsigned i = 0; i < PA_OUTBOX_SLOTS; i++)
        flush_slot(c, &c->outbox[i]);
}

void pa_mcache_flush_outbox(pa_mcache *c)
{
    pa_mcache_enter_slow(c);
    pa_mcache_flush_outbox_locked(c);
    pa_lock_release(&c->slow);
}

/* Collects the two partial spans of a class that were looked at longest ago. A thread that only frees becomes
 * the owner of spans into which others free, and has no refill in which it would see that. */
static void collect_in_turn(pa_mcache *c, unsigned size_class)
{
    pa_spanlist *partial = &c->partial[size_class];
    for (int i = 0; i < 2 && partial->first; i++) {
        pa_span *s = pa_spanlist_pop_front(partial);
        if (pa_span_collect_remote(s) && s->live == 0)
            pa_bins_put_empty_locked(c, s);
        else
            pa_spanlist_push_back(partial, s);
    }
}

void pa_mcache_free_remote_slow(pa_mcache *c, pa_span *s, void *p)
{
    pa_outbox_slot *slot = pa_outbox_slot_of(c, s);
    pa_mcache_enter_slow(c);
    pa_link_set(p, NULL);
    PA_POISON(p, pa_span_element_bytes(s));
    flush_slot(c, slot);
    tick(c, s->size_class); /* a thread that only frees comes through here and nowhere else */
    collect_in_turn(c, s->size_class);
    if (atomic_load_explicit(&s->owner, memory_order_relaxed) == c) {
        splice(c, s, p);
    } else {
        uint32_t blocks = (uint32_t)(OUTBOX_SLOT_BYTES / pa_class_object_bytes[s->size_class]);
        slot->first = slot->last = p;
        if (blocks > OUTBOX_SLOT_BLOCKS || blocks == 0)
            blocks = blocks ? OUTBOX_SLOT_BLOCKS : 1;
        pa_owner_set(&slot->limit, blocks);
        pa_owner_set(&slot->left, blocks - 1);
        pa_owner_set(&slot->span, s);
        pa_owner_add(&c->outbox_count, 1);
    }
    pa_lock_release(&c->slow);
    pa_decay_notify(&c->heap->decay);
}

/* ---- Ticks and trims ---- */

/* Collects the oldest max_spans partial spans of a class; empty ones go to the bins. */
static void collect_partial(pa_mcache *c, unsigned size_class, uint32_t max_spans)
{
    pa_span *next;
    for (pa_span *s = c->partial[size_class].first; s && max_spans--; s = next) {
        next = s->next;
        if (pa_span_collect_remote(s) && s->live == 0) {
            pa_spanlist_remove(&c->partial[size_class], s);
            pa_bins_put_empty_locked(c, s);
        }
    }
}

void pa_mcache_collect_partial_locked(pa_mcache *c)
{
    for (unsigned k = 1; k < PA_SIZE_CLASSES; k++)
        if (c->partial[k].first)
            collect_partial(c, k, UINT32_MAX);
}

static void trim(pa_mcache *c)
{
    pa_mcache_flush_outbox_locked(c); /* first: what it brings home may be the last of a span */
    for (unsigned k = 1; k < PA_SIZE_CLASSES; k++) {
        pa_span *s = c->current[k];
        if (s == PA_EMPTY_SPAN)
            continue;
        pa_span_collect_remote(s);
        if (s->live == 1) /* the bias: nothing in it */
            pa_bins_put_empty_locked(c, pa_mcache_take_current_locked(c, k));
    }
    pa_mcache_collect_partial_locked(c);
    pa_bins_drain_locked(c, 0);
    pa_mheap_flush_stock(c->heap, &c->stock);
}

/* Somebody wants memory: that of free blocks, too. */
static size_t thin(pa_mcache *c)
{
    pa_thinner t = {.heap = c->heap, .reason = PA_RELEASE_ASKED, .at_once = true};
    pa_thin_all_locked(c, &t);
    return t.released_bytes;
}

size_t pa_mcache_release_to_os(pa_mcache *c)
{
    pa_mcache_enter_slow(c);
    trim(c);
    c->trim_seen = atomic_load_explicit(&c->heap->trim_generation, memory_order_relaxed);
    pa_leavings_list(c->heap, true);
    pa_mcentral_collect_all(c->heap);
    size_t released_bytes = thin(c);
    pa_thinner t = {.heap = c->heap, .reason = PA_RELEASE_ASKED, .at_once = true};
    pa_thin_all_listed(&t);
    released_bytes += t.released_bytes + pa_release_all(c->heap);
    pa_lock_release(&c->slow);
    return released_bytes;
}

/* Somebody asked for memory back since our last slow call: flush, and let go of what that freed. */
static void answer_trim(pa_mcache *c)
{
    uint32_t wanted = atomic_load_explicit(&c->heap->trim_generation, memory_order_relaxed);
    if (PA_LIKELY(wanted == c->trim_seen))
        return;
    c->trim_seen = wanted;
    trim(c);
    thin(c);
    pa_release_all(c->heap);
}

/* Spans that this thread kept for reuse and did not reuse for a whole round of decay. */
static void give_up_unused(pa_mcache *c)
{
    if (c->bin_wants == c->decay_wants) {
        retire_empty_currents(c);
        pa_bins_drain_locked(c, 0);
    }
    c->decay_wants = c->bin_wants;
}

static void decay(pa_mcache *c)
{
    pa_decay *d = &c->heap->decay;
    uint64_t now_ns = pa_clock_coarse_ns();
    if (PA_UNLIKELY(pa_decay_is_due(d, now_ns)))
        pa_decay_tick(c->heap, now_ns);
    uint32_t round = atomic_load_explicit(&d->round, memory_order_relaxed);
    if (PA_UNLIKELY(c->decay_round != round)) {
        c->decay_round = round;
        give_up_unused(c);
        if (!atomic_load_explicit(&d->background, memory_order_relaxed)) /* that thread does it */
            pa_idle_look(c->heap, c, now_ns);
        pa_thin_begin_locked(c, now_ns);
    }
    if (PA_UNLIKELY(pa_thin_is_due(c)))
        pa_thin_step_locked(c, now_ns);
}

static void tick(pa_mcache *c, unsigned size_class)
{
    answer_trim(c);
    decay(c);
    c->slow_calls++;
    if (PA_UNLIKELY(c->slow_calls % OUTBOX_CALLS == 0))
        pa_mcache_flush_outbox_locked(c);
    if (PA_UNLIKELY(c->slow_calls % TICK_CALLS == 0)) {
        pa_mcache_collect_partial_locked(c);
        pa_mcentral_tick(c->heap,
                         size_class ? size_class : c->slow_calls / TICK_CALLS % (PA_SIZE_CLASSES - 1) + 1,
                         TICK_CENTRAL_SPANS);
    }
}

/* ---- Refill ---- */

/* Current spans of which every block is free go to the bins. */
static void retire_empty_currents(pa_mcache *c)
{
    for (unsigned k = 1; k < PA_SIZE_CLASSES; k++)
        if (c->current[k]->live == 1) /* the bias: nothing in it */
            pa_bins_put_empty_locked(c, pa_mcache_take_current_locked(c, k));
}

/* Before the heap is asked, what this thread keeps idle is reused: the bins' other sizes, cut or joined, and empty
 * current spans of other classes. */
static pa_span *reuse_idle(pa_mcache *c, size_t npages, size_t max_pages)
{
    pa_span *s = pa_bins_make_locked(c, npages, max_pages);
    if (s)
        return s;
    retire_empty_currents(c);
    return pa_bins_make_locked(c, npages, max_pages);
}

/* Out of memory: whatever we or nobody holds may be what is missing. */
static void give_up_all(pa_mcache *c)
{
    trim(c);
    pa_leavings_list(c->heap, true);
    pa_mcentral_collect_all(c->heap);
}

static pa_span *new_span(pa_mcache *c, unsigned size_class)
{
    size_t table_pages = pa_class_span_pages[size_class];
    size_t cap_pages = pa_class_cap_pages[size_class];
    size_t run_pages = table_pages << c->run_level[size_class];
    if (run_pages > cap_pages)
        run_pages = cap_pages;
    pa_span *s = pa_bins_take(c, run_pages, cap_pages);
    if (!s && run_pages > table_pages)
        s = pa_bins_take(c, table_pages, run_pages);
    if (!s) {
        /* Short runs are made of what there is; long ones are rare and fill the heap's lowest holes (decision 005). */
        pa_bins_want_locked(c);
        if (run_pages < PA_PAGE_CACHE_LIMIT_PAGES)
            s = reuse_idle(c, run_pages, cap_pages);
        else
            retire_empty_currents(c);
    }
    if (!s) {
        if ((size_t)pa_bins_pages(c) >= run_pages)
            pa_bins_drain_locked(c, 0);
        s = pa_mheap_alloc_run(c->heap, &c->stock, table_pages, run_pages);
    }
    if (!s) {
        give_up_all(c);
        s = pa_mheap_alloc_run(c->heap, &c->stock, table_pages, table_pages);
    }
    if (!s)
        return NULL;
    if (run_pages < cap_pages)
        c->run_level[size_class]++;
    pa_span_format_explicit(s, size_class);
    atomic_store_explicit(&s->owner, c, memory_order_release);
    return s;
}

/* A span whose free list can be popped, or NULL. s is owned. */
static bool has_block(pa_mcache *c, pa_span *s)
{
    if (s->free)
        return true;
    if (pa_span_collect_remote(s))
        return true;
    return (PA_UNLIKELY(pa_span_has_out(s)) && pa_span_fill(c->heap, s)) || pa_span_carve(s);
}

/* Small programs use many classes for a block or two: those come from a larger class that has a page already, at
 * most twice the size and aligned as well (memalign relies on that). */
static pa_span *borrow(pa_mcache *c, unsigned size_class)
{
    size_t size = pa_class_object_bytes[size_class], align = size & -size;
    if (c->borrowed[size_class] == PA_BORROW_BLOCKS || size > PA_BORROW_MAX_BYTES || size_class == 1)
        return NULL;
    for (unsigned k = size_class + 1; pa_class_object_bytes[k] <= 2 * size; k++) {
        if (c->current[k]->free && pa_class_object_bytes[k] % align == 0) {
            c->borrowed[size_class]++;
            return c->current[k];
        }
    }
    return NULL;
}

/* The oldest partial span; rather one with blocks at hand than one whose free blocks have no memory, as long as it is
 * not far. */
static pa_span *take_partial(pa_spanlist *partial)
{
    for (int i = 0; i < LOOK_AHEAD && partial->first && !partial->first->free && pa_span_has_out(partial->first); i++)
        pa_spanlist_push_back(partial, pa_spanlist_pop_front(partial));
    return pa_spanlist_pop_front(partial);
}

static pa_span *refill_locked(pa_mcache *c, unsigned size_class)
{
    pa_span *s = c->current[size_class];
    if (s != PA_EMPTY_SPAN) {
        if (has_block(c, s))
            return s;
        s = pa_mcache_take_current_locked(c, size_class);
        if (!pa_span_abandon(s, c))
            return make_current(c, size_class, s);
    }
    pa_spanlist *partial = &c->partial[size_class];
    collect_partial(c, size_class, 2);
    s = take_partial(partial);
    if (!s) {
        pa_leavings_take(c->heap, c, size_class);
        s = take_partial(partial);
    }
    if (!s)
        s = pa_mcentral_take(c->heap, size_class, c);
    if (!s) {
        pa_span *larger = borrow(c, size_class);
        if (larger)
            return larger;
        s = new_span(c, size_class);
    }
    if (!s)
        return NULL;
    c->borrowed[size_class] = PA_BORROW_BLOCKS;
    PA_CHECK(has_block(c, s));
    return make_current(c, size_class, s);
}

pa_span *pa_mcache_refill(pa_mcache *c, unsigned size_class)
{
    pa_decay_notify(&c->heap->decay);
    pa_mcache_enter_slow(c);
    tick(c, size_class);
    pa_span *s = refill_locked(c, size_class);
    pa_lock_release(&c->slow);
    pa_peak_tell(&c->heap->peak);
    return s;
}

void pa_mcache_span_emptied(pa_mcache *c, pa_span *s)
{
    pa_mcache_enter_slow(c);
    pa_spanlist_remove(&c->partial[s->size_class], s);
    pa_bins_put_empty_locked(c, s);
    pa_lock_release(&c->slow);
    pa_decay_notify(&c->heap->decay);
}

/* ---- Large spans ---- */

enum { TRADE_MOST = 4 }; /* times what is wanted now, in one run */
_Static_assert(TRADE_MOST * PA_BIN_MAKE_PAGES <= PA_BIN_MAX_PAGES, "what is not wanted now fits a bin");

pa_span *pa_mcache_alloc_large(pa_mcache *c, size_t npages, size_t align_pages)
{
    if (align_pages == 1 && pa_mcache_enter(c)) {
        pa_span *binned = pa_bins_take(c, npages, npages + npages / 8);
        pa_mcache_leave(c);
        if (binned)
            return binned;
    }
    pa_decay_notify(&c->heap->decay);
    pa_mcache_enter_slow(c);
    pa_bins_want_locked(c);
    tick(c, 0);
    /* Larger ones, and those with an alignment, come from the heap: lowest address first keeps peaks low, and what they
     * cost is touching them. So does everything under a memory limit: what is cut from longer runs fits no hole. */
    bool make = npages <= PA_BIN_MAKE_PAGES && align_pages == 1 && pa_limit_get(c->heap) == UINT64_MAX;
    pa_span *s = make ? reuse_idle(c, npages, npages + npages / 8) : NULL;
    if (!s) {
        retire_empty_currents(c);
        s = pa_bins_trade_locked(c, npages, align_pages, make ? TRADE_MOST * npages : npages);
    }
    if (!s) {
        give_up_all(c);
        s = pa_mheap_alloc_span(c->heap, npages, align_pages);
        if (s)
            pa_span_format_large(s);
    }
    pa_lock_release(&c->slow);
    pa_peak_tell(&c->heap->peak);
    return s;
}

void pa_mcache_free_large_slow(pa_mcache *c, pa_span *s)
{
    pa_mcache_enter_slow(c);
    pa_bins_put_locked(c, s);
    decay(c); /* a thread that only frees comes through here and nowhere else */
    pa_lock_release(&c->slow);
    pa_decay_notify(&c->heap->decay);
}

void pa_mcache_free_released(pa_mcache *c, pa_span *s)
{
    pa_mcache_enter_slow(c); /* keeps fork out */
    pa_mheap_free_released_span(c->heap, s);
    pa_lock_release(&c->slow);
}

bool pa_mcache_resize_large(pa_mcache *c, pa_span *s, size_t npages)
{
    bool ok = true;
    pa_mcache_enter_slow(c);
    if (npages > s->npages)
        ok = pa_mheap_extend_span(c->heap, s, npages);
    else if (npages < s->npages)
        pa_mheap_shrink_span(c->heap, s, npages);
    pa_lock_release(&c->slow);
    pa_peak_tell(&c->heap->peak);
    pa_decay_notify(&c->heap->decay);
    return ok;
}
