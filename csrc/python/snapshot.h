/* snapshot.h - the module functions behind read_mem_stats(), metrics() and heap_map(). */
#ifndef PA_PYTHON_SNAPSHOT_H
#define PA_PYTHON_SNAPSHOT_H

#include "python/core.h"

extern PyMethodDef pa_snapshot_methods[];

#endif
