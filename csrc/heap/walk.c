/* walk.c - reads the page table of every arena, span by span.
 *
 * Owns nothing, takes no lock.  Arenas are only ever added and span headers are type-stable, so a reader
 * can at worst see a span that is being recycled: it then believes the page table, goes on by one page, and
 * never leaves the arena.
 *
 * A walk is bound by cache misses: a span's header says where the next one begins, so each miss would wait
 * for the one before.  The headers of spans further on are therefore asked for early, at the pages where
 * spans of up to PREFETCH_PAGES begin.  Pages of no span are skipped a cache line of the table at a time.
 */
#include "heap/walk.h"

#include "heap/mcache.h"

enum { PREFETCH_PAGES = 32, LINE_ENTRIES = PA_CACHE_LINE_BYTES / sizeof(pa_span *) };

static uint32_t live_without_bias(const pa_span *s, unsigned size_class)
{
    uint32_t live = pa_racy_load(&s->live);
    pa_mcache *owner = atomic_load_explicit(&((pa_span *)(uintptr_t)s)->owner, memory_order_acquire);
    if (owner && size_class && live && pa_racy_load(&owner->current[size_class]) == s)
        live--;
    return live;
}

/* First page from i on that may be in a span; a multiple of a line's entries, or i. */
static size_t skip_free_lines(pa_span **table, size_t i)
{
    while (i % LINE_ENTRIES == 0 && i < PA_ARENA_PAGES) {
        uintptr_t any = 0;
        for (size_t k = 0; k < LINE_ENTRIES; k++)
            any |= (uintptr_t)__atomic_load_n(&table[i + k], __ATOMIC_RELAXED);
        if (any)
            break;
        i += LINE_ENTRIES;
    }
    return i;
}

static void prefetch(pa_span **table, size_t i)
{
    if (i >= PA_ARENA_PAGES)
        return;
    const char *header = (const char *)__atomic_load_n(&table[i], __ATOMIC_RELAXED);
    for (size_t at = 0; at < sizeof(pa_span); at += PA_CACHE_LINE_BYTES)
        __builtin_prefetch(header + at); /* of NULL: does nothing */
}

pa_span_view pa_span_look(pa_span *s)
{
    pa_span_view v = {.span = s, .base = pa_racy_load(&s->base), .npages = pa_racy_load(&s->npages)};
    v.state = pa_span_state_racy(s);
    v.size_class = pa_racy_load(&s->size_class);
    v.kind = pa_racy_load(&s->kind);
    v.live = v.state == PA_SPAN_MANUAL    ? live_without_bias(s, v.size_class)
             : v.state == PA_SPAN_MANAGED ? pa_span_handed_out_count(s)
                                          : 0;
    return v;
}

static bool walk_arena(const pa_arena *a, bool (*visit)(void *context, const pa_span_view *view), void *context)
{
    pa_span **table = &pa_space.table[(a->base - pa_space.base) >> PA_PAGE_SHIFT];
    for (size_t i = 0; i < PA_ARENA_PAGES;) {
        pa_span *s = __atomic_load_n(&table[i], __ATOMIC_ACQUIRE);
        if (!s) {
            i = skip_free_lines(table, i + 1);
            continue;
        }
        prefetch(table, i + PREFETCH_PAGES);
        pa_span_view v = pa_span_look(s);
        if (v.base != a->base + (i << PA_PAGE_SHIFT) || v.npages == 0) {
            i++; /* tail of a span that began in an earlier arena, or in flux */
            continue;
        }
        if (v.state != PA_SPAN_DEAD && !visit(context, &v))
            return false;
        i += v.npages;
    }
    return true;
}

void pa_heap_walk(pa_heap *h, bool (*visit)(void *context, const pa_span_view *view), void *context)
{
    for (pa_arena *a = __atomic_load_n(&h->arenas, __ATOMIC_ACQUIRE); a;
         a = __atomic_load_n(&a->next, __ATOMIC_ACQUIRE))
        if (!walk_arena(a, visit, context))
            return;
}
