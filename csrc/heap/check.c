/* check.c - walks everything and names the first broken invariant.
 *
 * Owns nothing.  Exact only while the heap is quiet: called by tests, by pa_heap_check and by checked builds.
 * The invariants are those that the essays of span.h, remote.h, mcache.c, mcentral.c and mheap.c state.
 */
#include "heap/check.h"

#include "base/poison.h"
#include "heap/gcside.h"
#include "heap/hollow.h"
#include "heap/mcache.h"
#include "heap/remote.h"
#include "heap/walk.h"

typedef struct checker {
    const char *broken;
    uint64_t inuse_pages, hollow_bytes;
} checker;

/* Length of a block list whose blocks must be carved elements of s; UINT32_MAX when they are not. */
static uint32_t checked_length(const pa_span *s, uintptr_t first, uint32_t max)
{
    uint32_t n = 0;
    for (uintptr_t b = first; b; b = (uintptr_t)pa_link_get((void *)b)) {
        if (b < s->base || !pa_span_is_block(s, (void *)b) || n++ >= max)
            return UINT32_MAX;
    }
    return n;
}

static bool has_out_block(const pa_span *s, uintptr_t first)
{
    for (uintptr_t b = first; b; b = (uintptr_t)pa_link_get((void *)b))
        if (pa_span_is_out(s, b))
            return true;
    return false;
}

/* Pages that are out, given lists that are in order. */
static const char *check_out(const pa_span *s, uintptr_t remote)
{
    if (!pa_span_has_out(s))
        return NULL;
    if (s->aside & s->hollow)
        return "span: a page is both aside and hollow";
    if (!pa_span_holds_out(s))
        return "span: a page that is out is not carved";
    if (has_out_block(s, (uintptr_t)s->free) || has_out_block(s, remote))
        return "span: a block of a page that is out is on a list";
    return NULL;
}

static const char *check_explicit_small(const pa_span *s, uint32_t live)
{
    size_t size = pa_class_object_bytes[s->size_class], room = pa_span_bytes(s) / size * size;
    bool sampled = s->limit - s->base == size && !s->free; /* heap/sampling.h: one block, perhaps on its way home */
    if (s->limit - s->base != room && !sampled)
        return "span: limit is not the end of the last element";
    if (atomic_load(&((pa_span *)(uintptr_t)s)->sample) && (!sampled || s->magic))
        return "span: a sampled block is not alone, or its free would be taken for another's";
    if (s->tail < s->base || s->tail > s->limit)
        return "span: tail outside the span";
    uint32_t carved = (uint32_t)((s->tail - s->base) / size);
    uint32_t free_count = checked_length(s, (uintptr_t)s->free, carved);
    if (free_count == UINT32_MAX)
        return "span: free list leaves the span, holds a non-element or loops";
    uintptr_t remote = atomic_load_explicit(&((pa_span *)(uintptr_t)s)->remote, memory_order_relaxed);
    if (checked_length(s, remote & ~PA_REMOTE_UNOWNED, carved) == UINT32_MAX)
        return "span: remote list leaves the span, holds a non-element or loops";
    const char *broken = check_out(s, remote & ~PA_REMOTE_UNOWNED);
    if (broken)
        return broken;
    if (live + free_count + pa_span_count_out(s) != carved) /* remote ones live until collected, out ones free */
        return "span: live + free != carved";
    pa_mcache *owner = atomic_load_explicit(&((pa_span *)(uintptr_t)s)->owner, memory_order_relaxed);
    bool unowned_bit = remote & PA_REMOTE_UNOWNED;
    if (owner && (unowned_bit || s->listed))
        return "span: owned, but marked abandoned or listed";
    if (!owner && unowned_bit == (bool)s->listed)
        return "span: without owner, neither abandoned nor listed";
    if (unowned_bit && (s->free || s->tail != s->limit || pa_span_has_out(s)))
        return "span: abandoned, but not full";
    return NULL;
}

/* Slots handed out or in the window: those before free_idx, and the allocation bits from there on. */
static const char *check_managed(const pa_span *s, const pa_span_view *v)
{
    pa_gcside *side = pa_gcside_of(v->base);
    if (!side || !pa_gcside_of(v->base + pa_span_bytes(s) - 1))
        return "managed span: no side table";
    for (size_t i = 0; i < v->npages; i++) {
        uintptr_t at = v->base + (i << PA_PAGE_SHIFT);
        uint32_t info = atomic_load(&pa_gcside_page(pa_gcside_of(at), at)->info);
        if (info != pa_info_of(v->size_class, s->kind, i))
            return "managed span: page table disagrees with the header";
    }
    if (s->kind == PA_KIND_EXPLICIT || s->nelems == 0 || s->free_idx > s->nelems || s->alloc_count > s->nelems)
        return "managed span: kind, element count or free index out of range";
    uint32_t n = s->free_idx;
    for (uint32_t i = s->free_idx; i < s->nelems; i++)
        n += s->alloc_bits[i / 64] >> i % 64 & 1;
    if (s->size_class && n != s->alloc_count)
        return "managed span: alloc_count disagrees with free index and allocation bits";
    if (s->size_class && (pa_span_window_slots(s) > PA_WINDOW_MOST_SLOTS || pa_span_window_slots(s) > s->free_idx))
        return "managed span: window longer than a group";
    if (s->alloc_bits == s->mark_bits || pa_racy_load(&s->sweepgen) == 0)
        return "managed span: bitmaps or sweepgen";
    return NULL;
}

