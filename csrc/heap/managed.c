/* managed.c - the life of managed spans.
 *
 * Locks: an mcentral's for its two lists; mheap's inside pa_mheap_*.  Who has a span (its P, or its sweeper by
 * the claim of managed.h) writes its fields without a lock.
 *
 * Invariants: a listed span's sweepgen is g (swept), g - 2 or g - 1; `nonempty` spans that are swept have a free
 * slot; alloc_count == slots before free_idx + allocation bits from free_idx on; every managed span has its
 * page info set and nothing else has.
 *
 * Go: runtime/mcentral.go (cacheSpan, uncacheSpan, freeSpan; the two-list form of Go 1.4-1.14), mgcsweep.go.
 */
#include "heap/managed.h"

#include "base/poison.h"
#include "base/yield.h"
#include "heap/special.h"

/* How many `empty` spans a refill may sweep in vain before it asks for new pages (Go: spanBudget). */
enum { SWEEP_TRIES = 100 };

/* ---- Making and unmaking ---- */

static bool ensure_side(pa_heap *h, const pa_span *s)
{
    uintptr_t last = s->base + pa_span_bytes(s) - 1;
    if (PA_LIKELY(pa_gcside_is_managed(s->base) && pa_gcside_is_managed(last) && last - s->base < PA_ARENA_BYTES))
        return true;
    pa_lock_acquire(&h->lock);
    bool ok = pa_gcside_ensure_locked(h, s->base, pa_span_bytes(s), true);
    pa_lock_release(&h->lock);
    return ok;
}

static void set_page_info(const pa_span *s, bool in_use)
{
    for (size_t i = 0; i < s->npages; i++) {
        uintptr_t at = s->base + (i << PA_PAGE_SHIFT);
        uint32_t info = in_use ? pa_info_of(s->size_class, s->kind, i) : 0;
        atomic_store_explicit(&pa_gcside_page(pa_gcside_of(at), at)->info, info, memory_order_release);
    }
}

static void count_pages(pa_heap *h, const pa_span *s, bool add)
{
    uint64_t n = add ? s->npages : -(uint64_t)s->npages;
    atomic_fetch_add_explicit(&h->managed_pages, n, memory_order_relaxed);
    if (s->kind == PA_KIND_CONSERVATIVE)
        atomic_fetch_add_explicit(&h->conservative_pages, n, memory_order_relaxed);
}

/* Word by word: a marker that was given a stale pointer may look on. */
static void clear_bits(uint64_t *bits, size_t n)
{
    for (size_t i = 0; i < pa_div_ceil(n, 64); i++)
        pa_owner_set(&bits[i], 0);
}

/* Turns a span fresh from mheap into a managed one; gives it back when its side table cannot be had. */
static pa_span *format(pa_heap *h, pa_span *s, unsigned kind, unsigned size_class)
{
    if (!s)
        return NULL;
    if (!ensure_side(h, s)) {
        pa_mheap_free_span(h, s);
        return NULL;
    }
    pa_gcside_advise(s->base, pa_span_bytes(s), h->arenas->base);
    uint32_t sweepgen = atomic_load_explicit(&h->sweepgen, memory_order_relaxed);
    pa_gcside *side = pa_gcside_of(s->base);
    pa_owner_set(&s->size_class, (uint8_t)size_class);
    pa_owner_set(&s->kind, (uint8_t)kind);
    s->nelems = size_class ? pa_class_shapes[size_class].objects : 1;
    s->magic = size_class ? pa_class_magic[size_class] : 1;
    s->limit = size_class ? s->base + (size_t)s->nelems * pa_class_object_bytes[size_class]
                          : s->base + pa_span_bytes(s);
    pa_owner_set(&s->tail, s->limit);
    pa_owner_set(&s->alloc_count, 0);
    pa_owner_set(&s->count_at_refill, 0);
    pa_owner_set(&s->free_idx, 0);
    pa_span_set_window(s, s->base, s->base);
    s->specials = NULL;
    pa_owner_set(&s->alloc_bits, pa_gcside_bits(side, pa_alloc_plane(sweepgen), size_class, s->base));
    s->mark_bits = pa_gcside_bits(side, pa_mark_plane(sweepgen), size_class, s->base);
    clear_bits(s->alloc_bits, s->nelems);
    clear_bits(s->mark_bits, s->nelems);
    /* A conservative look-up that meets the new sweepgen sees bits and bump of this life, not of the last. */
    __atomic_store_n(&s->sweepgen, sweepgen, __ATOMIC_RELEASE);
    pa_span_set_state(s, PA_SPAN_MANAGED);
    count_pages(h, s, true);
    pa_gcside_set_layout(s, PA_LAYOUT_UNSET);
    set_page_info(s, true);
    return s;
}

