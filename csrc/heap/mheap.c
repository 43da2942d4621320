/* mheap.c - the page heap: spans in and out, arenas from the OS, free pages back to it.
 *
 * Owns the arenas, the page allocator and the span headers; h->lock (rank MHEAP) guards all of them.
 * Runs shorter than 16 pages come from the thread's page cache without the lock (Go: mheap.allocSpan).
 * Invariants: every page of an arena is in the page allocator, in one page cache, or in exactly one span;
 * inuse_pages counts the last; a free page's table entry is NULL.
 *
 * Only pa_vm_map_heap, the table commits and advice on huge pages call the OS under the lock, when the heap grows.
 * Free pages go back to the OS in heap/release.c; an allocation that takes the heap over the memory limit calls that
 * with the lock dropped, before anybody touches the new pages.
 */
#include "heap/mheap.h"

#include <string.h>

#include "base/bits.h"
#include "base/options.h"
#include "base/poison.h"
#include "heap/gcside.h"
#include "heap/hollow.h"
#include "heap/special.h"
#include "sys/trace.h"
#include "sys/vm.h"

/* Where Go puts its first arena; growth continues upwards, so that arenas are contiguous. */
static const uintptr_t first_arena_hint = (uintptr_t)0xc0 << 32;

/* Windows to try, in bits of address space. See decisions/002. */
static const unsigned window_bits[] = {PA_USER_ADDRESS_BITS, 44, 40, 36, 34};

static bool reserve_window_locked(pa_heap *h, uintptr_t first_arena)
{
    /* Under ulimit -v the table must leave room for the heap: an eighth at most. */
    size_t table_max_bytes = pa_vm_address_limit_bytes() / 8;
    for (size_t i = 0; i < sizeof window_bits / sizeof *window_bits; i++) {
        size_t table_bytes = sizeof(pa_span *) << (window_bits[i] - PA_PAGE_SHIFT);
        if (table_bytes > table_max_bytes && window_bits[i] > PA_ROOT_SHIFT)
            continue;
        uintptr_t base = pa_space_base_for(first_arena, window_bits[i]);
        if (!pa_pagealloc_init(&h->pages, base, window_bits[i], &pa_page_hooks_vm))
            continue;
        if (pa_space_init_locked(base, window_bits[i]))
            return true;
        pa_pagealloc_destroy(&h->pages);
    }
    return false;
}

static void free_arena_records_locked(pa_heap *h, pa_arena *first)
{
    for (pa_arena *next; first; first = next) {
        next = first->next;
        pa_fixalloc_free_locked(&h->arena_records, first);
    }
}

/* Records for arenas [base, base + nbytes), linked in address order; NULL when out of memory. */
static pa_arena *make_arena_records_locked(pa_heap *h, uintptr_t base, size_t nbytes, pa_arena **last)
{
    pa_arena *first = NULL;
    for (uintptr_t at = base + nbytes; at > base;) {
        at -= PA_ARENA_BYTES;
        pa_arena *a = pa_fixalloc_alloc_locked(&h->arena_records, &h->offheap);
        if (!a) {
            free_arena_records_locked(h, first);
            return NULL;
        }
        *a = (pa_arena){.base = at, .next = first};
        if (!first)
            *last = a;
        first = a;
    }
    return first;
}

/* The whole heap asks for huge pages. Best effort. */
static void advise_locked(pa_heap *h, uintptr_t base, size_t nbytes)
{
    if (pa_gcside_ensure_locked(h, base, nbytes, false))
        pa_gcside_advise(base, nbytes, 0);
}

/* Adds mapped arenas to the tables. On failure nothing but committed table pages has changed. */
static bool adopt_arenas_locked(pa_heap *h, uintptr_t base, size_t nbytes)
{
    if (!pa_space_contains(base, nbytes) || !pa_space_commit(base, nbytes))
        return false;
    /* While there are managed objects, any page may become theirs: no arena without its side table. */
    if (atomic_load_explicit(&h->managed_pages, memory_order_relaxed) &&
        !pa_gcside_ensure_locked(h, base, nbytes, true))
        return false;
    pa_arena *last = NULL, *first = make_arena_records_locked(h, base, nbytes, &last);
    if (!first)
        return false;
    if (!pa_pagealloc_grow(&h->pages, base, nbytes)) {
        free_arena_records_locked(h, first);
        return false;
    }
    __atomic_store_n(h->last_arena ? &h->last_arena->next : &h->arenas, first, __ATOMIC_RELEASE);
    h->last_arena = last;
    pa_owner_add(&h->arena_count, nbytes >> PA_ARENA_SHIFT);
    if (pa_the_options.huge_pages)
        advise_locked(h, base, nbytes);
    return true;
}

