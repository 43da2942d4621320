/* summary.h - the state of the heap as a few lines of text, written without memory. */
#ifndef PA_SUMMARY_TEXT_H
#define PA_SUMMARY_TEXT_H

#include <stdint.h>

/* Writes one block, headed by title, to a file descriptor in one go. */
void pa_summary_write(int fd, const char *title);
/* The highest resident set of this program, 0 where /proc is not there. */
uint64_t pa_summary_peak_rss_bytes(void);

#endif