static bool check_span(void *context, const pa_span_view *v)
{
    checker *k = context;
    const pa_span *s = v->span;
    k->inuse_pages += v->npages;
    for (size_t i = 0; i < v->npages && !k->broken; i++)
        if (pa_span_of((void *)(v->base + (i << PA_PAGE_SHIFT))) != s)
            k->broken = "page table: a page of a span does not point at it";
    if (k->broken)
        return false;
    if (v->size_class >= PA_SIZE_CLASSES)
        k->broken = "span: class out of range";
    else if (v->state == PA_SPAN_MANUAL && v->size_class) {
        k->broken = check_explicit_small(s, v->live);
        k->hollow_bytes += pa_span_hollow_bytes(s);
    }
    else if (v->state == PA_SPAN_MANUAL &&
             (v->live != 1 || s->limit != v->base + pa_span_bytes(s) || s->tail != s->limit))
        k->broken = "span: a large one in use must hold one element";
    else if (v->state == PA_SPAN_MANAGED)
        k->broken = check_managed(s, v);
    else if (pa_span_has_out(s))
        k->broken = "span: a large or cached one has a page that is out";
    else if (v->state == PA_SPAN_CACHED && (s->size_class || atomic_load(&s->owner)))
        k->broken = "span: cached, but of a small class or owned: frees into it would pass";
    return k->broken == NULL;
}

static const char *check_centrals(pa_heap *h)
{
    uint32_t explicit_spans = 0;
    for (unsigned kind = 0; kind < PA_SPAN_KINDS; kind++) {
        for (unsigned c = 0; c < PA_SIZE_CLASSES; c++) {
            pa_mcentral *m = &h->central[kind][c];
            uint32_t n = 0;
            for (pa_span *s = m->nonempty.first; s; s = s->next, n++) {
                if (s->size_class != c || s->kind != kind)
                    return "mcentral: a span of another class or kind on the list";
                if (!s->listed || atomic_load_explicit(&s->owner, memory_order_relaxed))
                    return "mcentral: a listed span has an owner";
                if (s->next ? s->next->prev != s : m->nonempty.last != s)
                    return "mcentral: list links disagree";
            }
            if (n != m->nonempty_count)
                return "mcentral: count of listed spans is wrong";
            explicit_spans += kind == PA_KIND_EXPLICIT ? n : 0;
        }
    }
    if (explicit_spans != atomic_load_explicit(&h->listed_explicit, memory_order_relaxed))
        return "mcentral: count of spans on all lists is wrong";
    return NULL;
}

static const char *check_leavings(pa_heap *h)
{
    const pa_leavings *l = &h->leavings;
    uint32_t all = 0;
    for (unsigned k = 0; k < PA_SIZE_CLASSES; k++) {
        uint32_t n = 0;
        const pa_spanlist *lists[] = {&l->fresh[k], &l->seen[k]};
        for (int i = 0; i < 2; i++)
            for (pa_span *s = lists[i]->first; s; s = s->next, n++)
                if (s->size_class != k || !s->listed || atomic_load_explicit(&s->owner, memory_order_relaxed))
                    return "leavings: a span of another class, owned, or not marked as listed";
        if (n != l->count_of[k])
            return "leavings: count of a class is wrong";
        all += n;
    }
    return all == l->count ? NULL : "leavings: count of all is wrong";
}

const char *pa_mcache_find_broken(pa_mcache *c)
{
    for (unsigned k = 1; k < PA_SIZE_CLASSES; k++) {
        pa_span *s = c->current[k];
        if (s != PA_EMPTY_SPAN && (s->size_class != k || atomic_load(&s->owner) != c || s->live == 0))
            return "mcache: current span of another class or owner, or without its bias";
        for (pa_span *t = c->partial[k].first; t; t = t->next)
            if (t->size_class != k || atomic_load(&t->owner) != c || t->live == 0 || t == s)
                return "mcache: partial span of another class or owner, empty, or current";
    }
    for (size_t i = 0; i < PA_DIRECT_COUNT - 1; i++)
        if (c->direct[i] != (c->sampling ? PA_EMPTY_SPAN : c->current[pa_class_of_size(i * 8)]))
            return "mcache: direct table disagrees with current spans";
    uint32_t pages = 0;
    for (unsigned i = 0; i < PA_BIN_COUNT; i++) {
        for (pa_span *s = c->bin[i]; s; s = s->next) {
            if (pa_span_state_racy(s) != PA_SPAN_CACHED || pa_bin_of(s->npages) != i)
                return "mcache: a bin holds a span that is not cached or of another bin";
            pages += s->npages;
        }
    }
    return (int32_t)pages == c->bin_cap_pages - c->bin_room_pages ? NULL
                                                                  : "mcache: count of binned pages is wrong";
}

const char *pa_heap_find_broken(pa_heap *h)
{
    if (!h->initialised)
        return NULL;
    checker k = {0};
    pa_heap_walk(h, check_span, &k);
    if (!k.broken && k.inuse_pages != atomic_load(&h->inuse_pages))
        k.broken = "mheap: pages in spans are miscounted";
    if (!k.broken && k.hollow_bytes != atomic_load(&h->hollow_bytes))
        k.broken = "mheap: hollow pages are miscounted";
    if (!k.broken)
        k.broken = check_centrals(h);
    if (!k.broken)
        k.broken = check_leavings(h);
    if (!k.broken) {
        pa_lock_acquire(&h->lock);
        if (!pa_pagealloc_check(&h->pages, &k.broken) && !k.broken)
            k.broken = "pages: unnamed";
        pa_lock_release(&h->lock);
    }
    return k.broken;
}
