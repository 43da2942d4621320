/* json.c - writing JSON to a file descriptor without memory.
 *
 * Owns nothing, takes no lock: text goes into the caller's buffer and from there by write(2), so that a document of any
 * length can be written at exit or in the middle of an allocation.  Strings are ASCII: what is not printable appears
 * as '?'.  Whoever writes says where objects begin and end; commas come by themselves.
 */
#include "api/json.h"

#include <errno.h>
#include <unistd.h>

enum { NUMBER_ROOM = 32 };

void pa_json_begin(pa_json *w, int fd, char *room, size_t capacity)
{
    *w = (pa_json){.fd = fd, .first = true, .text = {.start = room, .capacity = capacity}};
}

void pa_json_flush(pa_json *w)
{
    for (size_t done = 0; done < w->text.len && w->error == 0;) {
        ssize_t n = write(w->fd, w->text.start + done, w->text.len - done);
        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || errno != EINTR)
            w->error = n == 0 ? EIO : errno;
    }
    w->text.len = 0;
}

void pa_json_reserve(pa_json *w, size_t nbytes)
{
    if (w->text.len + nbytes + 1 > w->text.capacity)
        pa_json_flush(w);
}

static void put(pa_json *w, char c)
{
    pa_json_reserve(w, 1);
    pa_text_char(&w->text, c);
}

static void quote(pa_json *w, const char *s)
{
    put(w, '"');
    for (; *s; s++) {
        pa_json_reserve(w, 2);
        if (*s == '"' || *s == '\\')
            pa_text_char(&w->text, '\\');
        pa_text_printable(&w->text, s, 1, 1);
    }
    put(w, '"');
}

void pa_json_open(pa_json *w, char bracket)
{
    put(w, bracket);
    w->first = true;
}

void pa_json_close(pa_json *w, char bracket)
{
    put(w, bracket);
    w->first = false;
}

void pa_json_newline(pa_json *w)
{
    put(w, '\n');
}

void pa_json_item(pa_json *w)
{
    if (!w->first)
        put(w, ',');
    w->first = false;
}

void pa_json_key(pa_json *w, const char *name)
{
    pa_json_item(w);
    quote(w, name);
    put(w, ':');
}

void pa_json_string(pa_json *w, const char *s)
{
    quote(w, s);
}

void pa_json_uint(pa_json *w, uint64_t v)
{
    pa_json_reserve(w, NUMBER_ROOM);
    pa_text_uint(&w->text, v, 10);
}

void pa_json_int(pa_json *w, int64_t v)
{
    pa_json_reserve(w, NUMBER_ROOM);
    pa_text_int(&w->text, v);
}

void pa_json_bool(pa_json *w, bool v)
{
    pa_json_reserve(w, NUMBER_ROOM);
    pa_text_str(&w->text, v ? "true" : "false");
}

void pa_json_real(pa_json *w, double v)
{
    pa_json_reserve(w, 2 * NUMBER_ROOM);
    bool negative = v < 0;
    v = negative ? -v : v;
    if (!(v < 9.2e18)) { /* an infinity, or no number */
        pa_text_str(&w->text, "null");
        return;
    }
    uint64_t whole = (uint64_t)v, billionths = (uint64_t)((v - (double)whole) * 1e9 + 0.5);
    whole += billionths / 1000000000;
    if (negative)
        pa_text_char(&w->text, '-');
    pa_text_uint(&w->text, whole, 10);
    pa_text_char(&w->text, '.');
    for (uint64_t digit = 100000000; digit; digit /= 10)
        pa_text_char(&w->text, (char)('0' + billionths / digit % 10));
}

void pa_json_item_uint(pa_json *w, uint64_t v)
{
    pa_json_item(w);
    pa_json_uint(w, v);
}
