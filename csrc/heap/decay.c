/* decay.c - looks at the heap now and then, and lets go of what has been idle.
 *
 * Owns the figures in pa_heap.decay, under its lock (rank SCAVENGE).  The policy is pure (pa_decay_look); the
 * rest reads the heap and calls pa_release_pages, which runs madvise without mheap's lock.  In slow paths the
 * caller's slow-path lock is what keeps fork out while pages are on their way; the background thread
 * (gc/scavenge.c), which has none, holds our lock instead.
 *
 * Idea: gradual release of what no recent peak needed, instead of purging on every free above a threshold, which
 * faults the same pages in again and again; compare jemalloc's decay time and the retention goal of Go's scavenger
 * (runtime/mgcscavenge.go).
 */
#include "heap/decay.h"

#include "base/options.h"
#include "heap/heap.h"
#include "heap/mheap.h"

static uint64_t max(uint64_t x, uint64_t y)
{
    return x > y ? x : y;
}

uint64_t pa_decay_allowance(uint64_t peak_bytes, uint64_t inuse_bytes)
{
    uint64_t goal = peak_bytes + max(peak_bytes / 10, PA_DECAY_SLACK_BYTES);
    return goal > inuse_bytes ? goal - inuse_bytes : 0;
}

static uint64_t min(uint64_t x, uint64_t y)
{
    return x < y ? x : y;
}

static void next_window(pa_decay *d, uint64_t now_ns, uint64_t age_ns)
{
    bool adjacent = age_ns < 2 * PA_DECAY_WINDOW_NS;
    d->previous_peak_bytes = adjacent ? d->peak_bytes : 0;
    d->previous_released_bytes = adjacent ? d->released_bytes : 0;
    d->peak_bytes = d->released_bytes = 0;
    d->window_ns = now_ns;
}

/* Pages inside spans that went back since the last look had not been touched for a second: no peak needed them. */
static void discount_hollow(pa_decay *d, uint64_t hollow_bytes)
{
    uint64_t more = hollow_bytes > d->hollow_bytes ? hollow_bytes - d->hollow_bytes : 0;
    d->hollow_bytes = hollow_bytes;
    d->peak_bytes -= min(more, d->peak_bytes);
    d->previous_peak_bytes -= min(more, d->previous_peak_bytes);
}

/* Growth takes pages without backing too; only what was let go in the last windows was let go too early. Twice that
 * stays, so that the next step aside finds pages, but at most half the peak, and only while the heap is turned over:
 * half the peak taken between two looks. Else it is halved at each look. */
static void learn(pa_decay *d, const pa_decay_view *v, uint64_t peak)
{
    if (v->taken < peak / 2) {
        d->missed_bytes /= 2;
        return;
    }
    uint64_t missed = min(v->taken_unbacked, d->released_bytes + d->previous_released_bytes);
    d->missed_bytes = min(d->missed_bytes + 2 * missed, peak / 2);
}

void pa_decay_look(pa_decay *d, uint64_t now_ns, pa_decay_view v)
{
    uint64_t age_ns = now_ns > d->window_ns ? now_ns - d->window_ns : 0;
    if (age_ns >= PA_DECAY_WINDOW_NS)
        next_window(d, now_ns, age_ns);
    discount_hollow(d, v.hollow);
    d->peak_bytes = max(d->peak_bytes, max(v.peak_inuse, v.inuse));
    uint64_t peak = max(d->peak_bytes, d->previous_peak_bytes);
    learn(d, &v, peak);
    uint64_t allowed = pa_decay_allowance(peak, v.inuse) + d->missed_bytes;
    uint64_t excess = v.free_backed > allowed ? v.free_backed - allowed : 0;
    d->owed_bytes = excess >= PA_DECAY_LEAST_BYTES ? excess - excess / 4 + PA_DECAY_LEAST_BYTES / 4 : 0;
    /* Near the memory limit nothing may stay for a peak to come. */
    uint64_t near = v.above_goal < v.free_backed ? v.above_goal : v.free_backed;
    if (near >= PA_DECAY_LEAST_BYTES)
        d->owed_bytes = max(d->owed_bytes, near);
}

uint64_t pa_decay_take(pa_decay *d, uint64_t most_bytes)
{
    uint64_t piece = min(d->owed_bytes, most_bytes);
    d->owed_bytes -= piece;
    d->released_bytes += piece;
    return piece;
}