static bool grow_locked(pa_heap *h, size_t npages)
{
    uint64_t begin_ns = pa_trace_begin();
    size_t nbytes = pa_round_up(npages << PA_PAGE_SHIFT, PA_ARENA_BYTES);
    uintptr_t hint = h->last_arena ? h->last_arena->base + PA_ARENA_BYTES : first_arena_hint;
    uintptr_t base = pa_vm_map_heap(hint, nbytes, PA_ARENA_BYTES);
    if (base == 0)
        return false;
    PA_POISON(base, nbytes);
    if ((pa_space.table || reserve_window_locked(h, base)) && adopt_arenas_locked(h, base, nbytes)) {
        pa_trace_end(PA_TRACE_GROW, begin_ns, nbytes, base, 0);
        pa_release_trace_memory_locked(h);
        return true;
    }
    PA_UNPOISON(base, nbytes);
    pa_vm_unmap((void *)base, nbytes);
    return false;
}

void pa_heap_rank_central_locks(pa_heap *h)
{
    h->leavings.lock.rank = PA_RANK_MCENTRAL;
    for (unsigned k = 0; k < PA_SPAN_KINDS; k++)
        for (unsigned c = 0; c < PA_SIZE_CLASSES; c++)
            h->central[k][c].lock.rank = PA_RANK_MCENTRAL;
}

bool pa_heap_init_locked(pa_heap *h)
{
    if (h->initialised)
        return true;
    h->lock.rank = PA_RANK_MHEAP;
    h->offheap.lock.rank = PA_RANK_OFFHEAP;
    if (PA_ASSERT_LEVEL >= 1)
        pa_heap_rank_central_locks(h);
    h->span_headers.object_bytes = sizeof(pa_span);
    h->span_headers.align = _Alignof(pa_span);
    h->span_headers.by_page = true;
    h->decay.lock.rank = PA_RANK_SCAVENGE;
    h->specials.lock.rank = PA_RANK_SPECIAL;
    h->specials.records.object_bytes = sizeof(pa_special);
    h->specials.records.align = _Alignof(pa_special);
    h->specials.records.by_page = true;
    h->specials.weaks.object_bytes = sizeof(struct pa_weak);
    h->specials.weaks.align = _Alignof(struct pa_weak);
    h->specials.weaks.by_page = true;
    atomic_store_explicit(&h->sweepgen, 4, memory_order_relaxed);
    h->arena_records.object_bytes = sizeof(pa_arena);
    h->arena_records.align = _Alignof(pa_arena);
    pa_lock_acquire(&h->lock);
    h->initialised = grow_locked(h, 1);
    pa_lock_release(&h->lock);
    return h->initialised;
}

/* Fills what is missing of the spare headers, if there is memory for them. */
static void refill_headers_locked(pa_heap *h, pa_page_stock *stock)
{
    while (stock->header_count < PA_SPARE_HEADERS) {
        pa_span *s = pa_fixalloc_alloc_locked(&h->span_headers, &h->offheap);
        if (!s)
            break;
        stock->headers[stock->header_count++] = s;
    }
}

static void note_taken_locked(pa_heap *h, size_t npages, size_t scavenged_pages)
{
    h->taken_pages += npages;
    h->taken_unbacked_pages += scavenged_pages;
}

/* Fills what is missing of a stock: 64 pages, spare headers. May leave either empty. */
static void refill_stock_locked(pa_heap *h, pa_page_stock *stock)
{
    if (stock->cache.free == 0) {
        stock->cache = pa_pagealloc_alloc_to_cache(&h->pages);
        note_taken_locked(h, pa_popcount64(stock->cache.free), pa_popcount64(stock->cache.scavenged));
    }
    refill_headers_locked(h, stock);
}

