/* anchor.h - what the C programs of bench/anchors share: clock, random numbers, histograms, options, output.
 *
 * The Go programs have the same in go/measure.go; whoever changes one changes the other. Options are words
 * name=value, output is one JSON object on one line.
 */
#ifndef PA_BENCH_ANCHOR_H
#define PA_BENCH_ANCHOR_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { ANCHOR_MAX_THREADS = 64 };

static inline void anchor_die(const char *what)
{
    fprintf(stderr, "anchor: %s\n", what);
    exit(1);
}

/* CLOCK_MONOTONIC through the vDSO, as Go's time.Since. */
static inline uint64_t anchor_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* A line on stderr with the seconds since the program's main began, so that a reader of gctrace lines, which
 * have their start in the same clock, knows which cycles lie between two of them. */
static inline void anchor_mark(const char *what, uint64_t main_began_ns)
{
    fprintf(stderr, "%s @%.3fs\n", what, 1e-9 * (double)(anchor_now_ns() - main_began_ns));
}

/* User and system time of the whole process. */
static inline double anchor_cpu_s(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static inline uint64_t anchor_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Uniform below limit (32 bits). */
static inline uint32_t anchor_below(uint64_t *state, uint32_t limit)
{
    return (uint32_t)(((anchor_random(state) >> 32) * limit) >> 32);
}

/* An order of 0..n-1: as counted, or shuffled. */
static inline uint32_t *anchor_order(uint32_t n, bool shuffled, uint64_t seed)
{
    uint32_t *order = malloc((size_t)n * sizeof *order);
    if (!order)
        anchor_die("out of memory");
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    for (uint32_t i = n; shuffled && i > 1; i--) {
        uint32_t j = anchor_below(&seed, i), t = order[j];
        order[j] = order[i - 1];
        order[i - 1] = t;
    }
    return order;
}

/* ---- Log-linear histogram of nanoseconds: 32 buckets a doubling, so within 3 % -------------------- */

enum { ANCHOR_SUB_BITS = 5, ANCHOR_SUB = 1 << ANCHOR_SUB_BITS, ANCHOR_BUCKETS = 60 * ANCHOR_SUB };

typedef struct anchor_histogram {
    uint64_t counts[ANCHOR_BUCKETS];
    uint64_t count, sum_ns, max_ns;
} anchor_histogram;

static inline unsigned anchor_bucket(uint64_t ns)
{
    if (ns < ANCHOR_SUB)
        return (unsigned)ns;
    unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - ANCHOR_SUB_BITS;
    return (shift << ANCHOR_SUB_BITS) + (unsigned)(ns >> shift);
}

static inline uint64_t anchor_bucket_ns(unsigned bucket)
{
    if (bucket < 2 * ANCHOR_SUB)
        return bucket;
    unsigned shift = (bucket >> ANCHOR_SUB_BITS) - 1;
    return ((uint64_t)(bucket - (shift << ANCHOR_SUB_BITS)) << shift) + ((uint64_t)1 << shift >> 1);
}

static inline void anchor_record(anchor_histogram *h, uint64_t ns)
{
    unsigned bucket = anchor_bucket(ns);
    h->counts[bucket < ANCHOR_BUCKETS ? bucket : ANCHOR_BUCKETS - 1]++;
    h->count++;
    h->sum_ns += ns;
    if (ns > h->max_ns)
        h->max_ns = ns;
}

static inline void anchor_merge(anchor_histogram *into, const anchor_histogram *from)
{
    for (unsigned i = 0; i < ANCHOR_BUCKETS; i++)
        into->counts[i] += from->counts[i];
    into->count += from->count;
    into->sum_ns += from->sum_ns;
    if (from->max_ns > into->max_ns)
        into->max_ns = from->max_ns;
}

static inline double anchor_quantile_ns(const anchor_histogram *h, double q)
{
    uint64_t rank = (uint64_t)ceil(q * (double)h->count), seen = 0;
    for (unsigned i = 0; i < ANCHOR_BUCKETS; i++) {
        seen += h->counts[i];
        if (seen >= rank && seen) {
            uint64_t ns = anchor_bucket_ns(i);
            return (double)(ns < h->max_ns ? ns : h->max_ns);
        }
    }
    return 0;
}

/* ---- Options: name=value ---------------------------------------------------------------------------- */

static inline const char *anchor_text(int argc, char **argv, const char *name, const char *otherwise)
{
    size_t length = strlen(name);
    for (int i = 1; i < argc; i++)
        if (!strncmp(argv[i], name, length) && argv[i][length] == '=')
            return argv[i] + length + 1;
    return otherwise;
}

static inline double anchor_number(int argc, char **argv, const char *name, double otherwise)
{
    const char *text = anchor_text(argc, argv, name, NULL);
    if (!text)
        return otherwise;
    char *end;
    double value = strtod(text, &end);
    if (*end || end == text || value < 0)
        anchor_die("a number that is none");
    return value;
}

/* ---- Output ----------------------------------------------------------------------------------------- */

static inline void anchor_print_stops(const anchor_histogram *stops)
{
    printf(", \"stops\": %llu, \"stop_p50_us\": %.2f, \"stop_p99_us\": %.2f, \"stop_max_us\": %.2f, "
           "\"stop_total_ms\": %.3f",
           (unsigned long long)stops->count, 1e-3 * anchor_quantile_ns(stops, 0.50),
           1e-3 * anchor_quantile_ns(stops, 0.99), 1e-3 * (double)stops->max_ns, 1e-6 * (double)stops->sum_ns);
}

/* The high water mark of this very program: wait4's knows also what forked it. */
static inline void anchor_print_memory(void)
{
    char line[256];
    unsigned long long kib = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "VmHWM: %llu", &kib) == 1)
            break;
    if (status)
        fclose(status);
    printf(", \"peak_rss_kib\": %llu", kib);
}

static inline void anchor_print_latency(const anchor_histogram *ops)
{
    printf(", \"op_p50_ns\": %.0f, \"op_p99_ns\": %.0f, \"op_p999_ns\": %.0f, \"op_max_us\": %.1f",
           anchor_quantile_ns(ops, 0.50), anchor_quantile_ns(ops, 0.99), anchor_quantile_ns(ops, 0.999),
           1e-3 * (double)ops->max_ns);
}

static inline int anchor_compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts values. */
static inline double anchor_median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, anchor_compare_doubles);
    return count ? values[count / 2] : 0;
}

#endif
