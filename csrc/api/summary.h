/* summary.h - the state of the heap as a few lines of text, written without memory. */
#ifndef PA_SUMMARY_TEXT_H
#define PA_SUMMARY_TEXT_H

/* Writes one block, headed by title, to a file descriptor in one go. */
void pa_summary_write(int fd, const char *title);

#endif
