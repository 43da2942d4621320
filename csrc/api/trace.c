/* trace.c - the public functions of the execution trace, and PYALLOC_TRACE.
 *
 * Owns the path that PYALLOC_TRACE names (api/outfile.h); the rings are sys/trace.c's, the format trace_json.c's.
 * Events are copied into memory mapped for that, so that writing a trace records nothing and needs no allocator at
 * exit.
 * Of several processes that name the same file the last one to exit stays.
 */
#include "api/trace.h"

#include <errno.h>
#include <unistd.h>

#include "api/outfile.h"
#include "api/trace_json.h"
#include "base/bits.h"
#include "base/options.h"
#include "sys/trace.h"
#include "sys/vm.h"
#include "world/proc.h"

static struct {
    pa_outfile file;
    pid_t process; /* that started it */
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

static const char *why(int error)
{
    return error == EINVAL ? "PYALLOC_TRACE_BYTES is below 8 KiB or above 4 GiB" : pa_outfile_why(error);
}

void pa_trace_at_start(void)
{
    const char *name = (const char *)(intptr_t)pa_the_options.trace;
    if (!name || !*name)
        return;
    pa_the_options.trace = (int64_t)(intptr_t)at_exit.file.path;
    bool fits = pa_outfile_set(&at_exit.file, "PYALLOC_TRACE", name);
    int error = fits ? pa_trace_start((size_t)pa_the_options.trace_bytes) : 0;
    if (fits && error == 0)
        at_exit.process = getpid();
    else
        pa_outfile_complain(&at_exit.file, "no trace", fits ? why(error) : "the path is too long");
}

static int fill(int fd, void *unused)
{
    (void)unused;
    return pa_trace_write(fd);
}

void pa_trace_at_exit(void)
{
    if (at_exit.process != getpid()) /* a fork child has no trace */
        return;
    pa_trace_stop();
    int error = pa_outfile_write(&at_exit.file, fill, NULL);
    if (error)
        pa_outfile_complain(&at_exit.file, "could not be written", why(error));
}