/* A sample of what is in use, when that has moved far enough since the last. */
static PA_COLD void trace_inuse(pa_heap *h, uint64_t now)
{
    enum { LEAST_PAGES = 64, SHARE = 32 };
    uint64_t last = atomic_load_explicit(&h->traced_pages, memory_order_relaxed);
    if ((now > last ? now - last : last - now) < LEAST_PAGES + last / SHARE)
        return;
    atomic_store_explicit(&h->traced_pages, now, memory_order_relaxed);
    pa_trace_note(PA_TRACE_IN_USE, now << PA_PAGE_SHIFT, 0, 0);
}

static PA_COLD void trace_span(pa_heap *h, pa_trace_kind kind, uintptr_t base, size_t nbytes, uint64_t inuse_pages)
{
    pa_trace_note(kind, base, nbytes, 0);
    trace_inuse(h, inuse_pages);
}

static uint64_t count_inuse(pa_heap *h, size_t npages)
{
    uint64_t now = atomic_fetch_add_explicit(&h->inuse_pages, npages, memory_order_relaxed) + npages;
    if (now > atomic_load_explicit(&h->peak_pages, memory_order_relaxed)) {
        atomic_store_explicit(&h->peak_pages, now, memory_order_relaxed);
        pa_peak_note(&h->peak, now);
    }
    return now;
}

static pa_span *publish(pa_heap *h, pa_span *s, uintptr_t base, size_t npages, size_t scavenged_pages)
{
    pa_owner_set(&s->base, base);
    pa_span_set_npages(s, npages);
    pa_owner_set(&s->size_class, 0);
    s->needs_zero = scavenged_pages != npages || !pa_release_reads_zero(h, base, npages << PA_PAGE_SHIFT);
    s->next = s->prev = NULL;
    pa_owner_set(&s->listed, 0);
    s->pins = 0;
    s->tail = 0;
    atomic_store_explicit(&s->owner, NULL, memory_order_relaxed);
    pa_span_set_state(s, PA_SPAN_MANUAL);
    pa_space_set(s, s);
    uint64_t inuse_pages = count_inuse(h, npages);
    atomic_fetch_add_explicit(&h->spans_allocated, 1, memory_order_relaxed);
    if (pa_trace_is_on())
        trace_span(h, PA_TRACE_SPAN_ALLOC, base, npages << PA_PAGE_SHIFT, inuse_pages);
    return s;
}

/* By how much must somebody give memory back before pages that were just taken are touched? */
static uint64_t over_limit_locked(pa_heap *h)
{
    bool some = atomic_load_explicit(&h->release.limit_bytes, memory_order_relaxed) != 0;
    return PA_UNLIKELY(some) ? pa_limit_over_slow_locked(h) : 0;
}

static void obey_limit(pa_heap *h, uint64_t over_bytes)
{
    if (PA_UNLIKELY(over_bytes))
        pa_limit_obey(h, over_bytes);
}

static pa_span *alloc_from_stock(pa_heap *h, pa_page_stock *stock, size_t min_pages, size_t npages)
{
    if (stock->cache.free == 0 || stock->header_count == 0) {
        pa_lock_acquire(&h->lock);
        refill_stock_locked(h, stock);
        uint64_t over_bytes = over_limit_locked(h);
        pa_lock_release(&h->lock);
        obey_limit(h, over_bytes);
    }
    if (stock->header_count == 0)
        return NULL;
    size_t scavenged_pages;
    uintptr_t base = pa_pagecache_alloc(&stock->cache, npages, &scavenged_pages);
    while (base == 0 && npages > min_pages) {
        npages -= min_pages;
        base = pa_pagecache_alloc(&stock->cache, npages, &scavenged_pages);
    }
    return base ? publish(h, stock->headers[--stock->header_count], base, npages, scavenged_pages) : NULL;
}

static void free_run_locked(pa_heap *h, uintptr_t base, size_t npages, bool untouched)
{
    if (npages == 0)
        return;
    if (untouched)
        pa_pagealloc_free_scavenged(&h->pages, base, npages);
    else
        pa_pagealloc_free(&h->pages, base, npages);
}

/* Address-ordered first fit of an aligned run: takes align - 1 pages more and trims. */
static uintptr_t alloc_pages_locked(pa_heap *h, size_t npages, size_t align_pages, size_t *scavenged_pages)
{
    size_t want = npages + align_pages - 1;
    uintptr_t run = pa_pagealloc_alloc(&h->pages, want, scavenged_pages);
    if (run == 0 && grow_locked(h, want))
        run = pa_pagealloc_alloc(&h->pages, want, scavenged_pages);
    if (run == 0 || align_pages == 1)
        return run;
    bool untouched = *scavenged_pages == want;
    uintptr_t base = pa_round_up(run, align_pages << PA_PAGE_SHIFT);
    size_t head = (base - run) >> PA_PAGE_SHIFT;
    free_run_locked(h, run, head, untouched);
    free_run_locked(h, base + (npages << PA_PAGE_SHIFT), want - head - npages, untouched);
    *scavenged_pages = untouched ? npages : 0;
    return base;
}

