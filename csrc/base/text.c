/* text.c - building short texts without memory.
 *
 * Owns nothing, takes no lock: everything is in the caller's buffer.  One byte of it is kept free for the
 * newline or the zero byte at the end, so that a text that was cut is still one line.  Messages of a broken
 * heap and of signal handlers go through here, so nothing but write(2) is called.
 */
#include "base/text.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

void pa_text_char(pa_text *t, char c)
{
    if (t->len + 1 < t->capacity)
        t->start[t->len++] = c;
}

void pa_text_str(pa_text *t, const char *s)
{
    while (*s)
        pa_text_char(t, *s++);
}

void pa_text_printable(pa_text *t, const char *s, size_t len, size_t max)
{
    for (size_t i = 0; i < len && i < max; i++)
        pa_text_char(t, s[i] >= ' ' && s[i] <= '~' ? s[i] : '?');
    if (len > max)
        pa_text_str(t, "...");
}

void pa_text_uint(pa_text *t, uint64_t v, unsigned base)
{
    char digits[64];
    size_t n = 0;
    do {
        digits[n++] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    while (n)
        pa_text_char(t, digits[--n]);
}

void pa_text_int(pa_text *t, int64_t v)
{
    if (v < 0)
        pa_text_char(t, '-');
    pa_text_uint(t, v < 0 ? 0 - (uint64_t)v : (uint64_t)v, 10);
}

void pa_text_padded(pa_text *t, const char *s, size_t width)
{
    size_t len = strlen(s);
    pa_text_str(t, s);
    for (; len < width; len++)
        pa_text_char(t, ' ');
}

void pa_text_write(pa_text *t, int fd)
{
    int saved_errno = errno;
    size_t done = 0;
    while (done < t->len) {
        ssize_t n = write(fd, t->start + done, t->len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    t->len = 0;
    errno = saved_errno;
}

void pa_text_write_line(pa_text *t, int fd)
{
    t->start[t->len++] = '\n';
    pa_text_write(t, fd);
}

const char *pa_text_cstr(pa_text *t)
{
    t->start[t->len] = '\0';
    return t->start;
}
