/* walk.c - reads the page table of every arena, span by span.
 *
 * Owns nothing, takes no lock.  Arenas are only ever added and span headers are type-stable, so a reader
 * can at worst see a span that is being recycled: it then believes the page table, goes on by one page, and
 * never leaves the arena.
 */
#include "heap/walk.h"

#include "heap/mcache.h"

static uint32_t live_without_bias(const pa_span *s, unsigned size_class)
{
    uint32_t live = pa_racy_load(&s->live);
    pa_mcache *owner = atomic_load_explicit(&((pa_span *)(uintptr_t)s)->owner, memory_order_relaxed);
    if (owner && size_class && live && pa_racy_load(&owner->current[size_class]) == s)
        live--;
    return live;
}

void pa_heap_walk(pa_heap *h, bool (*visit)(void *context, const pa_span_view *view), void *context)
{
    for (pa_arena *a = __atomic_load_n(&h->arenas, __ATOMIC_ACQUIRE); a;
         a = __atomic_load_n(&a->next, __ATOMIC_ACQUIRE)) {
        pa_span **table = &pa_space.table[(a->base - pa_space.base) >> PA_PAGE_SHIFT];
        for (size_t i = 0; i < PA_ARENA_PAGES;) {
            pa_span *s = __atomic_load_n(&table[i], __ATOMIC_ACQUIRE);
            if (!s) {
                i++;
                continue;
            }
            pa_span_view v = {.span = s, .base = pa_racy_load(&s->base), .npages = pa_racy_load(&s->npages)};
            uintptr_t here = a->base + (i << PA_PAGE_SHIFT);
            if (v.base != here ||
                v.npages == 0) { /* tail of a span that began in an earlier arena, or in flux */
                i++;
                continue;
            }
            v.state = pa_span_state_racy(s);
            v.size_class = pa_racy_load(&s->size_class);
            v.kind = pa_racy_load(&s->kind);
            v.live = v.state == PA_SPAN_MANUAL    ? live_without_bias(s, v.size_class)
                     : v.state == PA_SPAN_MANAGED ? pa_racy_load(&s->alloc_count)
                                                  : 0;
            if (v.state != PA_SPAN_DEAD && !visit(context, &v))
                return;
            i += v.npages;
        }
    }
}
