/* gccontrol.h - the module functions that control the collector and take its reports. */
#ifndef PA_PYTHON_GCCONTROL_H
#define PA_PYTHON_GCCONTROL_H

#include "python/managed.h"

extern PyMethodDef pa_gccontrol_methods[];
/* cleanup.c */
extern PyMethodDef pa_cleanup_methods[];

/* A tuple in declaration order, but for the pauses. */
PyObject *pa_gc_stats_row(const pa_gc_stats *s);

#endif
