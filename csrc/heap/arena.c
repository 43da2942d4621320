/* arena.c - reserving and filling the address tables.
 *
 * Owns pa_space.  Initialised and grown under mheap's lock; entries are written by the thread that owns
 * the pages, with release, and read by anybody.  Invariant: a non-NULL entry is a type-stable span
 * header.  Go keeps the same tables per arena behind a two-level arena map (runtime/mheap.go,
 * heapArena.spans, spanOf); here they are slices of one range, which saves the first two loads.
 */
#include "heap/arena.h"

#include "base/bits.h"
#include "sys/vm.h"

pa_address_space pa_space;

uintptr_t pa_space_base_for(uintptr_t first_arena, unsigned window_bits)
{
    if (window_bits >= PA_USER_ADDRESS_BITS)
        return 0;
    uintptr_t root = pa_round_down(first_arena, (uintptr_t)1 << PA_ROOT_SHIFT);
    uintptr_t below = pa_round_down(((uintptr_t)1 << window_bits) / 4, (uintptr_t)1 << PA_ROOT_SHIFT);
    return root > below ? root - below : 0;
}

bool pa_space_init_locked(uintptr_t window_base, unsigned window_bits)
{
    PA_CHECK(pa_space.table == NULL);
    uintptr_t pages = ((uintptr_t)1 << window_bits) >> PA_PAGE_SHIFT;
    pa_span **table = pa_vm_reserve(pages * sizeof *table, true);
    if (!table)
        return false;
    pa_space.base = window_base;
    pa_space.window_bits = window_bits;
    pa_space.table = table;
    __atomic_store_n(&pa_space.limit_pages, pages, __ATOMIC_RELEASE);
    return true;
}

bool pa_space_commit(uintptr_t base, size_t nbytes)
{
    pa_span **slice = &pa_space.table[(base - pa_space.base) >> PA_PAGE_SHIFT];
    return pa_vm_commit(slice, (nbytes >> PA_PAGE_SHIFT) * sizeof *slice);
}

bool pa_space_contains(uintptr_t base, size_t nbytes)
{
    uintptr_t offset = base - pa_space.base;
    uintptr_t window = pa_space.limit_pages << PA_PAGE_SHIFT;
    return base >= pa_space.base && offset < window && nbytes <= window - offset;
}

void pa_space_set(const pa_span *s, pa_span *value)
{
    pa_span **entry = &pa_space.table[(s->base - pa_space.base) >> PA_PAGE_SHIFT];
    for (uint32_t i = 0; i < s->npages; i++)
        __atomic_store_n(&entry[i], value, __ATOMIC_RELEASE);
}

size_t pa_space_release(uintptr_t base, size_t npages)
{
    pa_span **slice = &pa_space.table[(base - pa_space.base) >> PA_PAGE_SHIFT];
    return pa_vm_release_inside(slice, npages * sizeof *slice);
}