/* The lowest hole of min_pages, and as many of the pages behind it as are free, up to npages. */
static uintptr_t alloc_run_locked(pa_heap *h, size_t min_pages, size_t *npages, size_t *scavenged_pages)
{
    uintptr_t base = alloc_pages_locked(h, min_pages, 1, scavenged_pages);
    if (base == 0)
        return 0;
    size_t more_scavenged = 0, more = *npages - min_pages;
    while (more &&
           !pa_pagealloc_alloc_at(&h->pages, base + (min_pages << PA_PAGE_SHIFT), more, &more_scavenged))
        more -= min_pages;
    *npages = min_pages + more;
    *scavenged_pages += more ? more_scavenged : 0;
    return base;
}

static bool is_absurd(size_t npages)
{
    return npages > pa_space.limit_pages >> 1 || npages >= UINT32_MAX / 2;
}

/* The background thread is wanted and not there. */
static void want_thread_locked(pa_heap *h)
{
    pa_decay *d = &h->decay;
    if (d->notify_above_pages == 0 || d->refused || atomic_load_explicit(&d->background, memory_order_relaxed))
        return;
    d->notify_above_pages = 0;
    atomic_fetch_or_explicit(&d->notify_due, PA_DUE_IDLE, memory_order_release);
}

/* Much is in the hands of several threads, one of which may fall asleep with it: nothing need ever be free then. */
static void notice_held_locked(pa_heap *h)
{
    enum { CACHES = 2 };
    if (PA_UNLIKELY(h->decay.notify_above_pages &&
                    atomic_load_explicit(&h->inuse_pages, memory_order_relaxed) > h->decay.notify_above_pages &&
                    atomic_load_explicit(&h->idle.caches, memory_order_relaxed) >= CACHES))
        want_thread_locked(h);
}

void pa_mheap_notice_holes(pa_heap *h)
{
    pa_lock_acquire(&h->lock);
    want_thread_locked(h);
    pa_lock_release(&h->lock);
}

static pa_span *alloc_span_locked(pa_heap *h, size_t min_pages, size_t npages, size_t align_pages)
{
    size_t scavenged_pages = 0;
    notice_held_locked(h);
    pa_span *s = pa_fixalloc_alloc_locked(&h->span_headers, &h->offheap);
    if (!s)
        return NULL;
    uintptr_t base = min_pages < npages ? alloc_run_locked(h, min_pages, &npages, &scavenged_pages)
                                        : alloc_pages_locked(h, npages, align_pages, &scavenged_pages);
    if (!base) {
        pa_fixalloc_free_locked(&h->span_headers, s);
        return NULL;
    }
    note_taken_locked(h, npages, scavenged_pages);
    return publish(h, s, base, npages, scavenged_pages);
}

pa_span *pa_mheap_alloc_span(pa_heap *h, size_t npages, size_t align_pages)
{
    if (is_absurd(npages) || is_absurd(align_pages))
        return NULL;
    pa_lock_acquire(&h->lock);
    pa_span *s = alloc_span_locked(h, npages, npages, align_pages);
    uint64_t over_bytes = over_limit_locked(h);
    pa_lock_release(&h->lock);
    obey_limit(h, over_bytes);
    return s;
}

pa_span *pa_mheap_alloc_run(pa_heap *h, pa_page_stock *stock, size_t min_pages, size_t npages)
{
    PA_ASSERT(min_pages >= 1 && npages % min_pages == 0);
    pa_span *s = npages < PA_PAGE_CACHE_LIMIT_PAGES ? alloc_from_stock(h, stock, min_pages, npages) : NULL;
    if (s)
        return s;
    pa_lock_acquire(&h->lock);
    s = alloc_span_locked(h, min_pages, npages, 1);
    uint64_t over_bytes = over_limit_locked(h);
    pa_lock_release(&h->lock);
    obey_limit(h, over_bytes);
    return s;
}

