/* gcside.c - mapping side tables.
 *
 * Owns pa_space.sides, the table from arena to side table: reserved whole with the first side table (16 MiB of
 * address space for a window of 47 bits), an entry's OS page made writable when its arena gets one.  Written
 * under mheap's lock, published with release, never unmapped.
 */
#include "heap/gcside.h"

#include "sys/vm.h"

uint64_t pa_layout_masks[PA_LAYOUTS];

static bool ensure_table_locked(void)
{
    if (pa_space.sides)
        return true;
    uintptr_t count = pa_space.limit_pages >> (PA_ARENA_SHIFT - PA_PAGE_SHIFT);
    size_t os_page = pa_vm_page_size_bytes();
    void **table = pa_vm_reserve(pa_round_up(count * sizeof *table, os_page), true);
    if (!table)
        return false;
    pa_space.sides = table;
    __atomic_store_n(&pa_space.side_count, count, __ATOMIC_RELEASE);
    return true;
}

/* Is the OS page of this entry in use already? */
static bool has_neighbour(uintptr_t idx, size_t os_page)
{
    uintptr_t per_page = os_page / sizeof(void *), first = pa_round_down(idx, per_page);
    for (uintptr_t i = first; i < first + per_page && i < pa_space.side_count; i++)
        if (pa_space.sides[i])
            return true;
    return false;
}

static bool make_side_locked(pa_heap *h, uintptr_t idx)
{
    size_t os_page = pa_vm_page_size_bytes(), side_bytes = pa_round_up(sizeof(pa_gcside), os_page);
    pa_gcside *side = pa_vm_map(side_bytes);
    if (!side)
        return false;
    if (!pa_vm_commit(&pa_space.sides[idx], sizeof(void *))) {
        pa_vm_unmap(side, side_bytes);
        return false;
    }
    h->side_bytes += os_page + (has_neighbour(idx, os_page) ? 0 : os_page);
    __atomic_store_n(&pa_space.sides[idx], side, __ATOMIC_RELEASE);
    return true;
}

static bool ensure_side_locked(pa_heap *h, uintptr_t idx, bool managed)
{
    if (!pa_space.sides[idx] && !make_side_locked(h, idx))
        return false;
    pa_gcside *side = pa_space.sides[idx];
    if (managed && !side->managed) {
        size_t os_page = pa_vm_page_size_bytes();
        h->side_bytes += pa_round_up(sizeof *side, os_page) - os_page;
        pa_owner_set(&side->managed, true);
    }
    return true;
}

bool pa_gcside_ensure_locked(pa_heap *h, uintptr_t base, size_t nbytes, bool managed)
{
    if (!ensure_table_locked())
        return false;
    uintptr_t last = (base + nbytes - 1 - pa_space.base) >> PA_ARENA_SHIFT;
    for (uintptr_t idx = (base - pa_space.base) >> PA_ARENA_SHIFT; idx <= last; idx++)
        if (!ensure_side_locked(h, idx, managed))
            return false;
    return true;
}


/* Markers look at a large heap in no order: half of their time are misses of the address translation. A small heap,
 * and what holds no managed object, stays small unless somebody asked (docs/decisions/008, 015, 041, 055). */
void pa_gcside_advise(uintptr_t base, size_t nbytes, uintptr_t first_arena)
{
    for (uintptr_t at = pa_round_down(base, PA_ARENA_BYTES); at < base + nbytes; at += PA_ARENA_BYTES) {
        pa_gcside *side = at == first_arena ? NULL : pa_gcside_of(at);
        if (!side || atomic_load_explicit(&side->advised, memory_order_relaxed) ||
            atomic_exchange_explicit(&side->advising, true, memory_order_relaxed))
            continue;
        pa_vm_huge((void *)at, PA_ARENA_BYTES, true);
        /* Now, so that nobody forbids a huge page before that and it is undone. */
        atomic_store_explicit(&side->advised, true, memory_order_relaxed);
    }
}

bool pa_gcside_is_advised(uintptr_t addr)
{
    pa_gcside *side = pa_gcside_of(addr);
    return side && atomic_load_explicit(&side->advised, memory_order_relaxed);
}

void pa_gcside_advise_explicit(pa_heap *h, uintptr_t base, size_t nbytes)
{
    uintptr_t last = base + nbytes - 1;
    bool advised = true;
    for (uintptr_t at = base; at <= last && advised; at = pa_round_down(at, PA_ARENA_BYTES) + PA_ARENA_BYTES)
        advised = pa_gcside_is_advised(at);
    if (PA_LIKELY(advised) || (last - pa_space.base) >> PA_PAGE_SHIFT >= pa_space.limit_pages)
        return;
    pa_lock_acquire(&h->lock);
    bool ready = pa_gcside_ensure_locked(h, base, nbytes, false);
    pa_lock_release(&h->lock);
    if (ready)
        pa_gcside_advise(base, nbytes, 0);
}

void pa_gcside_forbid_huge(uintptr_t base, size_t nbytes)
{
    uintptr_t end = base + nbytes;
    for (uintptr_t at = pa_round_down(base, PA_HUGE_PAGE_BYTES); at < end; at += PA_HUGE_PAGE_BYTES) {
        pa_gcside *side = pa_gcside_is_advised(at) ? pa_gcside_of(at) : NULL;
        uint32_t bit = (uint32_t)1 << (at & (PA_ARENA_BYTES - 1)) / PA_HUGE_PAGE_BYTES;
        if (!side || (atomic_load_explicit(&side->forbidden, memory_order_relaxed) & bit))
            continue;
        pa_vm_huge((void *)at, PA_HUGE_PAGE_BYTES, false);
        atomic_fetch_or_explicit(&side->forbidden, bit, memory_order_relaxed);
    }
}

static void release_words(uint64_t *array, size_t words_per_page, size_t first_page, size_t npages)
{
    pa_vm_release_inside(&array[first_page * words_per_page], npages * words_per_page * sizeof *array);
}

void pa_gcside_release(uintptr_t base, size_t npages)
{
    pa_gcside *side = pa_gcside_of(base);
    size_t first = pa_gcside_page_idx(base);
    PA_ASSERT(first + npages <= PA_ARENA_PAGES);
    if (!side || !pa_racy_load(&side->managed))
        return;
    pa_vm_release_inside(&side->page[first], npages * sizeof side->page[0]);
    for (unsigned i = 0; i < PA_PLANES; i++) {
        release_words(side->plane[i], PA_PLANE_WORDS_PER_PAGE, first, npages);
        release_words(side->crowded[i], PA_CROWDED_WORDS_PER_PAGE, first, npages);
    }
    release_words(side->pointer_bits, PA_POINTER_WORDS_PER_PAGE, first, npages);
}

void pa_gcside_set_layout(pa_span *s, uint32_t layout)
{
    pa_owner_set(&s->layout, layout);
    for (size_t i = 0; i < s->npages; i++) {
        uintptr_t at = s->base + (i << PA_PAGE_SHIFT);
        __atomic_store_n(&pa_gcside_page(pa_gcside_of(at), at)->layout, layout, __ATOMIC_RELEASE);
    }
}
