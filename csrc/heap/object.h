/* object.h - from any word to the managed object it points into.
 *
 * Reads the side tables only (heap/gcside.h); inline, since the markers do it for every pointer.
 */
#ifndef PA_OBJECT_H
#define PA_OBJECT_H

#include "heap/gcside.h"

typedef struct pa_objref {
    uintptr_t base;         /* the object */
    uintptr_t span_base;
    uint32_t idx;           /* in its span */
    uint8_t size_class, kind;
    uint16_t object_bytes;  /* 0: large */
    pa_gcside *side;        /* of the span's first page */
    pa_gcpage *page;        /* of the word */
} pa_objref;

/* False when p lies in no object slot of a managed span. A slot need not be allocated. */
PA_INLINE bool pa_object_resolve(uintptr_t p, pa_objref *o)
{
    pa_gcside *side = pa_gcside_of(p);
    if (PA_UNLIKELY(!side))
        return false;
    o->page = pa_gcside_page(side, p);
    uint32_t info = atomic_load_explicit(&o->page->info, memory_order_relaxed);
    if (PA_UNLIKELY(!info))
        return false;
    o->size_class = (uint8_t)pa_info_class(info);
    o->kind = (uint8_t)pa_info_kind(info);
    o->span_base = pa_round_down(p, PA_PAGE_BYTES) - (pa_info_offset_pages(info) << PA_PAGE_SHIFT);
    o->side = side;
    if (PA_UNLIKELY((o->span_base ^ p) >> PA_ARENA_SHIFT)) {
        o->side = pa_gcside_of(o->span_base);
        if (!o->side) /* the entry was read while its span went away */
            return false;
    }
    pa_class_shape shape = pa_class_shapes[o->size_class];
    o->object_bytes = shape.object_bytes;
    o->idx = pa_shape_index_of(shape, (uint32_t)(p - o->span_base));
    o->base = o->span_base + (uintptr_t)o->idx * shape.object_bytes;
    return o->idx < shape.objects; /* else the waste behind the last object */
}

PA_INLINE uint64_t *pa_object_bit_word(const pa_objref *o, unsigned plane)
{
    return &pa_gcside_bits(o->side, plane, o->size_class, o->span_base)[o->idx / 64];
}

PA_INLINE uint64_t pa_object_bit(const pa_objref *o) { return (uint64_t)1 << o->idx % 64; }

PA_INLINE bool pa_object_is_set(const pa_objref *o, unsigned plane)
{
    return __atomic_load_n(pa_object_bit_word(o, plane), __ATOMIC_RELAXED) & pa_object_bit(o);
}

PA_INLINE uint32_t pa_object_layout(const pa_objref *o)
{
    return __atomic_load_n(&o->page->layout, __ATOMIC_ACQUIRE);
}

/* Bytes of the slot. Precondition: the object's span is in use and cannot go away. */
size_t pa_object_slot_bytes(const pa_objref *o);

/* Was the slot handed out (bump, allocation bits; before its span is swept: the mark)? For words that may be
 * anything. Inside or marking: h's sweepgen stays. */
bool pa_object_is_allocated(const pa_heap *h, const pa_objref *o);

/* The span's objects were all of its layout so far and one of another is to come: writes their pointer bits. */
void pa_object_mix_layouts(pa_span *s);

/* Writes the pointer bits of an object: word i of each element_bytes is a pointer when bit i of mask is set,
 * count elements, up to slot_bytes (the rest: none). mask has element_bytes / 8 bits. By the object's allocator. */
void pa_object_write_pointer_bits(uintptr_t obj, size_t slot_bytes, const uint64_t *mask, size_t element_bytes,
                                  size_t count);
/* The same for one element of at most 64 words; inline for small classes. */
PA_INLINE void pa_object_write_small_bits(uintptr_t obj, unsigned nwords, uint64_t mask)
{
    size_t at = (obj & (PA_ARENA_BYTES - 1)) >> 3;
    uint64_t *word = &pa_gcside_of(obj)->pointer_bits[at / 64];
    unsigned shift = at % 64;
    pa_owner_set(word, (pa_racy_load(word) & ~(pa_mask64(nwords) << shift)) | mask << shift);
    if (PA_UNLIKELY(shift + nwords > 64)) {
        unsigned done = 64 - shift;
        pa_owner_set(word + 1, (pa_racy_load(word + 1) & ~pa_mask64(nwords - done)) | mask >> done);
    }
}

#endif