/* Somebody wants to know when this much is free and backed, or anything to speak of near the limit. */
void pa_heap_notice_idle_locked(pa_heap *h)
{
    uint64_t above = h->decay.notify_above_pages, free_backed = h->pages.free_pages - h->pages.scavenged_pages;
    if (PA_LIKELY(above == 0 || free_backed <= above)) {
        bool limited = atomic_load_explicit(&h->release.limit_bytes, memory_order_relaxed) != 0;
        if (PA_LIKELY(above == 0 || !limited || h->decay.stuck) ||
            free_backed < PA_DECAY_LEAST_BYTES >> PA_PAGE_SHIFT || pa_limit_above_goal_locked(h) < PA_DECAY_LEAST_BYTES)
            return;
    }
    h->decay.notify_above_pages = 0;
    atomic_fetch_or_explicit(&h->decay.notify_due, PA_DUE_IDLE, memory_order_release);
}

/* Pages all of whose OS pages went back already are free and released; the others, free and backed. Nothing is out in
 * what the header names next. */
static void free_hollow_locked(pa_heap *h, pa_span *s)
{
    uintptr_t end = s->base + pa_span_bytes(s);
    for (uintptr_t from = s->base, to; from < end; from = to) {
        bool hollow = pa_span_is_page_hollow(s, from);
        for (to = from + PA_PAGE_BYTES; to < end && pa_span_is_page_hollow(s, to) == hollow;)
            to += PA_PAGE_BYTES;
        free_run_locked(h, from, (to - from) >> PA_PAGE_SHIFT, hollow);
    }
    pa_span_forget_out(h, s);
}

static void free_span_locked(pa_heap *h, pa_span *s)
{
    if (PA_UNLIKELY(s->kind == PA_KIND_EXPLICIT && s->size_class && pa_span_has_out(s)))
        free_hollow_locked(h, s);
    else
        pa_pagealloc_free(&h->pages, s->base, s->npages);
    pa_fixalloc_free_locked(&h->span_headers, s);
}

/* Takes a span out of every look-up; its pages and header may then be recycled. */
static void unpublish(pa_heap *h, pa_span *s)
{
    PA_ASSERT(pa_span_state_racy(s) != PA_SPAN_DEAD);
    PA_POISON(s->base, pa_span_bytes(s));
    atomic_store_explicit(&s->owner, NULL, memory_order_relaxed);
    s->tail = 0;
    pa_span_set_state(s, PA_SPAN_DEAD);
    pa_space_set(s, NULL);
    uint64_t inuse_pages = atomic_fetch_sub_explicit(&h->inuse_pages, s->npages, memory_order_relaxed) - s->npages;
    atomic_fetch_add_explicit(&h->spans_freed, 1, memory_order_relaxed);
    if (pa_trace_is_on())
        trace_span(h, PA_TRACE_SPAN_FREE, s->base, pa_span_bytes(s), inuse_pages);
}

void pa_mheap_free_span(pa_heap *h, pa_span *s)
{
    s->next = NULL;
    pa_mheap_free_span_list(h, s);
}

void pa_mheap_free_released_span(pa_heap *h, pa_span *s)
{
    size_t nbytes = pa_span_bytes(s);
    unpublish(h, s);
    pa_lock_acquire(&h->lock);
    pa_pagealloc_free_scavenged(&h->pages, s->base, s->npages);
    pa_fixalloc_free_locked(&h->span_headers, s);
    h->released_bytes_total += nbytes;
    pa_lock_release(&h->lock);
}

static void unpublish_list(pa_heap *h, pa_span *first)
{
    for (pa_span *s = first; s; s = s->next)
        unpublish(h, s);
}

static void free_span_list_locked(pa_heap *h, pa_span *first)
{
    for (pa_span *s = first, *next; s; s = next) {
        next = s->next;
        free_span_locked(h, s);
    }
    pa_heap_notice_idle_locked(h);
}

void pa_mheap_free_span_list(pa_heap *h, pa_span *first)
{
    if (!first)
        return;
    unpublish_list(h, first);
    pa_lock_acquire(&h->lock);
    free_span_list_locked(h, first);
    pa_lock_release(&h->lock);
}

