/* trace_json.h - events as Chrome trace-event JSON.
 */
#ifndef PA_TRACE_JSON_H
#define PA_TRACE_JSON_H

#include "include/pyalloc.h"

/* Writes a whole document: count events, which are sorted as pa_trace_read does, then again by thread, in place. 0, or
 * the errno of write(2). */
int pa_trace_json_write(int fd, pa_trace_event *events, size_t count, uint64_t lost);

/* By time, what began at the same time by length, the longest first. In place, without memory. */
void pa_trace_sort_by_time(pa_trace_event *events, size_t count);

#endif
