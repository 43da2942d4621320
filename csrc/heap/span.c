/* span.c - formatting and carving of explicit spans, allocation bits of managed ones.
 *
 * Owns nothing; the caller owns the span it passes, no lock is taken.
 *
 * Explicit: blocks are "carved" from the never-used tail a few KiB at a time, so that a span's pages
 * become resident only as they are used; carved free blocks form an intrusive list in address order.
 * Invariant: carved == free + remote + live (less the bias of a current span), see heap/check.c.
 * Managed: free elements are found by counting trailing zeros in a 64-bit window of inverted
 * allocation bits (Go: runtime/mcache.go, nextFreeIndex in runtime/mbitmap.go).
 */
#include "heap/span.h"

#include "base/poison.h"

#include "base/bits.h"

enum { CARVE_MIN_BYTES = 4096, CARVE_SHIFT = 3 }; /* an eighth of the span, at least 4 KiB */

const pa_span pa_empty_span = {.magic = 1};

void pa_span_format_explicit(pa_span *s, unsigned size_class)
{
    s->lap = 0;
    size_t size = pa_class_object_bytes[size_class];
    s->free = NULL;
    pa_owner_set(&s->live, 0);
    pa_owner_set(&s->size_class, (uint8_t)size_class);
    pa_owner_set(&s->kind, PA_KIND_EXPLICIT);
    pa_owner_set(&s->listed, 0);
    s->magic = pa_class_magic[size_class];
    pa_owner_set(&s->tail, s->base);
    s->limit = s->base + pa_span_bytes(s) / size * size;
    atomic_store_explicit(&s->remote, 0, memory_order_relaxed);
}

void pa_span_pin(pa_span *s)
{
    pa_owner_add(&s->pins, 1);
    pa_owner_set(&s->magic, 0);
}

void pa_span_unpin(pa_span *s)
{
    pa_owner_add(&s->pins, -1);
    if (s->pins == 0 && !atomic_load_explicit(&s->sample, memory_order_relaxed))
        pa_owner_set(&s->magic, s->size_class ? pa_class_magic[s->size_class] : 1);
}

void pa_span_format_large(pa_span *s)
{
    atomic_store_explicit(&s->owner, NULL, memory_order_relaxed);
    s->free = NULL;
    pa_owner_set(&s->live, 1);
    pa_owner_set(&s->size_class, 0);
    pa_owner_set(&s->kind, PA_KIND_EXPLICIT);
    pa_owner_set(&s->listed, 0);
    s->magic = 1;
    s->limit = s->base + pa_span_bytes(s);
    pa_owner_set(&s->tail, s->limit);
    atomic_store_explicit(&s->remote, 0, memory_order_relaxed);
}

bool pa_span_carve(pa_span *s)
{
    PA_ASSERT(s->free == NULL && s->size_class != 0);
    if (s->tail >= s->limit)
        return false;
    size_t size = pa_class_object_bytes[s->size_class];
    size_t step = pa_span_bytes(s) >> CARVE_SHIFT;
    if (step < CARVE_MIN_BYTES)
        step = CARVE_MIN_BYTES;
    uintptr_t first = s->tail;
    uintptr_t end = first + (size >= step ? size : step / size * size);
    if (end > s->limit)
        end = s->limit;
    uintptr_t last = first;
    while (last + size < end) {
        pa_link_set((void *)last, (void *)(last + size));
        last += size;
    }
    pa_link_set((void *)last, NULL);
    s->free = (void *)first;
    pa_owner_set(&s->tail, last + size);
    return true;
}

void pa_span_refill_alloc_cache(pa_span *s)
{
    PA_ASSERT(s->free_idx % 64 == 0);
    s->alloc_cache = ~pa_racy_load(&s->alloc_bits[s->free_idx / 64]);
}

uint32_t pa_span_next_free_idx(pa_span *s)
{
    uint32_t idx = s->free_idx;
    while (idx < s->nelems) {
        if (s->alloc_cache) {
            unsigned skip = pa_ctz64(s->alloc_cache);
            uint32_t found = idx + skip;
            if (found / 64 == idx / 64 && found < s->nelems) {
                s->alloc_cache = skip == 63 ? 0 : s->alloc_cache >> (skip + 1);
                pa_owner_set(&s->free_idx, found + 1);
                if (s->free_idx % 64 == 0 && s->free_idx < s->nelems)
                    pa_span_refill_alloc_cache(s);
                return found;
            }
        }
        idx = (idx / 64 + 1) * 64;
        if (idx >= s->nelems)
            break;
        pa_owner_set(&s->free_idx, idx);
        pa_span_refill_alloc_cache(s);
    }
    pa_owner_set(&s->free_idx, s->nelems);
    return s->nelems;
}
