/* trace.c - the public functions of the execution trace, and PYALLOC_TRACE.
 *
 * Owns the path that PYALLOC_TRACE names, copied at the start, because programs overwrite their environment (to show a
 * title in ps) and change their folder; the rings are sys/trace.c's, the format trace_json.c's, the file exitfile.c's.
 * Events are copied into memory mapped for that, so that writing a trace records nothing and needs no allocator at
 * exit.
 */
#include "api/trace.h"

#include <errno.h>
#include <unistd.h>

#include "api/exitfile.h"
#include "api/trace_json.h"
#include "base/bits.h"
#include "base/options.h"
#include "sys/trace.h"
#include "sys/vm.h"
#include "world/proc.h"

static pa_exitfile at_exit;

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

void pa_trace_at_start(void)
{
    const char *name = (const char *)(intptr_t)pa_the_options.trace;
    if (!name || !*name)
        return;
    pa_the_options.trace = (int64_t)(intptr_t)at_exit.path;
    bool fits = pa_exitfile_set(&at_exit, "PYALLOC_TRACE", name);
    int error = fits ? pa_trace_start((size_t)pa_the_options.trace_bytes) : 0;
    if (fits && error == 0)
        at_exit.process = getpid();
    else
        pa_exitfile_complain(&at_exit, "no trace", error, ": PYALLOC_TRACE_BYTES is below 8 KiB or above 4 GiB");
}

void pa_trace_at_exit(void)
{
    if (at_exit.process != getpid()) /* a fork child has no trace */
        return;
    pa_trace_stop();
    pa_exitfile_write(&at_exit, pa_trace_write);
}
