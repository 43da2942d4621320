/* span.c - formatting and carving of explicit spans, allocation bits of managed ones.
 *
 * Owns nothing; the caller owns the span it passes, no lock is taken.
 *
 * Explicit: blocks are "carved" from the never-used tail a few KiB at a time, so that a span's pages
 * become resident only as they are used; carved free blocks form an intrusive list in address order.
 * Invariant: carved == free + live (less the bias of a current span; those on remote are live) + those off the list
 * (heap/hollow.h), see heap/check.c.
 * Managed: rows of free elements are found by counting trailing zeros and ones in 64 inverted allocation bits
 * (Go: runtime/mcache.go, nextFreeIndex in runtime/mbitmap.go, finds one element at a time).
 */
#include "heap/span.h"

#include "base/poison.h"

#include "base/bits.h"

/* An eighth of the span, at least 4 KiB; no more than that of larger blocks, each of which would have a page of its own
 * touched for its link. */
enum { CARVE_MIN_BYTES = 4096, CARVE_SHIFT = 3, CARVE_BATCH_MAX_BYTES = 1024 };

const pa_span pa_empty_span = {.magic = 1};

void pa_span_format_explicit(pa_span *s, unsigned size_class)
{
    s->lap = 0;
    s->aside = s->hollow = 0;
    s->thin_seen = s->idle_since = 0;
    size_t size = pa_class_object_bytes[size_class];
    pa_owner_set(&s->free, NULL); /* a late walk may take it for `bump` */
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
    pa_owner_set(&s->free, NULL); /* a late walk may take it for `bump` */
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
    if (step < CARVE_MIN_BYTES || size > CARVE_BATCH_MAX_BYTES)
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
    pa_owner_set(&s->free, (void *)first);
    pa_owner_set(&s->tail, last + size);
    return true;
}

/* alloc_cache of the group that free_idx lies in. */
static void refill_alloc_cache(pa_span *s)
{
    s->alloc_cache = ~pa_racy_load(&s->alloc_bits[s->free_idx / 64]) >> s->free_idx % 64;
}

/* Moves free_idx to the next free slot of this or a later group; false when there is none. */
static bool find_free(pa_span *s)
{
    uint32_t idx = s->free_idx;
    if (idx % 64 == 0 && idx < s->nelems)
        refill_alloc_cache(s);
    while (idx < s->nelems) {
        if (s->alloc_cache) {
            unsigned skip = pa_ctz64(s->alloc_cache);
            s->alloc_cache >>= skip;
            pa_owner_set(&s->free_idx, idx + skip);
            break;
        }
        idx = pa_round_down(idx, 64) + 64;
        if (idx >= s->nelems)
            break;
        pa_owner_set(&s->free_idx, idx);
        refill_alloc_cache(s);
    }
    if (idx < s->nelems && s->free_idx < s->nelems) /* the bits behind the last slot look free */
        return true;
    pa_owner_set(&s->free_idx, s->nelems);
    return false;
}

bool pa_span_open_window(pa_span *s, unsigned most)
{
    PA_ASSERT(pa_span_window_is_empty(s) && most > 0);
    if (!find_free(s))
        return false;
    uint32_t first = s->free_idx, n = ~s->alloc_cache ? pa_ctz64(~s->alloc_cache) : 64;
    if (n > most)
        n = most;
    if (n > s->nelems - first)
        n = s->nelems - first;
    s->alloc_cache = n < 64 ? s->alloc_cache >> n : 0;
    pa_owner_set(&s->free_idx, first + n);
    pa_owner_add(&s->alloc_count, n);
    size_t slot_bytes = pa_class_object_bytes[s->size_class];
    uintptr_t from = s->base + first * slot_bytes;
    pa_span_set_window(s, from, from + n * slot_bytes);
    return true;
}

void pa_span_close_window(pa_span *s)
{
    uint32_t left = pa_span_window_slots(s);
    if (left == 0)
        return;
    pa_owner_set(&s->free_idx, s->free_idx - left);
    pa_owner_set(&s->alloc_count, s->alloc_count - left);
    pa_owner_set(&s->bump_end, (uint32_t)s->bump);
    refill_alloc_cache(s);
}
