/* assert.c - what happens when a check fails.
 *
 * Owns nothing, takes no lock.  The message is built on the stack and written with one write(2),
 * because the heap may be the thing that is broken.
 */
#include "base/assert.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct line {
    char text[512];
    size_t len;
} line;

static void line_str(line *l, const char *s)
{
    while (*s && l->len < sizeof l->text - 1)
        l->text[l->len++] = *s++;
}

static void line_uint(line *l, uintptr_t v, unsigned base)
{
    char digits[20];
    size_t n = 0;
    do {
        digits[n++] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    while (n && l->len < sizeof l->text - 1)
        l->text[l->len++] = digits[--n];
}

static void line_write(line *l)
{
    l->text[l->len++] = '\n';
    const char *p = l->text;
    size_t left = l->len;
    while (left) {
        ssize_t n = write(STDERR_FILENO, p, left);
        if (n <= 0)
            return;
        p += n;
        left -= (size_t)n;
    }
}

void pa_log_line(const char *text)
{
    line l = {.len = 0};
    line_str(&l, "pyalloc: ");
    line_str(&l, text);
    line_write(&l);
}

void pa_check_failed(const char *file, int line_no, const char *text)
{
    line l = {.len = 0};
    line_str(&l, "pyalloc: ");
    line_str(&l, file);
    line_str(&l, ":");
    line_uint(&l, (uintptr_t)line_no, 10);
    line_str(&l, ": check failed: ");
    line_str(&l, text);
    line_write(&l);
    abort();
}

void pa_abort_pointer(const char *what, const void *address, const char *why)
{
    line l = {.len = 0};
    line_str(&l, "pyalloc: ");
    line_str(&l, what);
    line_str(&l, " 0x");
    line_uint(&l, (uintptr_t)address, 16);
    line_str(&l, ": ");
    line_str(&l, why);
    line_write(&l);
    abort();
}
