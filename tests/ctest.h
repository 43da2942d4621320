/* ctest.h - what all C test programs share: failing, random numbers, patterns.
 *
 * A program prints one line on success and returns 0; the first broken requirement prints one line to
 * stderr and ends the process with 1.  Nothing here allocates with the heap under test.
 */
#ifndef PA_CTEST_H
#define PA_CTEST_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STRESS_SANITIZED 1
#else
#define STRESS_SANITIZED 0
#endif

static inline _Noreturn void fail_at(const char *file, int line, const char *what, const char *format, ...)
{
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s:%d: [%d] not so: %s %s\n", file, line, (int)getpid(), what, text);
    fflush(stderr);
    _exit(1);
}

/* Always on. More arguments are a printf format and its values. */
#define REQUIRE(cond, ...) ((cond) ? (void)0 : fail_at(__FILE__, __LINE__, #cond, "" __VA_ARGS__))

static inline long argument(int argc, char **argv, int i, long otherwise)
{
    return argc > i ? strtol(argv[i], NULL, 0) : otherwise;
}

/* ---- Random numbers: splitmix64 ---- */

static inline uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline size_t random_below(uint64_t *state, size_t n) { return random_next(state) % n; }

/* 0..300 KiB, skewed small. */
static inline size_t random_size(uint64_t *state)
{
    size_t kind = random_below(state, 100);
    if (kind < 60)
        return random_below(state, 129);
    if (kind < 85)
        return random_below(state, 1025);
    if (kind < 96)
        return random_below(state, 32 * 1024 + 1);
    return random_below(state, 300 * 1024 + 1);
}

/* ---- Patterns: every byte of small blocks, both ends and one byte in 199 of others ---- */

static inline unsigned char pattern_byte(uint32_t seed, size_t i)
{
    return (unsigned char)((seed + (uint32_t)i) * 2654435761u >> 24);
}

enum { PATTERN_WHOLE_BYTES = 2048, PATTERN_END_BYTES = 128, PATTERN_STEP = 199 };

static inline size_t pattern_next(size_t i, size_t nbytes)
{
    bool inside =
        nbytes > PATTERN_WHOLE_BYTES && i >= PATTERN_END_BYTES && i + PATTERN_STEP < nbytes - PATTERN_END_BYTES;
    return i + (inside ? PATTERN_STEP : 1);
}

static inline void pattern_fill(void *p, size_t nbytes, uint32_t seed)
{
    for (size_t i = 0; i < nbytes; i = pattern_next(i, nbytes))
        ((unsigned char *)p)[i] = pattern_byte(seed, i);
}

/* filled: the size that pattern_fill had; checks its bytes below nbytes. */
static inline void pattern_verify(const void *p, size_t filled, size_t nbytes, uint32_t seed)
{
    for (size_t i = 0; i < nbytes; i = pattern_next(i, filled))
        REQUIRE(((const unsigned char *)p)[i] == pattern_byte(seed, i), "byte %zu of %zu at %p", i, filled, p);
}

static inline void require_zero(const void *p, size_t nbytes)
{
    const unsigned char *bytes = p;
    for (size_t i = 0; i < nbytes; i++)
        REQUIRE(bytes[i] == 0, "byte %zu of %zu at %p", i, nbytes, p);
}

static inline size_t rss_bytes(void)
{
    unsigned long size_pages = 0, resident_pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    REQUIRE(f && fscanf(f, "%lu %lu", &size_pages, &resident_pages) == 2);
    fclose(f);
    return resident_pages * (size_t)sysconf(_SC_PAGESIZE);
}

#endif
