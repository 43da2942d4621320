/* exitfile.h - a file that an option names and that is written when the process exits. */
#ifndef PA_EXITFILE_H
#define PA_EXITFILE_H

#include <sys/types.h>

#include "base/config.h"

enum { PA_EXITFILE_PATH_BYTES = 4096 };

typedef struct pa_exitfile {
    const char *option;                 /* for messages: "PYALLOC_TRACE" */
    char path[PA_EXITFILE_PATH_BYTES];  /* from the root; "%p" stands for the process id. Written at the start only */
    pid_t process;                      /* that started it; 0: nothing is to be written */
} pa_exitfile;

/* Keeps the path, which programs may overwrite in their environment. False when it is too long. Precondition: *f is
 * zeros, which cost a program no page. */
bool pa_exitfile_set(pa_exitfile *f, const char *option, const char *name);
/* Is it this process's business to write it? That which started it; and its fork children, where each has a file of its
 * own (%p). */
bool pa_exitfile_is_mine(const pa_exitfile *f);
/* Writes it by body(fd), which returns an errno; one line on stderr when that fails. */
void pa_exitfile_write(const pa_exitfile *f, int (*body)(int fd));
/* One line on stderr: the option, the path, what, and the errno's reason or otherwise when that is EINVAL. */
void pa_exitfile_complain(const pa_exitfile *f, const char *what, int error, const char *otherwise);

#endif
