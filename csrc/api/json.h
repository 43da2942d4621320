/* json.h - writing JSON to a file descriptor without memory: the caller's buffer, flushed as it fills.
 */
#ifndef PA_JSON_H
#define PA_JSON_H

#include "base/text.h"

typedef struct pa_json {
    int fd, error;  /* of write(2), the first one; nothing is written after it */
    bool first;     /* no comma before the next key or item */
    pa_text text;
} pa_json;

/* room is the caller's, at least a few KiB; it stays in use until pa_json_flush. */
void pa_json_begin(pa_json *w, int fd, char *room, size_t capacity);
/* Writes what the buffer holds. */
void pa_json_flush(pa_json *w);
/* Flushes when less than nbytes are left in the buffer: a text that does not fit would be cut. The functions below do
 * so for themselves. */
void pa_json_reserve(pa_json *w, size_t nbytes);

/* "{" or "[" and their ends. */
void pa_json_open(pa_json *w, char bracket);
void pa_json_close(pa_json *w, char bracket);
/* Between values; changes nothing for a reader of JSON. */
void pa_json_newline(pa_json *w);
/* "name": with a comma before it where one is due. */
void pa_json_key(pa_json *w, const char *name);
/* A value after a key; the item forms begin with a comma where one is due. */
void pa_json_string(pa_json *w, const char *s);
void pa_json_uint(pa_json *w, uint64_t v);
void pa_json_int(pa_json *w, int64_t v);
void pa_json_bool(pa_json *w, bool v);
/* Nine decimals and no exponent; null for what is no finite number below 2^63. */
void pa_json_real(pa_json *w, double v);
void pa_json_item(pa_json *w);
void pa_json_item_uint(pa_json *w, uint64_t v);

#endif
