/* text.h - building short texts without memory: into a caller's buffer, cut when it is full.
 *
 * For messages, statistics at exit and gctrace lines: async-signal-safe, no locale, no allocation.
 */
#ifndef PA_TEXT_H
#define PA_TEXT_H

#include "base/config.h"

typedef struct pa_text {
    char *start;
    size_t capacity, len; /* len < capacity: there is always room for one more byte, see pa_text_write_line */
} pa_text;

#define PA_TEXT(array) {.start = (array), .capacity = sizeof(array)}

void pa_text_char(pa_text *t, char c);
void pa_text_str(pa_text *t, const char *s);
/* len bytes of s, the first max of them; bytes that a terminal would act on appear as '?'. */
void pa_text_printable(pa_text *t, const char *s, size_t len, size_t max);
void pa_text_uint(pa_text *t, uint64_t v, unsigned base);
void pa_text_int(pa_text *t, int64_t v);
/* "name" padded with blanks to at least width columns. */
void pa_text_padded(pa_text *t, const char *s, size_t width);

/* Writes all of it, or what goes in, and empties the text; keeps errno. */
void pa_text_write(pa_text *t, int fd);
/* The same with a newline behind it. */
void pa_text_write_line(pa_text *t, int fd);
/* Ends it with a zero byte, without counting it. Returns the start. */
const char *pa_text_cstr(pa_text *t);

#endif
