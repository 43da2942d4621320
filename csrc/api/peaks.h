/* peaks.h - PYALLOC_REPORT: the heap as it was at its peak and at exit, in a file.
 */
#ifndef PA_API_PEAKS_H
#define PA_API_PEAKS_H

/* Begins to watch for peaks; the option is set. Called once, by the library's constructor, after the options were
 * read. */
void pa_peaks_at_start(void);
/* Adds the heap as it is at exit, if this process began to watch; one line on stderr when that cannot be written. */
void pa_peaks_at_exit(void);

#endif
