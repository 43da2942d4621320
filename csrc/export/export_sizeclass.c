/* export_sizeclass.c - white-box view of base/sizeclass: its tables and inlines as functions.
 *
 * Test builds only.  Owns nothing, no lock.  Sweeps over all offsets run here, because they are too many for
 * calls from Python; the oracle is the machine's own division.
 */
#include "export/export_sizeclass.h"

#include "base/sizeclass.h"

pa_export_class_row pa_export_class(unsigned size_class)
{
    return (pa_export_class_row){
        .object_bytes = pa_class_object_bytes[size_class],
        .span_pages = pa_class_span_pages[size_class],
        .objects = pa_class_shapes[size_class].objects,
        .cap_pages = pa_class_cap_pages[size_class],
        .magic = pa_class_magic[size_class],
    };
}

unsigned pa_export_class_of_size(size_t nbytes)
{
    return pa_class_of_size(nbytes);
}

void pa_export_class_of_all_sizes(uint8_t *classes)
{
    for (size_t n = 0; n <= PA_SMALL_MAX_BYTES; n++)
        classes[n] = (uint8_t)pa_class_of_size(n);
}

int pa_export_class_is_object_start(unsigned size_class, uint32_t offset)
{
    return pa_class_is_object_start(size_class, offset);
}

uint32_t pa_export_class_first_wrong_offset(unsigned size_class, uint32_t begin, uint32_t end)
{
    uint32_t size = pa_class_object_bytes[size_class];
    for (uint32_t offset = begin; offset < end; offset++) {
        if (offset < pa_class_span_pages[size_class] * PA_PAGE_BYTES &&
            pa_shape_index_of(pa_class_shapes[size_class], offset) != offset / size)
            return offset;
        if (pa_class_is_object_start(size_class, offset) != (offset % size == 0))
            return offset;
    }
    return end;
}
