/* observe.h - what the operating system says of this process: resident bytes, lazily freed bytes, faults, time. */
#ifndef PA_RSS_OBSERVE_H
#define PA_RSS_OBSERVE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static inline _Noreturn void give_up(const char *what)
{
    perror(what);
    exit(3);
}

/* A line "Name: n kB" of /proc/self/smaps_rollup, in bytes; exact, unlike statm, which lags by some pages a thread. */
static inline uint64_t rollup_bytes(const char *name)
{
    char line[256];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    if (!f)
        give_up("/proc/self/smaps_rollup");
    while (fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':')
            sscanf(line + strlen(name) + 1, "%llu", &kib);
    fclose(f);
    return kib * 1024;
}

static inline uint64_t rss_bytes(void) { return rollup_bytes("Rss"); }
static inline uint64_t lazy_free_bytes(void) { return rollup_bytes("LazyFree"); }

/* Cheap, but late by up to 64 pages a thread. */
static inline uint64_t rss_about_bytes(void)
{
    unsigned long size_pages = 0, resident_pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%lu %lu", &size_pages, &resident_pages) != 2)
        give_up("/proc/self/statm");
    fclose(f);
    return resident_pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static inline uint64_t minor_faults(void)
{
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (uint64_t)r.ru_minflt;
}

static inline uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t cpu_ns(void) { return clock_ns(CLOCK_PROCESS_CPUTIME_ID); }
static inline uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

static inline uint64_t next_random(uint64_t *state) /* splitmix64 */
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

#endif
