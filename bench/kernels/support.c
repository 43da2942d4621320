/* support.c - clocks, memory figures, tables and threads for the kernels.
 *
 * Nothing here may call malloc while a kernel runs: /proc is read with open and read into a buffer on
 * the stack, tables come from mmap.  Peak RSS is VmHWM, which Linux brings up to date whenever RSS is about
 * to fall and when it is read.  Since Linux 6.2 the counters behind VmHWM and VmRSS may lag by 32 pages a
 * processor; so current RSS comes from smaps_rollup, which is exact, and main.c takes the greater of the
 * two as the peak.
 */
#define _GNU_SOURCE 1
#include "bench.h"
#include "include/pyalloc.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static size_t table_bytes;

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t bench_now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t bench_minor_faults(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)usage.ru_minflt;
}

bool bench_counts_locks;

/* Adds what was counted so far, times sign; nothing where malloc is not pyalloc's. */
static void count_locks(bench_result *result, int sign)
{
    static pa_snapshot s; /* some 10 KiB */
    if (!bench_counts_locks)
        return;
    void (*read_snapshot)(pa_snapshot *) = (void (*)(pa_snapshot *))(uintptr_t)dlsym(RTLD_DEFAULT, "pa_read_snapshot");
    if (read_snapshot == NULL)
        return;
    read_snapshot(&s);
    result->counts_locks = true;
    result->shared_locks += sign * (long long)(s.mem.mheap_lock_acquisitions + s.central_lock_acquisitions);
    result->slow_paths += sign * (long long)s.slow_path_entries;
}

void bench_start(bench_result *result)
{
    count_locks(result, -1);
    result->start_faults = bench_minor_faults();
    result->start_cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    result->start_ns = bench_now_ns();
}

void bench_stop(bench_result *result, uint64_t ops)
{
    result->elapsed_ns += bench_now_ns() - result->start_ns;
    result->cpu_ns += clock_ns(CLOCK_PROCESS_CPUTIME_ID) - result->start_cpu_ns;
    result->minor_faults += bench_minor_faults() - result->start_faults;
    result->ops += ops;
    count_locks(result, 1);
}

void bench_extra(bench_result *result, const char *name, long long value)
{
    if (result->extras == BENCH_MAX_EXTRAS)
        bench_die("too many extra figures");
    result->extra_name[result->extras] = name;
    result->extra_value[result->extras++] = value;
}

void bench_report_locks(bench_result *result)
{
    enum { KINDS = 24, REPORTED = 3 };
    static const char *const reported[REPORTED] = {"MHEAP", "MCENTRAL", "PROC_SLOW"};
    static pa_lock_stats kinds[KINDS];
    static char names[REPORTED * 6][40];
    int (*read_locks)(pa_lock_stats *, int) =
        (int (*)(pa_lock_stats *, int))(uintptr_t)dlsym(RTLD_DEFAULT, "pa_read_lock_stats");
    int n = read_locks == NULL ? 0 : read_locks(kinds, KINDS), at = 0;
    for (int i = 0; i < n; i++) {
        const pa_lock_stats *k = &kinds[i];
        const struct {
            const char *what;
            uint64_t value;
        } figures[] = {{"taken", k->acquisitions}, {"hold_ns", k->hold_ns}, {"hold_max_ns", k->hold_max_ns},
                       {"waits", k->waits},        {"wait_ns", k->wait_ns}, {"wait_max_ns", k->wait_max_ns}};
        for (int which = 0; which < REPORTED; which++) {
            if (strcmp(k->name, reported[which]) != 0)
                continue;
            for (size_t f = 0; f < sizeof figures / sizeof *figures; f++, at++) {
                snprintf(names[at], sizeof names[at], "lock_%s_%s", k->name, figures[f].what);
                bench_extra(result, names[at], (long long)figures[f].value);
            }
        }
    }
}

/* The number behind `key` in a /proc file of lines "Key:   123 kB"; 0 when there is none. */
static size_t proc_kib(const char *path, const char *key)
{
    char text[8192];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    size_t length = 0;
    ssize_t got;
    while (length < sizeof text - 1 && (got = read(fd, text + length, sizeof text - 1 - length)) > 0)
        length += (size_t)got;
    close(fd);
    text[length] = '\0';
    const char *at = strstr(text, key);
    return at == NULL ? 0 : (size_t)strtoull(at + strlen(key), NULL, 10);
}

size_t bench_rss_kib(void)
{
    size_t kib = proc_kib("/proc/self/smaps_rollup", "\nRss:");
    return kib != 0 ? kib : proc_kib("/proc/self/status", "\nVmRSS:");
}

size_t bench_peak_rss_kib(void)
{
    return proc_kib("/proc/self/status", "\nVmHWM:");
}

size_t bench_fixed_kib(void)
{
    return table_bytes / 1024;
}

void *bench_table(size_t nbytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    nbytes = (nbytes + page) / page * page;
    void *p = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (p == MAP_FAILED)
        bench_die("no memory for a table of %zu bytes", nbytes);
    table_bytes += nbytes;
    return p;
}

_Noreturn void bench_die(const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    dprintf(2, "kernels: %s\n", text);
    _exit(3);
}

typedef struct worker {
    unsigned index;
    void (*body)(unsigned, void *);
    void *arg;
    pthread_barrier_t *ready;
} worker;

static void *worker_main(void *p)
{
    worker *w = p;
    pthread_barrier_wait(w->ready);
    w->body(w->index, w->arg);
    return NULL;
}

void bench_parallel(unsigned threads, void (*body)(unsigned index, void *arg), void *arg,
                    bench_result *result, uint64_t ops)
{
    if (threads <= 1) {
        bench_start(result);
        body(0, arg);
        bench_stop(result, ops);
        return;
    }
    static worker workers[BENCH_MAX_THREADS];
    static pthread_t ids[BENCH_MAX_THREADS];
    pthread_barrier_t ready;
    pthread_barrier_init(&ready, NULL, threads + 1);
    for (unsigned i = 0; i < threads; i++) {
        workers[i] = (worker){i, body, arg, &ready};
        if (pthread_create(&ids[i], NULL, worker_main, &workers[i]) != 0)
            bench_die("cannot start thread %u", i);
    }
    bench_start(result);
    pthread_barrier_wait(&ready);
    for (unsigned i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    bench_stop(result, ops);
    pthread_barrier_destroy(&ready);
}
