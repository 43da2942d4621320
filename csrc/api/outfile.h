/* outfile.h - a file that an option names, for a process to write when it is at its end or in the middle of something.
 */
#ifndef PA_OUTFILE_H
#define PA_OUTFILE_H

#include <stddef.h>

#include "base/config.h"

enum { PA_OUTFILE_PATH_BYTES = 4096 };

typedef struct pa_outfile {
    const char *option;               /* that named it, for messages */
    char path[PA_OUTFILE_PATH_BYTES]; /* from the root, %p in it; empty: none. Written at the start only */
} pa_outfile;

/* Takes a copy of name, made absolute: programs overwrite their environment and change their folder. False when it is
 * too long. */
bool pa_outfile_set(pa_outfile *f, const char *option, const char *name);
/* Does "%p" stand in the path, so that each process has a file of its own? */
bool pa_outfile_is_per_process(const pa_outfile *f);
/* Has fill(fd, context) write a whole file beside the place, then renames it, so that nobody sees half of one and
 * processes that name the same file do not mix. 0 or the errno of what went wrong; fill returns the same. Allocates
 * nothing. */
int pa_outfile_write(const pa_outfile *f, int (*fill)(int fd, void *context), void *context);
/* Opens what was written, for reading; -1 when there is nothing. */
int pa_outfile_open(const pa_outfile *f);
/* One line on stderr: the option, what, and why if that is known. */
void pa_outfile_complain(const pa_outfile *f, const char *what, const char *why);
/* What an errno means here; empty for those that need no explanation. */
const char *pa_outfile_why(int error);

#endif
