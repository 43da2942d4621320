/* export_plant.h - breaking the heap on purpose, to see that pa_heap_check names what is broken. */
#ifndef PA_EXPORT_PLANT_H
#define PA_EXPORT_PLANT_H

#include <stddef.h>

/* cffi: begin */

/* Corruptions are numbered from 0; NULL past the last. */
const char *pa_xplant_name(unsigned plant);
/* Builds a scene (spans current, partial, abandoned, listed, cached, large), breaks it, runs pa_heap_check, and
 * repairs it. message: what the check said. Returns the check's result; -1 when the heap did not check before or
 * after, with the message then. The calling process may have no other thread in the heap. */
int pa_xplant(unsigned plant, char *message, size_t capacity);

/* cffi: end */

#endif
