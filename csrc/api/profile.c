/* profile.c - the public functions of the heap profile, and PYALLOC_PROFILE.
 *
 * Owns the path that PYALLOC_PROFILE names.  Who starts, stops or writes holds pa_profiling_lock; the books are
 * heap/profile.c's, the counting heap/sampling.c's, the stacks sample.c's, the format profile_proto.c's.  A profile is
 * encoded into memory mapped for that and then written, with no lock held, so that a slow reader stops nobody and
 * nothing is allocated at exit.
 *
 * A program that forks goes on in both: the child has its parent's samples and counts on.  It writes a file when the
 * path has a "%p", so that it has a name of its own.
 */
#include "api/profile.h"

#include <errno.h>
#include <unistd.h>

#include "api/gzip.h"
#include "api/outfile.h"
#include "api/profile_proto.h"
#include "api/sample.h"
#include "base/options.h"
#include "heap/profile.h"
#include "sys/clock.h"
#include "sys/unwind.h"
#include "sys/vm.h"

static struct {
    pa_outfile file;
    pid_t process; /* that started it; 0: nothing is to be written */
} at_exit;

static void set_sampling(bool on)
{
    pa_lock_acquire(&pa_the_procs.lock); /* no P is made meanwhile */
    for (pa_proc *p = pa_the_procs.all; p; p = p->next_all)
        pa_mcache_set_sampling(&p->cache, on);
    pa_lock_release(&pa_the_procs.lock);
}

PA_EXPORT int pa_profile_start(size_t rate_bytes, uint64_t seed)
{
    if (rate_bytes == 0 || rate_bytes > PA_POISSON_MOST_RATE)
        return EINVAL;
    pa_proc_attach(); /* the fork handlers must be there */
    pa_unwind_prepare();
    pa_lock_acquire(&pa_profiling_lock);
    int error = pa_profile_open(rate_bytes, seed ? seed : pa_clock_unix_ns() ^ (uint64_t)getpid() << 32);
    if (error == 0)
        set_sampling(true);
    pa_lock_release(&pa_profiling_lock);
    return error;
}

PA_EXPORT bool pa_profile_stop(void)
{
    pa_lock_acquire(&pa_profiling_lock);
    bool was_on = pa_profile_close();
    if (was_on)
        set_sampling(false);
    pa_lock_release(&pa_profiling_lock);
    return was_on;
}

PA_EXPORT void pa_profile_discard(void)
{
    pa_lock_acquire(&pa_profiling_lock);
    pa_profile_forget();
    pa_lock_release(&pa_profiling_lock);
}

PA_EXPORT int pa_profile_write(int fd)
{
    pa_proto_out encoded = {0};
    pa_lock_acquire(&pa_profiling_lock);
    int error = pa_profile_encode(&encoded);
    pa_lock_release(&pa_profiling_lock);
    if (error == 0)
        error = pa_gzip_write(fd, encoded.data, encoded.len);
    pa_proto_free(&encoded);
    return error;
}

PA_EXPORT void pa_read_profile_stats(pa_profile_stats *out)
{
    pa_profile_view v;
    pa_profile_look(&v);
    *out = (pa_profile_stats){
        .on = pa_profile_round_racy() & 1,
        .rate_bytes = v.rate,
        .samples = v.samples,
        .lost = v.lost,
        .sites = v.site_count,
        .live = v.live,
    };
}

PA_EXPORT void pa_profile_set_walker(pa_profile_walker walker, const void *loop)
{
    pa_sample_set_walker(walker, loop);
}

/* ---- PYALLOC_PROFILE ---- */

static const char *why(int error)
{
    return error == EINVAL ? "PYALLOC_PROFILE_RATE is 0 or above 1 TiB" : pa_outfile_why(error);
}

static int fill(int fd, void *unused)
{
    (void)unused;
    return pa_profile_write(fd);
}

/* Who started it writes it; and the fork children, where each process has a file of its own. */
static bool is_ours(void)
{
    return at_exit.process && (at_exit.process == getpid() || pa_outfile_is_per_process(&at_exit.file));
}

void pa_profile_at_start(void)
{
    const char *name = (const char *)(intptr_t)pa_the_options.profile;
    if (!name || !*name)
        return;
    pa_the_options.profile = (int64_t)(intptr_t)at_exit.file.path;
    bool fits = pa_outfile_set(&at_exit.file, "PYALLOC_PROFILE", name);
    int error = fits ? pa_profile_start((size_t)pa_the_options.profile_rate, 0) : 0;
    if (fits && error == 0)
        at_exit.process = getpid();
    else
        pa_outfile_complain(&at_exit.file, "no profile", fits ? why(error) : "the path is too long");
}

PA_EXPORT bool pa_profile_finish(void)
{
    if (!is_ours())
        return false;
    pa_profile_stop();
    int error = pa_outfile_write(&at_exit.file, fill, NULL);
    if (error)
        pa_outfile_complain(&at_exit.file, "could not be written", why(error));
    at_exit.process = 0;
    return true;
}

void pa_profile_at_exit(void)
{
    if (at_exit.process) /* else nothing more of this is read in */
        pa_profile_finish();
}