static void unformat(pa_heap *h, pa_span *s)
{
    PA_ASSERT(s->specials == NULL && s->listed == PA_UNLISTED);
    set_page_info(s, false);
    count_pages(h, s, false);
    pa_span_set_window(s, 0, 0);
    __atomic_store_n(&s->sweepgen, 0, __ATOMIC_RELAXED);
}

void pa_managed_free_dead(pa_heap *h, pa_span *dead)
{
    for (pa_span *s = dead; s; s = s->next)
        unformat(h, s);
    pa_mheap_free_span_list(h, dead);
}

pa_span *pa_managed_take_large(pa_heap *h, size_t nbytes)
{
    size_t npages = pa_div_ceil(nbytes, PA_PAGE_BYTES);
    if (nbytes > PTRDIFF_MAX || npages > PA_MANAGED_MAX_PAGES)
        return NULL;
    pa_span *s = pa_mheap_alloc_span(h, npages, 1);
    if (s)
        pa_span_format_large(s);
    return s;
}

pa_span *pa_managed_make_large(pa_heap *h, pa_span *s, unsigned kind)
{
    if (!format(h, s, kind, 0))
        return NULL;
    pa_owner_set(&s->alloc_count, 1);
    pa_owner_set(&s->count_at_refill, 1);
    pa_owner_set(&s->free_idx, 1);
    return s;
}

/* ---- Sweeping ---- */

/* Slots of word i that objects were handed out from. */
static uint64_t handed_out(const pa_span *s, size_t i)
{
    size_t before = s->free_idx > i * 64 ? s->free_idx - i * 64 : 0;
    return s->alloc_bits[i] | pa_mask64(before < 64 ? (unsigned)before : 64);
}

static uint32_t count_marked(const pa_span *s)
{
    uint32_t n = 0;
    for (size_t i = 0; i < pa_div_ceil(s->nelems, 64); i++) {
        uint64_t marks = pa_racy_load(&s->mark_bits[i]);
        PA_CHECK((marks & ~handed_out(s, i)) == 0); /* a free slot was marked: somebody kept a wild pointer */
        n += pa_popcount64(marks);
    }
    return n;
}

/* What is not marked is free from now on. */
static void poison_dead(const pa_span *s)
{
    for (uint32_t i = 0; PA_ASAN && i < s->nelems; i++)
        if (!(pa_racy_load(&s->mark_bits[i / 64]) >> i % 64 & 1))
            PA_POISON(s->base + i * pa_span_element_bytes(s), pa_span_element_bytes(s));
}

static uint64_t freed_bytes_of(const pa_span *s, const pa_sweep_outcome *out)
{
    return (uint64_t)out->freed * pa_span_element_bytes(s);
}

pa_sweep_outcome pa_managed_sweep(pa_heap *h, pa_span *s)
{
    PA_YIELD(GC_SWEEP_SPAN);
    if (PA_UNLIKELY(pa_special_any(s)))
        pa_special_sweep(h, s);
    PA_YIELD(GC_SWEEP_SPECIALS);
    pa_sweep_outcome out = {.marked = count_marked(s)};
    out.freed = s->alloc_count - out.marked;
    poison_dead(s);
    uint64_t *old = s->alloc_bits;
    pa_owner_set(&s->alloc_bits, s->mark_bits);
    s->mark_bits = old;
    clear_bits(old, s->nelems);
    pa_owner_set(&s->alloc_count, out.marked);
    pa_owner_set(&s->count_at_refill, (uint16_t)out.marked);
    if (out.freed) {
        atomic_fetch_add_explicit(&h->managed_freed_objects[s->size_class], out.freed, memory_order_relaxed);
        atomic_fetch_add_explicit(&h->managed_freed_bytes, freed_bytes_of(s, &out), memory_order_relaxed);
    }
    if (s->size_class) {
        pa_owner_set(&s->free_idx, 0);
        pa_span_set_window(s, s->base, s->base);
    }
    s->needs_zero = 1;
    return out;
}

