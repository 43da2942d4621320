/* bench.h - what every workload kernel shares: options in, one result out, and a few tools.
 *
 * A kernel is a function that drives malloc, calloc, realloc and free with plain C calls; which
 * allocator answers is decided by LD_PRELOAD outside.  Three rules make the figures comparable:
 *
 *   1. The kernel's own tables come from bench_table (mmap, populated at once), never from malloc, and
 *      their size is subtracted from the peak RSS, because they are the same for every allocator.
 *   2. Work is a fixed number of operations, not a fixed time: otherwise a faster allocator would be
 *      charged for the memory of more work.
 *   3. Random sizes and orders are drawn before the clock starts wherever that is possible.
 */
#ifndef PYALLOC_BENCH_H
#define PYALLOC_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct bench_options {
    const char *order;     /* batch: lifo, fifo, random; pair: "loop" runs the empty loop */
    const char *trace;     /* replay: path of a flat operation file */
    const char *output;    /* expand: path to write */
    size_t size_bytes;     /* the size, or the smallest of a mix */
    size_t size_max_bytes; /* the largest of a mix; equal to size_bytes for one size */
    size_t live;           /* how many blocks (fragment: how many KiB) are live at a time */
    uint64_t ops;          /* how much to do, all threads together */
    uint64_t seed;
    unsigned threads;
} bench_options;

enum { BENCH_MAX_EXTRAS = 32, BENCH_MAX_THREADS = 64 };

typedef struct bench_result {
    uint64_t ops;          /* what was done between start and stop */
    uint64_t elapsed_ns;   /* CLOCK_MONOTONIC between start and stop */
    uint64_t cpu_ns;       /* processor time of all threads between start and stop */
    uint64_t minor_faults; /* of the whole process between start and stop */
    uint64_t start_ns;
    uint64_t start_cpu_ns;
    uint64_t start_faults;
    bool counts_locks;     /* malloc is pyalloc's: what it counted between start and stop */
    long long shared_locks, slow_paths; /* locks that threads share; entries under a thread's own lock */
    unsigned extras;
    const char *extra_name[BENCH_MAX_EXTRAS];
    long long extra_value[BENCH_MAX_EXTRAS];
} bench_result;

typedef struct bench_kernel {
    const char *name;
    const char *about;
    void (*run)(const bench_options *options, bench_result *result);
    bench_options defaults;
} bench_kernel;

extern const bench_kernel bench_pair, bench_batch, bench_xthread, bench_larson, bench_threadtest,
    bench_cache_scratch, bench_sizemix, bench_fragment, bench_large, bench_growth, bench_survivors, bench_replay,
    bench_expand;

/* --locks 1: bench_start and bench_stop count the locks that pyalloc takes. */
extern bool bench_counts_locks;

/* The measured part lies between these two; both may be called several times, times add up. */
void bench_start(bench_result *result);
void bench_stop(bench_result *result, uint64_t ops);
/* Holds and waits of the allocator's locks, when it is pyalloc and PYALLOC_DEBUG=lockstat=1 has it measure them. */
void bench_report_locks(bench_result *result);
void bench_extra(bench_result *result, const char *name, long long value);

uint64_t bench_now_ns(void);
uint64_t bench_minor_faults(void);
size_t bench_rss_kib(void);      /* exact, from smaps_rollup; outside the measured part only */
size_t bench_peak_rss_kib(void); /* VmHWM */
size_t bench_fixed_kib(void);    /* what bench_table has handed out */

void *bench_table(size_t nbytes);
_Noreturn void bench_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Runs body(index, arg) on `threads` threads and measures from the moment when all of them stand
 * ready until the last has finished; one thread means the calling one. */
void bench_parallel(unsigned threads, void (*body)(unsigned index, void *arg), void *arg,
                    bench_result *result, uint64_t ops);

/* The compiler must believe that somebody looks at p, or it may remove a malloc and its free. */
static inline void bench_escape(void *p)
{
    __asm__ volatile("" : : "g"(p) : "memory");
}

/* splitmix64 (Steele, Lea, Flood 2014): small state, any seed will do. */
static inline uint64_t bench_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline size_t bench_random_below(uint64_t *state, size_t bound)
{
    return (size_t)(((bench_random(state) >> 32) * (uint64_t)bound) >> 32);
}

static inline size_t bench_random_size(uint64_t *state, const bench_options *o)
{
    return o->size_bytes + bench_random_below(state, o->size_max_bytes - o->size_bytes + 1);
}

/* malloc that must not fail, and whose first byte is written, as any program would do. */
static inline void *bench_malloc(size_t nbytes)
{
    char *p = malloc(nbytes);
    if (__builtin_expect(p == NULL, 0))
        bench_die("malloc(%zu) failed", nbytes);
    *(volatile char *)p = 1;
    bench_escape(p);
    return p;
}

static inline void bench_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
