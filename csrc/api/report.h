/* report.h - what the parts of a snapshot share. */
#ifndef PA_REPORT_H
#define PA_REPORT_H

#include "include/pyalloc.h"

/* Settings and history of the collector; the collector's lock held. The fields that come from the heap and
 * the threads stay as they are. */
void pa_gc_stats_locked(pa_gc_stats *out);

#endif
