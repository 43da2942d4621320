/* pagealloc_bench.c - what taking and giving back 1..64 pages costs in a fragmented address space.
 *
 * Build and run from the project's root (fake addresses: only metadata is touched):
 *   cc -O2 -std=c11 -D_GNU_SOURCE -Icsrc bench/pagealloc_bench.c csrc/pages/[a-z]*.c csrc/base/{assert,text}.c \
 *      csrc/sys/vm_linux.c -o pagealloc_bench && ./pagealloc_bench [pairs [rounds]]
 *
 * For each size the space is filled with runs of 1..64 pages, and a random half of the runs is given back.
 * Then each step gives back one random run and takes one of a random length; the time of such a pair, less
 * the clock's own, is one sample. The sizes take turns, round by round, so that a noisy moment hits all.
 * Prints one JSON object: per size the median and 99th percentile of a pair in ns, and the ratio of the
 * medians from the smallest to the largest size.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "pages/pagealloc.h"

enum { SIZES = 3 };
static const size_t size_gib[SIZES] = {1, 16, 256};
static const uintptr_t window_base = (uintptr_t)0xc0 << 32;

typedef struct run {
    uintptr_t base;
    size_t npages;
} run;

typedef struct space {
    pa_pagealloc pages;
    run *runs;
    size_t count;
    uint64_t seed;
    uint32_t *samples;
    size_t sample_count;
} space;

static void *map(void *ctx, size_t nbytes)
{
    (void)ctx;
    void *p = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static bool commit(void *ctx, void *addr, size_t nbytes)
{
    (void)ctx, (void)addr, (void)nbytes;
    return true;
}

static const pa_page_hooks hooks = {.reserve = map, .commit = commit};

static void die(const char *what)
{
    fprintf(stderr, "pagealloc_bench: %s\n", what);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t rnd(space *s)
{
    s->seed ^= s->seed << 13;
    s->seed ^= s->seed >> 7;
    s->seed ^= s->seed << 17;
    return s->seed * 0x2545f4914f6cdd1du >> 16;
}

static void *need(size_t nbytes)
{
    void *p = map(NULL, nbytes);
    if (!p)
        die("no memory for the benchmark's own tables");
    return p;
}

static void fill(space *s, size_t gib, size_t max_samples)
{
    unsigned bits = 34;
    while (((size_t)1 << bits) < gib * PA_GIB)
        bits++;
    if (!pa_pagealloc_init(&s->pages, window_base, bits, &hooks) ||
        !pa_pagealloc_grow(&s->pages, window_base, gib * PA_GIB))
        die("the page allocator refused to start");
    s->seed = 0x9e3779b97f4a7c15u + gib;
    s->runs = need((gib * PA_GIB / PA_PAGE_BYTES + 1) * sizeof(run));
    s->samples = need(max_samples * sizeof *s->samples);
    for (;;) {
        size_t scavenged, n = 1 + rnd(s) % 64;
        uintptr_t base = pa_pagealloc_alloc(&s->pages, n, &scavenged);
        if (!base)
            break;
        s->runs[s->count++] = (run){base, n};
    }
    for (size_t left = s->count / 2; left; left--) {
        size_t i = rnd(s) % s->count;
        pa_pagealloc_free(&s->pages, s->runs[i].base, s->runs[i].npages);
        s->runs[i] = s->runs[--s->count];
    }
}

static void measure(space *s, size_t pairs, uint64_t clock_ns)
{
    for (size_t k = 0; k < pairs; k++) {
        run *r = &s->runs[rnd(s) % s->count], old = *r;
        size_t scavenged, n = 1 + rnd(s) % 64;
        uint64_t t0 = now_ns();
        pa_pagealloc_free(&s->pages, old.base, old.npages);
        uintptr_t base = pa_pagealloc_alloc(&s->pages, n, &scavenged);
        uint64_t t = now_ns() - t0;
        *r = (run){base, n};
        if (!base)
            die("out of pages");
        s->samples[s->sample_count++] = (uint32_t)(t > clock_ns ? t - clock_ns : 0);
    }
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint64_t clock_cost_ns(void)
{
    static uint32_t t[1001];
    for (size_t i = 0; i < 1001; i++) {
        uint64_t t0 = now_ns();
        t[i] = (uint32_t)(now_ns() - t0);
    }
    qsort(t, 1001, sizeof *t, by_value);
    return t[500];
}

int main(int argc, char **argv)
{
    size_t pairs = argc > 1 ? strtoull(argv[1], NULL, 10) : 20000;
    size_t rounds = argc > 2 ? strtoull(argv[2], NULL, 10) : 10;
    static space spaces[SIZES];
    if (pairs == 0 || rounds == 0)
        die("usage: pagealloc_bench [pairs [rounds]]");
    for (size_t i = 0; i < SIZES; i++)
        fill(&spaces[i], size_gib[i], pairs * rounds);
    uint64_t clock_ns = clock_cost_ns();
    for (size_t i = 0; i < SIZES; i++) { /* warm up */
        measure(&spaces[i], pairs, clock_ns);
        spaces[i].sample_count = 0;
    }
    for (size_t r = 0; r < rounds; r++)
        for (size_t i = 0; i < SIZES; i++)
            measure(&spaces[i], pairs, clock_ns);
    printf("{\"unit\": \"ns per alloc + free of 1..64 pages\", \"clock_ns\": %llu, \"sizes\": [",
           (unsigned long long)clock_ns);
    uint32_t median[SIZES];
    for (size_t i = 0; i < SIZES; i++) {
        space *s = &spaces[i];
        const char *broken;
        if (!pa_pagealloc_check(&s->pages, &broken))
            die(broken);
        qsort(s->samples, s->sample_count, sizeof *s->samples, by_value);
        median[i] = s->samples[s->sample_count / 2];
        printf("%s{\"gib\": %zu, \"runs\": %zu, \"median_ns\": %u, \"p99_ns\": %u}", i ? ", " : "",
               size_gib[i], s->count, median[i], s->samples[s->sample_count / 100 * 99]);
    }
    printf("], \"ratio_256_to_1\": %.3f}\n", median[0] ? (double)median[SIZES - 1] / median[0] : 0.0);
    return 0;
}
