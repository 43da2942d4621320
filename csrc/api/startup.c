/* startup.c - what happens when the library is loaded and when the process exits.
 *
 * The constructor reads the options (base/options.h), sets the memory limit, asks for huge pages where that is wanted,
 * and for the background thread; allocation does not wait for it.  The destructor writes the summary that
 * PYALLOC_STATS_AT_EXIT asks for: the library depends on the C library only, so it runs after nearly everybody else's.
 * Programs close their stderr before that (coreutils do), so a duplicate is made at start, only when the option is on;
 * a daemon may close that too and reuse its number, so it must still be the same file at the end.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/live.h"
#include "api/peaks.h"
#include "api/profile.h"
#include "api/summary.h"
#include "api/trace.h"
#include "base/lockstat.h"
#include "base/options.h"
#include "gc/scavenge.h"
#include "heap/gcside.h"
#include "include/pyalloc.h"
#include "sys/clock.h"
#include "world/proc.h"

enum { LEAST_FD = 200 }; /* above what shells and their scripts number themselves */

static struct {
    int fd;
    dev_t device;
    ino_t inode;
} report = {.fd = -1};

static bool same_file(int fd)
{
    struct stat st;
    return fd >= 0 && fstat(fd, &st) == 0 && st.st_dev == report.device && st.st_ino == report.inode;
}

static void open_report(void)
{
    struct stat st;
    if (fstat(STDERR_FILENO, &st) != 0)
        return;
    report.device = st.st_dev;
    report.inode = st.st_ino;
    report.fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, LEAST_FD);
    if (report.fd < 0)
        report.fd = STDERR_FILENO;
}

static uint64_t now_ns(void)
{
    return pa_clock_now_ns();
}

static __attribute__((constructor)) void start(void)
{
    pa_options_load();
    pa_the_heap.lock.rank = PA_RANK_MHEAP; /* the limit and the thread are asked for before there is a heap */
    if (pa_the_options.lockstat) {
        pa_heap_rank_central_locks(&pa_the_heap);
        pa_lockstat_start(now_ns);
    }
    if (pa_the_options.stats_at_exit)
        open_report();
    if (pa_the_options.memlimit != PA_OFF_BYTES)
        pa_limit_set(&pa_the_heap, (uint64_t)pa_the_options.memlimit);
    if (pa_the_options.huge_pages) /* the loader may have allocated */
        for (pa_arena *a = __atomic_load_n(&pa_the_heap.arenas, __ATOMIC_ACQUIRE); a;
             a = __atomic_load_n(&a->next, __ATOMIC_ACQUIRE))
            pa_gcside_advise_explicit(&pa_the_heap, a->base, PA_ARENA_BYTES);
    if (pa_the_options.background)
        pa_scavenge_enable();
    pa_trace_at_start();
    if (pa_the_options.live)
        pa_live_at_start();
    if (pa_the_options.report) /* asked here: that code lies where a small program has no pages */
        pa_peaks_at_start();
    pa_profile_at_start();
}

PA_EXPORT bool pa_start_background(void)
{
    if (pa_options_is_set(&pa_the_options.background) && !pa_the_options.background)
        return false;
    pa_scavenge_enable();
    return true;
}

static __attribute__((destructor)) void finish(void)
{
    if (pa_the_options.stats_at_exit && same_file(report.fd))
        pa_summary_write(report.fd, "statistics at exit");
    if (pa_the_options.report)
        pa_peaks_at_exit();
    pa_trace_at_exit();
    pa_profile_at_exit();
}

PA_EXPORT bool pa_option(int index, pa_option_info *out)
{
    pa_option_row row;
    if (index < 0 || !pa_options_row((unsigned)index, &row))
        return false;
    *out = (pa_option_info){
        .name = row.name,
        .type = row.type,
        .default_text = row.default_text,
        .source = row.source,
        .doc = row.doc,
        .value = row.value,
    };
    return true;
}
