/* main.c - one program, one kernel a run, one line of JSON.
 *
 *     kernels KERNEL [--size N] [--size-max N] [--ops N] [--threads N] [--live N] [--order WORD]
 *                    [--seed N] [--trace FILE] [--output FILE] [--expect PATH] [--locks 1]
 *     kernels --list
 *
 * --locks 1 counts the locks that pyalloc takes.  It is asked for, since the functions that read them are code that a
 * program does not run: they would bring some 100 KiB of library pages into pyalloc's resident memory and no other's.
 *
 * --expect PATH is the guard of every comparison: the object that `malloc` resolves to must be PATH (or
 * "libc": the C library itself).  A preload that was misspelt, built for another machine or ignored
 * would otherwise quietly compare glibc with glibc.  Exit codes: 0 done, 2 usage, 3 failed, 4 the wrong
 * allocator.
 *
 * peak_rss_kib = VmHWM - fixed_kib, the kernel's own tables.  Everything that the allocator costs a
 * process from its start on stays in: its text, its tables, its threads.
 */
#define _GNU_SOURCE 1
#include "bench.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const bench_kernel *const kernels[] = {
    &bench_pair,    &bench_batch,    &bench_xthread, &bench_larson, &bench_threadtest, &bench_cache_scratch,
    &bench_sizemix, &bench_fragment, &bench_large,   &bench_growth, &bench_survivors,  &bench_replay,
    &bench_expand,
};
enum { KERNELS = sizeof kernels / sizeof kernels[0] };

static _Noreturn void usage(const char *what, const char *detail)
{
    dprintf(2,
            "kernels: %s%s\nusage: kernels KERNEL [--size N] [--size-max N] [--ops N] [--threads N]"
            " [--locks 1] [--live N] [--order WORD] [--seed N] [--trace FILE] [--output FILE] [--expect PATH]"
            " | --list\n",
            what, detail);
    _exit(2);
}

static uint64_t number(const char *option, const char *text)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end != '\0' || *text == '-')
        usage("not a number for ", option);
    return value;
}

/* The file that provides malloc in this process. */
static const char *malloc_provider(void)
{
    Dl_info info;
    void *found = dlsym(RTLD_DEFAULT, "malloc");
    if (found == NULL || dladdr(found, &info) == 0 || info.dli_fname == NULL)
        return "unknown";
    return info.dli_fname;
}

static bool is_libc(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    return strncmp(name, "libc.", 5) == 0 || strncmp(name, "libc-", 5) == 0 ||
           strncmp(name, "ld-musl", 7) == 0;
}

static void check_provider(const char *expect)
{
    static char want[PATH_MAX], have[PATH_MAX]; /* realpath into a buffer of ours does not allocate */
    const char *provider = malloc_provider();
    bool good;
    if (strcmp(expect, "libc") == 0)
        good = is_libc(provider);
    else
        good = realpath(expect, want) != NULL && realpath(provider, have) != NULL && strcmp(want, have) == 0;
    if (!good) {
        dprintf(2, "kernels: malloc should come from %s but comes from %s: the preload did not take effect\n",
                expect, provider);
        _exit(4);
    }
}

static size_t print_string(char *to, size_t room, const char *text)
{
    size_t n = 0;
    for (; *text != '\0' && n + 3 < room; text++) {
        if (*text == '"' || *text == '\\')
            to[n++] = '\\';
        to[n++] = *text;
    }
    to[n] = '\0';
    return n;
}

