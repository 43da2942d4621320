/* exitfile.c - files that are written at exit, under the names that options gave.
 *
 * Owns nothing, no locks: written by the library's constructor, read by its destructor.  A file is written beside its
 * place and renamed, so that nobody sees half of one and processes that name the same file do not mix; the last one to
 * exit stays.  Nothing here allocates.
 */
#include "api/exitfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"

enum { SPARE_BYTES = 64 }; /* room for two process ids */

bool pa_exitfile_set(pa_exitfile *f, const char *option, const char *name)
{
    f->option = option;
    pa_text t = PA_TEXT(f->path);
    char folder[PA_EXITFILE_PATH_BYTES];
    if (*name != '/' && getcwd(folder, sizeof folder)) {
        pa_text_str(&t, folder);
        pa_text_char(&t, '/');
    }
    pa_text_str(&t, name);
    pa_text_cstr(&t);
    return t.len + SPARE_BYTES < t.capacity;
}

bool pa_exitfile_is_mine(const pa_exitfile *f)
{
    return f->process && (f->process == getpid() || strstr(f->path, "%p"));
}

static void expand(pa_text *t, const char *path)
{
    for (; *path; path++) {
        if (path[0] == '%' && path[1] == 'p') {
            pa_text_uint(t, (uint64_t)getpid(), 10);
            path++;
        } else {
            pa_text_char(t, *path);
        }
    }
}

static int write_file(const pa_exitfile *f, int (*body)(int fd))
{
    char final[PA_EXITFILE_PATH_BYTES], unfinished[PA_EXITFILE_PATH_BYTES + SPARE_BYTES];
    pa_text t = PA_TEXT(final), u = PA_TEXT(unfinished);
    expand(&t, f->path);
    pa_text_str(&u, pa_text_cstr(&t));
    pa_text_char(&u, '.');
    pa_text_uint(&u, (uint64_t)getpid(), 10);
    pa_text_cstr(&u);
    int fd = open(unfinished, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0)
        return errno;
    int error = body(fd);
    if (close(fd) != 0 && error == 0)
        error = errno;
    if (error == 0 && rename(unfinished, final) != 0)
        error = errno;
    if (error)
        unlink(unfinished);
    return error;
}

void pa_exitfile_complain(const pa_exitfile *f, const char *what, int error, const char *otherwise)
{
    char room[PA_EXITFILE_PATH_BYTES + 128];
    pa_text t = PA_TEXT(room);
    pa_text_str(&t, "pyalloc: ");
    pa_text_str(&t, f->option);
    pa_text_char(&t, '=');
    pa_text_printable(&t, f->path, strlen(f->path), 200);
    pa_text_str(&t, ": ");
    pa_text_str(&t, what);
    pa_text_str(&t, error == ENOENT   ? ": no such folder"
                    : error == EACCES ? ": permission denied"
                    : error == ENOSPC ? ": no space left"
                    : error == ENOMEM ? ": no memory"
                    : error == EINVAL ? otherwise
                                      : "");
    pa_text_write_line(&t, STDERR_FILENO);
}

void pa_exitfile_write(const pa_exitfile *f, int (*body)(int fd))
{
    int error = write_file(f, body);
    if (error)
        pa_exitfile_complain(f, "could not be written", error, "");
}