pa_span *pa_mheap_trade(pa_heap *h, pa_page_stock *stock, pa_span *first, size_t npages, size_t align_pages)
{
    if (is_absurd(npages) || is_absurd(align_pages)) {
        pa_mheap_free_span_list(h, first);
        return NULL;
    }
    unpublish_list(h, first);
    pa_lock_acquire(&h->lock);
    if (first)
        free_span_list_locked(h, first);
    pa_span *s = alloc_span_locked(h, npages, npages, align_pages);
    refill_headers_locked(h, stock);
    uint64_t over_bytes = over_limit_locked(h);
    pa_lock_release(&h->lock);
    obey_limit(h, over_bytes);
    return s;
}

/* [end, end + more) where its pages reach beyond the last arena: takes what is left of that one, and a new arena
 * behind it if the OS has the place. */
static bool extend_by_arena_locked(pa_heap *h, uintptr_t end, size_t more, size_t *scavenged_pages)
{
    uintptr_t limit = h->last_arena->base + PA_ARENA_BYTES;
    if (end > limit || more <= (limit - end) >> PA_PAGE_SHIFT)
        return false;
    size_t left = (limit - end) >> PA_PAGE_SHIFT, left_scavenged = 0, rest_scavenged = 0;
    if (left && !pa_pagealloc_alloc_at(&h->pages, end, left, &left_scavenged))
        return false;
    if (grow_locked(h, more - left) && pa_pagealloc_alloc_at(&h->pages, limit, more - left, &rest_scavenged)) {
        *scavenged_pages = left_scavenged + rest_scavenged;
        return true;
    }
    free_run_locked(h, end, left, left_scavenged == left);
    return false;
}

bool pa_mheap_extend_span(pa_heap *h, pa_span *s, size_t npages)
{
    PA_ASSERT(s->size_class == 0 && npages > s->npages);
    size_t more = npages - s->npages, scavenged_pages = 0;
    if (npages >= UINT32_MAX / 2)
        return false;
    uintptr_t end = s->base + pa_span_bytes(s);
    pa_lock_acquire(&h->lock);
    bool ok = pa_pagealloc_alloc_at(&h->pages, end, more, &scavenged_pages) ||
              extend_by_arena_locked(h, end, more, &scavenged_pages);
    if (ok)
        note_taken_locked(h, more, scavenged_pages);
    uint64_t over_bytes = over_limit_locked(h);
    pa_lock_release(&h->lock);
    obey_limit(h, over_bytes);
    if (!ok)
        return false;
    pa_span added = {.base = end, .npages = (uint32_t)more};
    pa_space_set(&added, s);
    PA_UNPOISON(end, more << PA_PAGE_SHIFT);
    pa_span_set_npages(s, npages);
    s->limit = s->tail = s->base + pa_span_bytes(s);
    if (scavenged_pages != more || !pa_release_reads_zero(h, end, more << PA_PAGE_SHIFT))
        s->needs_zero = 1;
    uint64_t inuse_pages = count_inuse(h, more);
    if (pa_trace_is_on())
        trace_inuse(h, inuse_pages);
    return true;
}

void pa_mheap_shrink_span(pa_heap *h, pa_span *s, size_t npages)
{
    PA_ASSERT(s->size_class == 0 && npages >= 1 && npages < s->npages);
    size_t fewer = s->npages - npages;
    pa_span removed = {.base = s->base + (npages << PA_PAGE_SHIFT), .npages = (uint32_t)fewer};
    pa_span_set_npages(s, npages);
    s->limit = s->tail = removed.base;
    PA_POISON(removed.base, fewer << PA_PAGE_SHIFT);
    pa_space_set(&removed, NULL);
    uint64_t inuse_pages = atomic_fetch_sub_explicit(&h->inuse_pages, fewer, memory_order_relaxed) - fewer;
    if (pa_trace_is_on())
        trace_inuse(h, inuse_pages);
    pa_lock_acquire(&h->lock);
    pa_pagealloc_free(&h->pages, removed.base, fewer);
    pa_heap_notice_idle_locked(h);
    pa_lock_release(&h->lock);
}

void pa_mheap_flush_stock(pa_heap *h, pa_page_stock *stock)
{
    if (stock->cache.free == 0 && stock->header_count == 0)
        return;
    pa_lock_acquire(&h->lock);
    pa_pagecache_flush(&stock->cache, &h->pages);
    while (stock->header_count)
        pa_fixalloc_free_locked(&h->span_headers, stock->headers[--stock->header_count]);
    pa_lock_release(&h->lock);
}