static void print_result(const bench_kernel *kernel, const bench_options *o, const bench_result *r,
                         size_t peak_kib, size_t rss_kib)
{
    static char line[8192], provider[2 * PATH_MAX];
    size_t fixed_kib = bench_fixed_kib();
    print_string(provider, sizeof provider, malloc_provider());
    int n = snprintf(line, sizeof line,
                     "{\"kernel\": \"%s\", \"ops\": %llu, \"seconds\": %.9f, \"ns_per_op\": %.4f, "
                     "\"cpu_ns_per_op\": %.4f, "
                     "\"peak_rss_kib\": %zu, \"vm_hwm_kib\": %zu, \"fixed_kib\": %zu, \"rss_kib\": %zu, "
                     "\"minor_faults\": %llu, \"threads\": %u, \"malloc\": \"%s\"",
                     kernel->name, (unsigned long long)r->ops, (double)r->elapsed_ns * 1e-9,
                     r->ops == 0 ? 0.0 : (double)r->elapsed_ns / (double)r->ops,
                     r->ops == 0 ? 0.0 : (double)r->cpu_ns / (double)r->ops,
                     peak_kib > fixed_kib ? peak_kib - fixed_kib : 0, peak_kib, fixed_kib, rss_kib,
                     (unsigned long long)r->minor_faults, o->threads, provider);
    for (unsigned i = 0; i < r->extras; i++)
        n += snprintf(line + n, sizeof line - (size_t)n, ", \"%s\": %lld", r->extra_name[i],
                      r->extra_value[i]);
    n += snprintf(line + n, sizeof line - (size_t)n, "}\n");
    for (int at = 0; at < n;) {
        ssize_t wrote = write(1, line + at, (size_t)(n - at));
        if (wrote <= 0)
            _exit(3);
        at += (int)wrote;
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (int i = 0; i < KERNELS; i++)
            dprintf(1, "%s\t%s\n", kernels[i]->name, kernels[i]->about);
        return 0;
    }
    if (argc < 2)
        usage("which kernel?", "");
    const bench_kernel *kernel = NULL;
    for (int i = 0; i < KERNELS; i++)
        if (strcmp(kernels[i]->name, argv[1]) == 0)
            kernel = kernels[i];
    if (kernel == NULL)
        usage("no such kernel: ", argv[1]);

    bench_options o = kernel->defaults;
    bool max_given = false;
    for (int i = 2; i < argc; i += 2) {
        const char *option = argv[i], *value = argv[i + 1];
        if (value == NULL)
            usage("a value is missing after ", option);
        if (strcmp(option, "--size") == 0) {
            o.size_bytes = number(option, value);
            if (!max_given)
                o.size_max_bytes = o.size_bytes;
        } else if (strcmp(option, "--size-max") == 0) {
            o.size_max_bytes = number(option, value);
            max_given = true;
        } else if (strcmp(option, "--ops") == 0) {
            o.ops = number(option, value);
        } else if (strcmp(option, "--threads") == 0) {
            o.threads = (unsigned)number(option, value);
        } else if (strcmp(option, "--locks") == 0) {
            bench_counts_locks = number(option, value) != 0;
        } else if (strcmp(option, "--live") == 0) {
            o.live = number(option, value);
        } else if (strcmp(option, "--seed") == 0) {
            o.seed = number(option, value);
        } else if (strcmp(option, "--order") == 0) {
            o.order = value;
        } else if (strcmp(option, "--trace") == 0) {
            o.trace = value;
        } else if (strcmp(option, "--output") == 0) {
            o.output = value;
        } else if (strcmp(option, "--expect") == 0) {
            check_provider(value);
        } else {
            usage("no such option: ", option);
        }
    }
    if (o.threads < 1 || o.threads > BENCH_MAX_THREADS)
        usage("--threads must be 1 to 64", "");
    if (o.size_max_bytes < o.size_bytes)
        usage("--size-max is less than --size", "");

    static bench_result result, rehearsal;
    bench_start(
        &rehearsal); /* so that the first use of clock and counters does not fault in the measured part */
    bench_stop(&rehearsal, 0);
    kernel->run(&o, &result);
    if (result.counts_locks) {
        bench_extra(&result, "shared_locks", result.shared_locks);
        bench_extra(&result, "slow_paths", result.slow_paths);
        bench_report_locks(&result);
    }
    size_t peak_kib = bench_peak_rss_kib(), rss_kib = bench_rss_kib();
    print_result(kernel, &o, &result, peak_kib > rss_kib ? peak_kib : rss_kib, rss_kib);
    return 0;
}
