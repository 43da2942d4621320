/* type.c - the registry of layouts.
 *
 * Owns the list of types: appended under one lock (rank LEAF is too high for the off-heap memory it needs, so ROOTS),
 * read without, never freed.  Equal layouts are one type, so that making a type is idempotent.
 */
#include "gc/type.h"

#include <errno.h>
#include <string.h>

#include "heap/gcside.h"
#include "include/pyalloc.h"
#include "world/roots.h"

static pa_type *all_types;
static uint32_t next_layout = PA_LAYOUT_FIRST_TYPE; /* under the roots' lock */

static bool is_valid(size_t nbytes, const size_t *offsets, size_t count)
{
    if (nbytes == 0 || nbytes > PTRDIFF_MAX || (count && nbytes % sizeof(void *)))
        return false;
    for (size_t i = 0; i < count; i++)
        if (offsets[i] % sizeof(void *) || offsets[i] >= nbytes || (i && offsets[i] <= offsets[i - 1]))
            return false;
    return true;
}

static size_t mask_words(size_t nbytes)
{
    return (nbytes + 511) / 512;
}

static bool has_layout(const pa_type *t, size_t nbytes, const size_t *offsets, size_t count)
{
    if (t->nbytes != nbytes)
        return false;
    size_t pointers = 0;
    for (size_t i = 0; i < mask_words(nbytes); i++)
        pointers += (size_t)__builtin_popcountll(t->mask[i]);
    if (pointers != count)
        return false;
    for (size_t i = 0; i < count; i++)
        if (!(t->mask[offsets[i] / 512] >> offsets[i] / 8 % 64 & 1))
            return false;
    return true;
}

static const pa_type *find(size_t nbytes, const size_t *offsets, size_t count)
{
    for (const pa_type *t = __atomic_load_n(&all_types, __ATOMIC_ACQUIRE); t; t = t->next)
        if (has_layout(t, nbytes, offsets, count))
            return t;
    return NULL;
}

static pa_type *make(size_t nbytes, const size_t *offsets, size_t count)
{
    pa_type *t = pa_offheap_alloc(&pa_the_heap.offheap, sizeof *t + mask_words(nbytes) * 8, 16);
    if (!t)
        return NULL;
    t->nbytes = nbytes;
    t->kind = count ? PA_KIND_SCAN : PA_KIND_NOSCAN;
    t->size_class = nbytes <= PA_SMALL_MAX_BYTES ? (uint8_t)pa_class_of_size(nbytes) : 0;
    t->slot_bytes = pa_class_object_bytes[t->size_class];
    for (size_t i = 0; i < count; i++)
        t->mask[offsets[i] / 512] |= (uint64_t)1 << offsets[i] / 8 % 64;
    t->layout = PA_LAYOUT_BITMAP;
    if (count && nbytes <= 64 * sizeof(void *) && next_layout < PA_LAYOUTS) {
        t->layout = next_layout++;
        pa_layout_masks[t->layout] = t->mask[0];
    }
    /* Free slots are poisoned under AddressSanitizer. */
    t->fast_layout = t->layout != PA_LAYOUT_BITMAP && !PA_ASAN ? t->layout : PA_LAYOUT_NONE;
    t->next = all_types;
    __atomic_store_n(&all_types, t, __ATOMIC_RELEASE);
    return t;
}

PA_EXPORT const pa_type *pa_type_new(size_t nbytes, const size_t *pointer_offsets, size_t pointer_count)
{
    if (!is_valid(nbytes, pointer_offsets, pointer_count)) {
        errno = EINVAL;
        return NULL;
    }
    const pa_type *t = find(nbytes, pointer_offsets, pointer_count);
    if (t)
        return t;
    if (!pa_mcache_is_real(pa_proc_attach())) { /* the heap's off-heap memory must exist */
        errno = ENOMEM;
        return NULL;
    }
    pa_lock_acquire(&pa_the_roots.lock);
    t = find(nbytes, pointer_offsets, pointer_count);
    if (!t)
        t = make(nbytes, pointer_offsets, pointer_count);
    pa_lock_release(&pa_the_roots.lock);
    if (!t)
        errno = ENOMEM;
    return t;
}

PA_EXPORT size_t pa_type_bytes(const pa_type *type)
{
    return type->nbytes;
}
