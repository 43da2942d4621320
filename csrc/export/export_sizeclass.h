/* export_sizeclass.h - white-box view of base/sizeclass. */
#ifndef PA_EXPORT_SIZECLASS_H
#define PA_EXPORT_SIZECLASS_H

#include <stddef.h>
#include <stdint.h>

/* cffi: begin */
typedef struct pa_export_class_row {
    uint32_t object_bytes;
    uint32_t span_pages;
    uint32_t objects;
    uint32_t cap_pages;
    uint64_t magic;
} pa_export_class_row;

/* Row of the tables; size_class 0..66. */
pa_export_class_row pa_export_class(unsigned size_class);
/* pa_class_of_size; nbytes 0..32768. */
unsigned pa_export_class_of_size(size_t nbytes);
/* classes[n] = pa_class_of_size(n) for every n from 0 to 32768: 32769 bytes. */
void pa_export_class_of_all_sizes(uint8_t *classes);
int pa_export_class_is_object_start(unsigned size_class, uint32_t offset);
/* First offset from begin up to end (excluded) where multiplication and division disagree, or end. */
uint32_t pa_export_class_first_wrong_offset(unsigned size_class, uint32_t begin, uint32_t end);
/* cffi: end */

#endif
