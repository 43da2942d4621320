/* sizeclass.h - the 67 size classes: class 0 is large, classes 1..66 serve up to 32 KiB.
 *
 * The tables are generated (gen/mksizeclasses.py) and constant; see sizeclass.c.  Index 0 holds 0 in the
 * first four: class 0 has no fixed size.
 */
#ifndef PA_SIZECLASS_H
#define PA_SIZECLASS_H

#include "base/config.h"

extern PA_HIDDEN const uint16_t pa_class_object_bytes[67]; /* size of an object */
extern PA_HIDDEN const uint8_t pa_class_span_pages[67];    /* pages of a span, Go's table */
extern PA_HIDDEN const uint8_t pa_class_cap_pages[67];     /* longest run of an explicit span */
extern PA_HIDDEN const uint64_t pa_class_magic[67];        /* ceil(2^64 / object_bytes) */

/* What a marker needs of a class, in one load. Class 0: one object, whatever its size. */
typedef struct pa_class_shape {
    uint32_t magic;             /* ceil(2^32 / object_bytes) */
    uint16_t object_bytes, objects; /* of a span of span_pages */
} pa_class_shape;
extern PA_HIDDEN const pa_class_shape pa_class_shapes[67];

extern PA_HIDDEN const uint8_t pa_size_to_class8[130];     /* class of up to 1 KiB, by (nbytes + 7) / 8 */
extern PA_HIDDEN const uint8_t pa_size_to_class128[249];   /* above, by (nbytes - 1024 + 127) / 128 */

/* Smallest class that holds nbytes; 0 bytes are class 1. Precondition: nbytes <= PA_SMALL_MAX_BYTES. */
PA_INLINE unsigned pa_class_of_size(size_t nbytes)
{
    if (nbytes <= PA_SMALL_MAX_STEP8_BYTES)
        return pa_size_to_class8[(nbytes + 7) >> 3];
    return pa_size_to_class128[(nbytes - PA_SMALL_MAX_STEP8_BYTES + 127) >> 7];
}

/* Index of the object that holds byte offset of a span of span_pages; 0 for class 0. */
PA_INLINE uint32_t pa_shape_index_of(pa_class_shape shape, uint32_t offset)
{
    return (uint32_t)((uint64_t)offset * shape.magic >> 32);
}

/* Does an object start at byte offset of a span? Precondition: size_class != 0. Any offset < 2^32. */
PA_INLINE bool pa_class_is_object_start(unsigned size_class, uint32_t offset)
{
    return offset * pa_class_magic[size_class] < pa_class_magic[size_class];
}

#endif
