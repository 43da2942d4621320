/* assert.c - what happens when a check fails.
 *
 * Owns nothing, takes no lock.  The message is built on the stack and written with one write(2),
 * because the heap may be the thing that is broken.
 */
#include "base/assert.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/text.h"

void pa_log_line(const char *text)
{
    char room[512];
    pa_text t = PA_TEXT(room);
    pa_text_str(&t, "pyalloc: ");
    pa_text_str(&t, text);
    pa_text_write_line(&t, STDERR_FILENO);
}

void pa_check_failed(const char *file, int line_no, const char *text)
{
    char room[512];
    pa_text t = PA_TEXT(room);
    pa_text_str(&t, "pyalloc: ");
    pa_text_str(&t, file);
    pa_text_str(&t, ":");
    pa_text_uint(&t, (uint64_t)line_no, 10);
    pa_text_str(&t, ": check failed: ");
    pa_text_str(&t, text);
    pa_text_write_line(&t, STDERR_FILENO);
    abort();
}

void pa_abort_pointer(const char *what, const void *address, const char *why)
{
    char room[512];
    pa_text t = PA_TEXT(room);
    pa_text_str(&t, "pyalloc: ");
    pa_text_str(&t, what);
    pa_text_str(&t, " 0x");
    pa_text_uint(&t, (uintptr_t)address, 16);
    pa_text_str(&t, ": ");
    pa_text_str(&t, why);
    pa_text_write_line(&t, STDERR_FILENO);
    abort();
}
