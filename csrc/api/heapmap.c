/* heapmap.c - every page of an arena: free, backed, in which span.
 *
 * Owns nothing.  Free or not is copied from the chunk bitmaps under mheap's lock, a chunk at a time (128
 * bytes); who has the other pages is read from the page table without it, so a span that comes or goes
 * meanwhile may show as what it was or will be.  A page that is neither free nor in a span lies in a thread's
 * page cache.  Which pages the kernel maps as huge ones is asked afterwards, a run at a time: a released page
 * among them is resident all the same.
 */
#include "heap/mheap.h"
#include "heap/walk.h"
#include "include/pyalloc.h"
#include "sys/vm.h"
#include "world/proc.h"

static const pa_arena *arena_at(int index)
{
    if (index < 0)
        return NULL;
    const pa_arena *a = __atomic_load_n(&pa_the_heap.arenas, __ATOMIC_ACQUIRE);
    for (; a && index > 0; index--)
        a = __atomic_load_n(&a->next, __ATOMIC_ACQUIRE);
    return a;
}

PA_EXPORT uintptr_t pa_arena_address(int index)
{
    const pa_arena *a = arena_at(index);
    return a ? a->base : 0;
}

static pa_chunk copy_chunk(uintptr_t base)
{
    pa_heap *h = &pa_the_heap;
    pa_lock_acquire(&h->lock);
    pa_chunk copy = h->pages.chunks[pa_page_index(&h->pages, base) / PA_CHUNK_PAGES];
    pa_lock_release(&h->lock);
    return copy;
}

static pa_page_info page_of_span(const pa_span_view *v, uintptr_t at)
{
    pa_page_info page = {.size_class = (uint8_t)v->size_class, .first = at == v->base, .live = v->live, .capacity = 1};
    page.state = v->state == PA_SPAN_MANUAL    ? PA_PAGE_EXPLICIT
                 : v->state == PA_SPAN_MANAGED ? PA_PAGE_MANAGED
                 : v->state == PA_SPAN_CACHED  ? PA_PAGE_CACHED
                                               : PA_PAGE_STOCK; /* in flux */
    if (v->size_class)
        page.capacity = (uint32_t)((v->npages << PA_PAGE_SHIFT) / pa_class_object_bytes[v->size_class]);
    return page;
}

static pa_page_info page_at(const pa_chunk *chunk, size_t i, uintptr_t at)
{
    if (!(chunk->alloc[i / 64] >> i % 64 & 1)) {
        bool released = chunk->scavenged[i / 64] >> i % 64 & 1;
        return (pa_page_info){.state = released ? PA_PAGE_RELEASED : PA_PAGE_FREE};
    }
    pa_span *s = pa_span_of((void *)at);
    if (!s)
        return (pa_page_info){.state = PA_PAGE_STOCK};
    pa_span_view v = pa_span_look(s);
    return page_of_span(&v, at);
}

static void mark_huge(uintptr_t base, pa_page_info *out, size_t n)
{
    uintptr_t end = base + (n << PA_PAGE_SHIFT), from, to;
    for (uintptr_t at = base; pa_vm_next_huge(at, end, &from, &to) && to > at; at = to)
        for (size_t i = (from - base) >> PA_PAGE_SHIFT; i < (to - base) >> PA_PAGE_SHIFT && i < n; i++)
            out[i].huge = 1;
}

PA_EXPORT size_t pa_read_arena_map(int index, pa_page_info *out, size_t capacity)
{
    const pa_arena *a = arena_at(index);
    if (!a)
        return 0;
    size_t n = capacity < PA_ARENA_PAGES ? capacity : PA_ARENA_PAGES;
    pa_chunk chunk = {{0}, {0}};
    for (size_t i = 0; i < n; i++) {
        uintptr_t at = a->base + (i << PA_PAGE_SHIFT);
        if (i % PA_CHUNK_PAGES == 0)
            chunk = copy_chunk(at);
        out[i] = page_at(&chunk, i % PA_CHUNK_PAGES, at);
    }
    mark_huge(a->base, out, n);
    return n;
}
