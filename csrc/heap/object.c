/* object.c - what is too long to inline of looking at objects: slot sizes, allocation tests, pointer bits.
 *
 * Owns nothing, takes no lock.  An object's pointer bits are written by the thread that allocates it before any
 * other thread can know it; a span's pages, and so the bitmap's words, belong to one thread at a time, so plain
 * read-modify-write is enough.  Markers read neighbours in the same word, hence whole-word stores.
 */
#include "heap/object.h"

size_t pa_object_slot_bytes(const pa_objref *o)
{
    if (o->size_class)
        return pa_class_object_bytes[o->size_class];
    const pa_span *s = pa_span_of((void *)o->base);
    return s ? pa_span_bytes(s) : 0;
}

bool pa_object_is_allocated(const pa_heap *h, const pa_objref *o)
{
    const pa_span *s = pa_span_of((void *)o->span_base);
    if (!s || pa_span_state_racy(s) != PA_SPAN_MANAGED || pa_racy_load(&s->base) != o->span_base)
        return false;
    uint32_t sweepgen = atomic_load_explicit(&h->sweepgen, memory_order_relaxed);
    /* Not swept yet, or being swept: what the last marking found is what is there. */
    if (__atomic_load_n(&s->sweepgen, __ATOMIC_ACQUIRE) != sweepgen)
        return pa_object_is_set(o, pa_alloc_plane(sweepgen));
    return pa_span_is_handed_out(s, o->idx);
}

/* Up to 64 bits at the address of a word. */
static void write_bits(uintptr_t at_word, unsigned nwords, uint64_t bits)
{
    /* An arena's bitmap ends with the arena, and so may a word's worth of a large object. */
    size_t left = (PA_ARENA_BYTES - (at_word & (PA_ARENA_BYTES - 1))) >> 3;
    if (nwords > left) {
        write_bits(at_word + left * 8, nwords - (unsigned)left, bits >> left);
        nwords = (unsigned)left;
        bits &= pa_mask64(nwords);
    }
    pa_object_write_small_bits(at_word, nwords, bits);
}

static uint64_t mask_bits(const uint64_t *mask, size_t first, unsigned n)
{
    uint64_t bits = mask[first / 64] >> first % 64;
    if (first % 64 + n > 64)
        bits |= mask[first / 64 + 1] << (64 - first % 64);
    return bits & pa_mask64(n);
}

/* Small elements: as many whole ones as fit into 64 bits at once. */
static void write_packed(uintptr_t obj, const uint64_t *mask, unsigned element_words, size_t count)
{
    unsigned batch = 64 / element_words;
    uint64_t pattern = 0;
    for (unsigned i = 0; i < batch; i++)
        pattern |= (mask[0] & pa_mask64(element_words)) << i * element_words;
    for (size_t i = 0; i < count; i += batch) {
        unsigned n = count - i < batch ? (unsigned)(count - i) : batch;
        write_bits(obj + i * element_words * 8, n * element_words, pattern & pa_mask64(n * element_words));
    }
}

static void write_one(uintptr_t obj, const uint64_t *mask, size_t nwords)
{
    for (size_t i = 0; i < nwords; i += 64) {
        unsigned n = nwords - i < 64 ? (unsigned)(nwords - i) : 64;
        write_bits(obj + i * 8, n, mask ? mask_bits(mask, i, n) : 0);
    }
}

void pa_object_write_pointer_bits(uintptr_t obj, size_t slot_bytes, const uint64_t *mask, size_t element_bytes,
                                  size_t count)
{
    size_t element_words = element_bytes / 8, used = element_bytes * count;
    if (element_words <= 64)
        write_packed(obj, mask, (unsigned)element_words, count);
    else
        for (size_t i = 0; i < count; i++)
            write_one(obj + i * element_bytes, mask, element_words);
    write_one(obj + used, NULL, (slot_bytes - used) / 8);
}

void pa_object_mix_layouts(pa_span *s)
{
    static const uint64_t all = 1, none = 0;
    size_t slot_bytes = pa_span_element_bytes(s), nwords = slot_bytes / 8;
    bool is_type = s->layout >= PA_LAYOUT_FIRST_TYPE;
    const uint64_t *mask = is_type ? &pa_layout_masks[s->layout] : s->layout == PA_LAYOUT_ALL ? &all : &none;
    size_t element_words = is_type && nwords > 64 ? 64 : is_type ? nwords : 1;
    size_t count = is_type ? 1 : nwords;
    for (uint32_t i = 0; i < s->nelems; i++)
        pa_object_write_pointer_bits(s->base + i * slot_bytes, slot_bytes, mask, element_words * 8, count);
    pa_gcside_set_layout(s, PA_LAYOUT_BITMAP);
}
