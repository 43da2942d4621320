/* outfile.c - files that options name: the execution trace (api/trace.c), the report of peaks (api/peaks.c).
 *
 * Owns no state and takes no lock: a pa_outfile is written at the start of the process and read afterwards.  A file is
 * written beside its place and renamed; the last process to do so stays.  "%p" in the path becomes the process id
 * when a file is written, so a child of fork has one of its own.  Paths are built on the stack: nothing here allocates.
 */
#include "api/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"

enum { SUFFIX_ROOM = 32, NUMBERS_ROOM = 64 }; /* for ".pid" behind, and what %p grows to */

bool pa_outfile_set(pa_outfile *f, const char *option, const char *name)
{
    pa_text t = PA_TEXT(f->path);
    char folder[PA_OUTFILE_PATH_BYTES];
    f->option = option;
    if (*name != '/' && getcwd(folder, sizeof folder)) {
        pa_text_str(&t, folder);
        pa_text_char(&t, '/');
    }
    pa_text_str(&t, name);
    pa_text_cstr(&t);
    return t.len + NUMBERS_ROOM < t.capacity;
}

bool pa_outfile_is_per_process(const pa_outfile *f)
{
    return strstr(f->path, "%p") != NULL;
}

static void put_path(pa_text *t, const char *pattern)
{
    for (; *pattern; pattern++) {
        if (pattern[0] == '%' && pattern[1] == 'p') {
            pa_text_uint(t, (uint64_t)getpid(), 10);
            pattern++;
        } else {
            pa_text_char(t, *pattern);
        }
    }
    pa_text_cstr(t);
}

int pa_outfile_write(const pa_outfile *f, int (*fill)(int fd, void *context), void *context)
{
    char place[PA_OUTFILE_PATH_BYTES + NUMBERS_ROOM], unfinished[sizeof place + SUFFIX_ROOM];
    pa_text at = PA_TEXT(place), t = PA_TEXT(unfinished);
    put_path(&at, f->path);
    pa_text_str(&t, place);
    pa_text_char(&t, '.');
    pa_text_uint(&t, (uint64_t)getpid(), 10);
    pa_text_cstr(&t);
    int fd = open(unfinished, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0)
        return errno;
    int error = fill(fd, context);
    if (close(fd) != 0 && error == 0)
        error = errno;
    if (error == 0 && rename(unfinished, place) != 0)
        error = errno;
    if (error)
        unlink(unfinished);
    return error;
}

int pa_outfile_open(const pa_outfile *f)
{
    char place[PA_OUTFILE_PATH_BYTES + NUMBERS_ROOM];
    pa_text at = PA_TEXT(place);
    put_path(&at, f->path);
    return open(place, O_RDONLY | O_CLOEXEC);
}

const char *pa_outfile_why(int error)
{
    return error == ENOENT   ? "no such folder"
           : error == EACCES ? "permission denied"
           : error == EROFS  ? "read-only file system"
           : error == ENOSPC ? "no space left"
           : error == ENOMEM ? "no memory"
                             : "";
}

void pa_outfile_complain(const pa_outfile *f, const char *what, const char *why)
{
    char room[512];
    pa_text t = PA_TEXT(room);
    pa_text_str(&t, "pyalloc: ");
    pa_text_str(&t, f->option);
    pa_text_char(&t, '=');
    pa_text_printable(&t, f->path, strlen(f->path), 200);
    pa_text_str(&t, ": ");
    pa_text_str(&t, what);
    if (*why) {
        pa_text_str(&t, ": ");
        pa_text_str(&t, why);
    }
    pa_text_write_line(&t, STDERR_FILENO);
}
