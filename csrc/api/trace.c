/* trace.c - the public functions of the execution trace, and PYALLOC_TRACE.
 *
 * Owns the path that PYALLOC_TRACE names, copied at the start, because programs overwrite their environment (to show a
 * title in ps) and change their folder; the rings are sys/trace.c's, the format trace_json.c's.  Events
 * are copied into memory mapped for that, so that writing a trace records nothing and needs no allocator at exit.
 *
 * The file is written beside its place and renamed, so that nobody sees half of one and processes that name the same
 * file do not mix; the last one to exit stays.  "%p" in the path becomes the process id.
 */
#include "api/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/trace_json.h"
#include "base/bits.h"
#include "base/options.h"
#include "base/text.h"
#include "sys/trace.h"
#include "sys/vm.h"
#include "world/proc.h"

enum { PATH_BYTES = 4096 };

static struct {
    char path[PATH_BYTES]; /* empty: none. Written at the start only */
    pid_t process;         /* that started it */
} at_exit;

PA_EXPORT int pa_trace_start(size_t nbytes)
{
    int error = pa_trace_open(nbytes); /* first: if this is what makes the heap, that is recorded */
    pa_proc_attach();                  /* the fork handlers must be there */
    return error;
}

PA_EXPORT bool pa_trace_stop(void)
{
    return pa_trace_close();
}

PA_EXPORT void pa_trace_discard(void)
{
    pa_trace_forget();
}

PA_EXPORT size_t pa_trace_capacity_events(void)
{
    return pa_trace_capacity();
}

PA_EXPORT size_t pa_trace_read(pa_trace_event *out, size_t capacity, uint64_t *lost)
{
    uint64_t missing;
    size_t count = pa_trace_copy(out, capacity, &missing);
    pa_trace_sort_by_time(out, count);
    if (lost)
        *lost = missing;
    return count;
}

PA_EXPORT int pa_trace_write(int fd)
{
    uint64_t lost = 0;
    size_t capacity = pa_trace_capacity(), nbytes = capacity * sizeof(pa_trace_event);
    if (capacity == 0)
        return pa_trace_json_write(fd, NULL, 0, 0);
    nbytes = pa_round_up(nbytes, pa_vm_page_size_bytes());
    pa_trace_event *events = pa_vm_map(nbytes);
    if (!events)
        return ENOMEM;
    size_t count = pa_trace_read(events, capacity, &lost);
    int error = pa_trace_json_write(fd, events, count, lost);
    pa_vm_unmap(events, nbytes);
    return error;
}

/* ---- PYALLOC_TRACE ---- */

static void complain(const char *what, int error)
{
    char room[PATH_BYTES + 128];
    pa_text t = PA_TEXT(room);
    pa_text_str(&t, "pyalloc: PYALLOC_TRACE=");
    pa_text_printable(&t, at_exit.path, strlen(at_exit.path), 200);
    pa_text_str(&t, ": ");
    pa_text_str(&t, what);
    pa_text_str(&t, error == ENOENT    ? ": no such folder"
                    : error == EACCES  ? ": permission denied"
                    : error == ENOSPC  ? ": no space left"
                    : error == ENOMEM  ? ": no memory"
                    : error == EINVAL  ? ": PYALLOC_TRACE_BYTES is below 8 KiB or above 4 GiB"
                                       : "");
    pa_text_write_line(&t, STDERR_FILENO);
}

/* The path as it is to be at exit: from the root, %p replaced. False when it is too long. */
static bool set_path(const char *name)
{
    pa_text t = PA_TEXT(at_exit.path);
    char folder[PATH_BYTES];
    if (*name != '/' && getcwd(folder, sizeof folder)) {
        pa_text_str(&t, folder);
        pa_text_char(&t, '/');
    }
    for (; *name; name++) {
        if (name[0] == '%' && name[1] == 'p') {
            pa_text_uint(&t, (uint64_t)getpid(), 10);
            name++;
        } else {
            pa_text_char(&t, *name);
        }
    }
    pa_text_cstr(&t);
    return t.len + 32 < t.capacity; /* room for what the unfinished file is called */
}

void pa_trace_at_start(void)
{
    const char *name = (const char *)(intptr_t)pa_the_options.trace;
    if (!name || !*name)
        return;
    pa_the_options.trace = (int64_t)(intptr_t)at_exit.path;
    bool fits = set_path(name);
    int error = fits ? pa_trace_start((size_t)pa_the_options.trace_bytes) : 0;
    if (fits && error == 0)
        at_exit.process = getpid();
    else
        complain("no trace", error);
}

static int write_file(void)
{
    char unfinished[PATH_BYTES + 32];
    pa_text t = PA_TEXT(unfinished);
    pa_text_str(&t, at_exit.path);
    pa_text_char(&t, '.');
    pa_text_uint(&t, (uint64_t)getpid(), 10);
    pa_text_cstr(&t);
    int fd = open(unfinished, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0)
        return errno;
    int error = pa_trace_write(fd);
    if (close(fd) != 0 && error == 0)
        error = errno;
    if (error == 0 && rename(unfinished, at_exit.path) != 0)
        error = errno;
    if (error)
        unlink(unfinished);
    return error;
}

void pa_trace_at_exit(void)
{
    if (at_exit.process != getpid())
        return;
    pa_trace_stop();
    int error = write_file();
    if (error)
        complain("could not be written", error);
}
