/* thin.c - a lap now and then over the spans in use, for pages that nobody needs.
 *
 * Owns the spans' thin_* fields and the mcache's, under its slow-path lock; of listed spans, those that it has taken
 * off their list, so that madvise runs without the list's lock.
 *
 * A span that its owner allocates from (current) cannot tell what of it is idle, as pops and pushes are not counted.
 * So pages of free blocks are first taken aside: if the blocks are wanted, the next slow path has them back at the cost
 * of its call, a page at a time; what is still aside a second later was in no use, and goes.  This finds the low-water
 * mark of the free list that TCMalloc counts with each operation.  The page of the block that comes next stays, so that
 * a thread that takes one and gives it back never notices.
 * From a partial or listed span nobody allocates, so how long it has been so says it all.
 *
 * A walk over a span's free list costs a cache miss a block.  Spans are therefore walked when blocks of an eighth of
 * their size were freed since the last walk, or half of those that were live then (a few survivors hold as many pages
 * as a tenth of the blocks does), and a lap has a budget: an interval's is about one percent of a processor.  A thread
 * that seldom comes does more at once.
 */
#include "heap/thin.h"

#include "heap/bins.h"
#include "heap/hollow.h"
#include "heap/remote.h"
#include "sys/vm.h"

enum {
    CLOCK_SHIFT = 28,           /* ns */
    IDLE_TICKS = 4,             /* 0.8 to 1.1 s */
    WORTH_SHIFT = 3,            /* of a span, freed since the last walk */
    LAP_MISSES = 1 << 18,
    STEP_MISSES = 1 << 12,
    RARE_CALLS = 64,            /* slow calls of one interval: fewer are few */
    SPAN_MISSES = 2,
    RELEASE_MISSES = 16,        /* a system call */
    LISTED_AT_ONCE = 16,
};

uint32_t pa_thin_clock(uint64_t now_ns)
{
    uint32_t now = (uint32_t)(now_ns >> CLOCK_SHIFT);
    return now ? now : 1;
}

static size_t least_freed_bytes(const pa_span *s)
{
    size_t part = pa_span_bytes(s) >> WORTH_SHIFT, os_page = pa_vm_page_size_bytes();
    return part > os_page ? part : os_page;
}

static uint32_t count_carved(const pa_span *s)
{
    return (uint32_t)((pa_racy_load(&s->tail) - s->base) / pa_class_object_bytes[s->size_class]);
}

static void release(pa_thinner *t, pa_span *s, bool keep_head)
{
    if (s->aside) {
        t->misses += RELEASE_MISSES * pa_popcount64(s->aside & ~(s->aside << 1));
        t->released_bytes += pa_span_give_aside(t->heap, s, keep_head, t->reason);
    }
}

/* Is it idle for long enough, and was so much freed that another walk may find something? */
static bool is_worth_a_walk(pa_thinner *t, pa_span *s, uint32_t live)
{
    if (s->idle_since == 0) {
        s->idle_since = t->now;
        s->thin_live = count_carved(s);
    }
    if (t->now - s->idle_since < IDLE_TICKS) {
        t->later = true;
        return false;
    }
    return live < s->thin_live && (live <= s->thin_live / 2 ||
                                   (s->thin_live - live) * pa_span_element_bytes(s) >= least_freed_bytes(s));
}

void pa_thin_span(pa_thinner *t, pa_span *s, bool keep_head)
{
    uint32_t live = __atomic_load_n(&s->live, __ATOMIC_ACQUIRE);
    t->misses += SPAN_MISSES;
    if (!t->at_once && !is_worth_a_walk(t, s, live))
        return;
    s->thin_live = live;
    t->misses += pa_span_set_aside(s, keep_head);
    release(t, s, keep_head);
}

/* ---- Listed spans ---- */

pa_mcentral_ticked pa_thin_listed(pa_thinner *t, unsigned size_class, uint32_t max_spans)
{
    pa_mcentral_ticked did = {0};
    pa_span *dead = NULL, *next, *s = pa_mcentral_detach(t->heap, size_class, max_spans);
    for (; s; s = next, did.spans++) {
        next = s->next;
        did.blocks += pa_span_collect_remote(s);
        if (s->live == 0) {
            s->next = dead;
            dead = s;
            did.freed++;
        } else {
            pa_thin_span(t, s, false);
            pa_mcentral_put(t->heap, s);
        }
    }
    pa_mheap_free_span_list(t->heap, dead);
    return did;
}

void pa_thin_all_listed(pa_thinner *t)
{
    for (unsigned k = 1; k < PA_SIZE_CLASSES; k++) {
        for (uint32_t left = pa_mcentral_count(t->heap, k), n; left; left -= n) {
            n = pa_thin_listed(t, k, left < LISTED_AT_ONCE ? left : LISTED_AT_ONCE).spans;
            if (n == 0)
                break;
        }
    }
}

/* ---- The owner ---- */

static void look_at_current(pa_thinner *t, pa_span *s)
{
    if (s == PA_EMPTY_SPAN)
        return;
    if (s->aside) {
        if (t->now - s->idle_since >= IDLE_TICKS)
            release(t, s, false);
    } else if (s->live != s->thin_live) {
        s->thin_live = s->live;
        s->idle_since = t->now;
        t->misses += pa_span_set_aside(s, true);
    }
}

static void look_at_partial(pa_thinner *t, pa_mcache *c, pa_span *s)
{
    pa_spanlist *partial = &c->partial[s->size_class];
    pa_spanlist_remove(partial, s);
    s->thin_seen = c->thin_lap;
    t->misses += pa_span_collect_remote(s);
    if (s->live == 0) {
        pa_bins_put_empty_locked(c, s);
        return;
    }
    pa_thin_span(t, s, false);
    pa_spanlist_push_back(partial, s);
}

void pa_thin_begin_locked(pa_mcache *c, uint64_t now_ns)
{
    bool rare = c->slow_calls - c->thin_calls < RARE_CALLS;
    c->thin_calls = c->slow_calls;
    c->thin_left = LAP_MISSES;
    c->thin_step = rare ? LAP_MISSES : STEP_MISSES;
    if (c->thin_class < PA_SIZE_CLASSES && c->thin_class) /* the last lap had not enough: the rest of it first */
        return;
    c->thin_lap = pa_thin_clock(now_ns);
    c->thin_class = 1;
}

void pa_thin_step_locked(pa_mcache *c, uint64_t now_ns)
{
    uint64_t most = c->thin_step < c->thin_left ? c->thin_step : c->thin_left;
    pa_thinner t = {.heap = c->heap, .now = pa_thin_clock(now_ns), .reason = PA_RELEASE_TICK};
    for (; c->thin_class < PA_SIZE_CLASSES; c->thin_class++) {
        pa_span *s;
        while ((s = c->partial[c->thin_class].first) != NULL && s->thin_seen != c->thin_lap && t.misses < most)
            look_at_partial(&t, c, s);
        if (t.misses >= most)
            break;
        look_at_current(&t, c->current[c->thin_class]);
    }
    c->thin_left = t.misses < c->thin_left ? c->thin_left - (uint32_t)t.misses : 0;
}

void pa_thin_all_locked(pa_mcache *c, pa_thinner *t)
{
    for (unsigned k = 1; k < PA_SIZE_CLASSES; k++) {
        for (pa_span *s = c->partial[k].first; s; s = s->next)
            pa_thin_span(t, s, false);
        if (c->current[k] != PA_EMPTY_SPAN)
            pa_thin_span(t, c->current[k], false);
    }
}