static void unlist_locked(pa_mcentral *m, pa_span *s)
{
    if (s->listed == PA_ON_NONEMPTY) {
        pa_spanlist_remove(&m->nonempty, s);
        pa_owner_add(&m->nonempty_count, -1);
    } else if (s->listed == PA_ON_EMPTY) {
        if (m->unswept == s)
            m->unswept = s->next;
        pa_spanlist_remove(&m->empty, s);
    }
    pa_owner_set(&s->listed, PA_UNLISTED);
}

static void list_locked(pa_mcentral *m, pa_span *s)
{
    if (s->alloc_count < s->nelems) {
        pa_spanlist_push_back(&m->nonempty, s);
        pa_owner_add(&m->nonempty_count, 1);
        pa_owner_set(&s->listed, PA_ON_NONEMPTY);
    } else {
        pa_spanlist_push_back(&m->empty, s);
        pa_owner_set(&s->listed, PA_ON_EMPTY);
    }
}

static pa_mcentral *central_of(pa_heap *h, const pa_span *s)
{
    return &h->central[s->kind][s->size_class];
}

static void set_swept(pa_span *s, uint32_t sweepgen)
{
    __atomic_store_n(&s->sweepgen, sweepgen, __ATOMIC_RELEASE);
}

uint64_t pa_managed_sweep_and_file(pa_heap *h, pa_span *s, uint32_t sweepgen, pa_span **dead)
{
    pa_sweep_outcome out = pa_managed_sweep(h, s);
    uint64_t freed_bytes = freed_bytes_of(s, &out);
    pa_mcentral *m = central_of(h, s);
    if (s->size_class && (out.marked == 0 || out.freed)) {
        pa_lock_acquire(&m->lock);
        unlist_locked(m, s);
        if (out.marked) {
            list_locked(m, s);
            set_swept(s, sweepgen);
        }
        pa_lock_release(&m->lock);
    } else if (out.marked) {
        set_swept(s, sweepgen);
    }
    if (out.marked == 0) {
        s->next = *dead;
        *dead = s;
    }
    return freed_bytes;
}

/* ---- To a P and back ---- */

/* First `nonempty` span that is swept or that we can claim; taken off the list. */
static pa_span *take_nonempty_locked(pa_mcentral *m, uint32_t sweepgen, bool *claimed)
{
    for (pa_span *s = m->nonempty.first; s; s = s->next) {
        *claimed = pa_managed_claim_sweep(s, sweepgen);
        if (*claimed || __atomic_load_n(&s->sweepgen, __ATOMIC_ACQUIRE) == sweepgen) {
            unlist_locked(m, s);
            return s;
        }
    }
    return NULL;
}

/* First `empty` span that we can claim. A sweep looks at each once: most of the others were swept in place, and stay
 * where they are. What is pushed to the end meanwhile is swept. */
static pa_span *take_unswept_locked(pa_mcentral *m, uint32_t sweepgen, bool *claimed)
{
    if (m->unswept_gen != sweepgen) {
        m->unswept_gen = sweepgen;
        m->unswept = m->empty.first;
    }
    for (int tries = SWEEP_TRIES; tries > 0 && m->unswept; tries--) {
        pa_span *s = m->unswept;
        m->unswept = s->next;
        *claimed = pa_managed_claim_sweep(s, sweepgen);
        if (*claimed) {
            unlist_locked(m, s);
            return s;
        }
    }
    return NULL;
}