/* Read one after the other while spans come and go: the sum may be the smaller one for a moment. */
static uint64_t without(uint64_t inuse_bytes, uint64_t hollow_bytes)
{
    return inuse_bytes > hollow_bytes ? inuse_bytes - hollow_bytes : 0;
}

pa_decay_view pa_decay_view_of(pa_heap *h)
{
    pa_lock_acquire(&h->lock);
    uint64_t inuse = atomic_load_explicit(&h->inuse_pages, memory_order_relaxed);
    uint64_t peak = atomic_exchange_explicit(&h->peak_pages, inuse, memory_order_relaxed);
    uint64_t hollow_bytes = atomic_load_explicit(&h->hollow_bytes, memory_order_relaxed);
    pa_decay_view v = {
        .inuse = without(inuse << PA_PAGE_SHIFT, hollow_bytes),
        .peak_inuse = without((peak > inuse ? peak : inuse) << PA_PAGE_SHIFT, hollow_bytes),
        .hollow = hollow_bytes,
        .free_backed = (h->pages.free_pages - h->pages.scavenged_pages) << PA_PAGE_SHIFT,
        .above_goal = pa_limit_above_goal_locked(h),
        .taken = h->taken_pages << PA_PAGE_SHIFT,
        .taken_unbacked = h->taken_unbacked_pages << PA_PAGE_SHIFT,
    };
    h->taken_pages = h->taken_unbacked_pages = 0;
    pa_lock_release(&h->lock);
    return v;
}

void pa_decay_tick(pa_heap *h, uint64_t now_ns)
{
    pa_decay *d = &h->decay;
    uint64_t due = atomic_load_explicit(&d->next_ns, memory_order_relaxed);
    if (now_ns < due) /* somebody else was faster */
        return;
    uint64_t interval_ns = (uint64_t)pa_the_options.decay_ms * 1000000;
    /* In step with the last look: ticks that come about as often as looks are due must not miss every other. */
    bool rare = now_ns - due >= interval_ns / 4;
    uint64_t next = due + interval_ns > now_ns ? due + interval_ns : now_ns + interval_ns / 2;
    bool first = due == 0 && interval_ns;
    if (interval_ns == 0)
        next = PA_DECAY_NEVER;
    else if (first) /* there is nothing yet, and the code that looks is 20 KiB that a short program need not have */
        next = now_ns + interval_ns;
    if (!atomic_compare_exchange_strong_explicit(&d->next_ns, &due, next, memory_order_relaxed,
                                                 memory_order_relaxed))
        return;
    if (first) {
        pa_lock_acquire(&d->lock);
        d->window_ns = now_ns; /* what is in use from now on counts as a peak until two windows are over */
        pa_lock_release(&d->lock);
        return;
    }
    if (interval_ns == 0 || atomic_load_explicit(&d->background, memory_order_relaxed)) {
        atomic_fetch_add_explicit(&d->round, 1, memory_order_relaxed);
        return;
    }
    bool settled = false; /* a look found nothing to do */
    pa_lock_acquire(&d->lock);
    if (d->owed_bytes == 0) {
        atomic_fetch_add_explicit(&d->round, 1, memory_order_relaxed);
        pa_decay_look(d, now_ns, pa_decay_view_of(h));
        settled = d->owed_bytes == 0;
    }
    uint64_t piece = pa_decay_take(d, rare ? PA_DECAY_RARE_PIECE_BYTES : PA_DECAY_PIECE_BYTES);
    if (d->owed_bytes) /* the next slow call takes the next piece */
        atomic_store_explicit(&d->next_ns, now_ns, memory_order_relaxed);
    pa_lock_release(&d->lock);
    if (piece)
        pa_release_pages(h, piece, PA_RELEASE_TICK);
    else if (settled)
        pa_release_headers(h);
}

void pa_decay_repeat_errand(pa_decay *d)
{
    atomic_fetch_or_explicit(&d->notify_due, PA_DUE_ERRAND, memory_order_release);
}

void pa_decay_set_errand(pa_decay *d, void (*errand)(void))
{
    d->errand = errand;
    pa_decay_repeat_errand(d);
}

void pa_decay_notify_slow(pa_decay *d)
{
    uint32_t due = atomic_exchange_explicit(&d->notify_due, 0, memory_order_acquire);
    if (due & PA_DUE_ERRAND)
        d->errand();
    if (due & PA_DUE_IDLE)
        d->notify();
}
