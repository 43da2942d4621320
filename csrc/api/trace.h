/* trace.h - the trace that PYALLOC_TRACE asks for, from the start of the process to its end.
 */
#ifndef PA_API_TRACE_H
#define PA_API_TRACE_H

/* Starts it when the option is set; called once, by the library's constructor, after the options were read. */
void pa_trace_at_start(void);
/* Writes the file, when it was started here and not in a parent; one line on stderr when that fails. */
void pa_trace_at_exit(void);

#endif