static pa_span *find_in_central(pa_heap *h, pa_mcentral *m, uint32_t sweepgen, uint64_t *freed_bytes)
{
    bool sweeping = atomic_load_explicit(&h->sweeping, memory_order_relaxed);
    for (int tries = SWEEP_TRIES; tries > 0; tries--) {
        if (pa_racy_load(&m->nonempty_count) == 0 && !sweeping) /* nothing there costs no lock */
            return NULL;
        bool claimed = false;
        pa_lock_acquire(&m->lock);
        pa_span *s = take_nonempty_locked(m, sweepgen, &claimed);
        if (!s && sweeping)
            s = take_unswept_locked(m, sweepgen, &claimed);
        pa_lock_release(&m->lock);
        if (!s)
            return NULL;
        if (claimed) {
            pa_sweep_outcome out = pa_managed_sweep(h, s);
            *freed_bytes += freed_bytes_of(s, &out);
            set_swept(s, sweepgen);
        }
        if (s->alloc_count == 0 && s->layout != PA_LAYOUT_UNSET)
            pa_gcside_set_layout(s, PA_LAYOUT_UNSET);
        if (s->alloc_count < s->nelems)
            return s;
        pa_managed_uncache_span(h, s);
    }
    return NULL;
}

pa_span *pa_managed_cache_span(pa_heap *h, pa_page_stock *stock, unsigned kind, unsigned size_class,
                               uint64_t *freed_bytes)
{
    uint32_t sweepgen = atomic_load_explicit(&h->sweepgen, memory_order_relaxed);
    pa_span *s = find_in_central(h, &h->central[kind][size_class], sweepgen, freed_bytes);
    if (s)
        return s;
    size_t npages = pa_class_span_pages[size_class];
    return format(h, pa_mheap_alloc_run(h, stock, npages, npages), kind, size_class);
}

void pa_managed_uncache_span(pa_heap *h, pa_span *s)
{
    pa_mcentral *m = central_of(h, s);
    pa_lock_acquire(&m->lock);
    list_locked(m, s);
    pa_lock_release(&m->lock);
}

/* ---- Black allocation ---- */

/* The free slots of the group that free_idx - 1 lies in, from bump on, as bits of their word: what is left of the
 * window, and alloc_cache, which is of the next group when free_idx begins one. */
static uint64_t slots_ahead(const pa_span *s)
{
    uint32_t end = s->free_idx, left = pa_span_window_slots(s), first = pa_round_down(end - 1, 64);
    uint64_t bits = pa_mask64(left) << (end - left) % 64;
    if (end % 64)
        bits |= s->alloc_cache << end % 64;
    return s->nelems - first < 64 ? bits & pa_mask64(s->nelems - first) : bits;
}

void pa_managed_mark_ahead(pa_span *s)
{
    if (s->free_idx == 0)
        return;
    uint64_t *word = &s->mark_bits[(s->free_idx - 1) / 64], bits = slots_ahead(s);
    if (bits & ~__atomic_load_n(word, __ATOMIC_RELAXED))
        __atomic_fetch_or(word, bits, __ATOMIC_RELAXED);
}

void pa_managed_unmark_ahead(pa_span *s)
{
    if (s->free_idx)
        __atomic_fetch_and(&s->mark_bits[(s->free_idx - 1) / 64], ~slots_ahead(s), __ATOMIC_RELAXED);
}

/* ---- Walking ---- */

void pa_managed_walk(uintptr_t from, uintptr_t to, void (*visit)(void *context, pa_span *s), void *context)
{
    for (uintptr_t at = from; at < to;) {
        pa_gcside *side = pa_gcside_of(at);
        if (!side) {
            at = pa_round_down(at, PA_ARENA_BYTES) + PA_ARENA_BYTES;
            continue;
        }
        uint32_t info = atomic_load_explicit(&pa_gcside_page(side, at)->info, memory_order_acquire);
        pa_span *s = info ? pa_span_of((void *)at) : NULL;
        if (!s || pa_info_offset_pages(info) || pa_span_state_racy(s) != PA_SPAN_MANAGED ||
            pa_racy_load(&s->base) != at) {
            at += PA_PAGE_BYTES;
            continue;
        }
        uint32_t npages = pa_racy_load(&s->npages);
        visit(context, s);
        at += (uintptr_t)(npages ? npages : 1) << PA_PAGE_SHIFT;
    }
}
