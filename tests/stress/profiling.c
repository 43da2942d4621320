/* profiling.c - the heap profile while threads allocate, free each other's blocks, resize, fork, and it starts and
 * stops.
 *
 *     profiling [rounds=60] [threads=3] [seed=1]
 *
 * First, alone: sums are unbiased, every way of allocating is counted, and what is freed is not live.  Then a storm, at
 * rates from "every block" on; afterwards nothing is left, neither in the heap nor in the profile's books.
 */
#include "stress.h"

#include <fcntl.h>
#include <sys/wait.h>

#include "heap/profile.h"

enum { SLOTS = 64, MAX_THREADS = 8, SITES_MAX = 1 << 16, DRAWS = 250 };

static pa_profile_site sites[SITES_MAX];
static _Atomic(void *) shared[SLOTS];
static atomic_bool stop_working;

typedef struct sums {
    double alloc_objects, alloc_bytes, live_objects, live_bytes;
} sums;

static sums read_sums(void)
{
    sums s = {0};
    size_t n = pa_profile_copy_sites(sites, SITES_MAX);
    for (size_t i = 0; i < n; i++) {
        s.alloc_objects += (double)sites[i].alloc_weight / PA_WEIGHT_ONE;
        s.alloc_bytes += (double)sites[i].alloc_bytes;
        s.live_objects += (double)(sites[i].alloc_weight - sites[i].free_weight) / PA_WEIGHT_ONE;
        s.live_bytes += (double)(sites[i].alloc_bytes - sites[i].free_bytes);
    }
    return s;
}

static pa_profile_stats profile_now(void)
{
    pa_profile_stats s;
    pa_read_profile_stats(&s);
    return s;
}

static void start(size_t rate, uint64_t seed)
{
    int error = pa_profile_start(rate, seed);
    REQUIRE(error == 0, "%s", strerror(error));
}

/* ---- Alone ---- */

static void *taken(void *p)
{
    REQUIRE(p);
    return p;
}

/* Blocks of each way of allocating; what they take. */
static size_t allocate_some(void **out, size_t i, size_t nbytes)
{
    switch (i % 5) {
    case 0: out[i] = taken(pa_malloc(nbytes)); break;
    case 1: out[i] = taken(pa_calloc(1, nbytes)); break;
    case 2: out[i] = taken(pa_memalign(64, nbytes)); break;
    case 3: out[i] = taken(pa_realloc(taken(pa_malloc(nbytes)), nbytes)); break; /* stays */
    default: out[i] = taken(pa_realloc(NULL, nbytes)); break;
    }
    return pa_usable_size(out[i]);
}

/* Over many seeds the mean of the estimates is the truth, and their spread what a Poisson process has. */
static void sums_are_unbiased(size_t nbytes, size_t rate)
{
    enum { BLOCKS = 400 };
    void *blocks[BLOCKS];
    double mean = 0, square = 0, live = 0, truth = 0;
    for (uint64_t seed = 1; seed <= DRAWS; seed++) {
        start(rate, seed * 7919);
        truth = 0;
        for (size_t i = 0; i < BLOCKS; i++)
            truth += (double)allocate_some(blocks, i, nbytes);
        for (size_t i = 0; i < BLOCKS; i += 2)
            pa_free(blocks[i]);
        sums s = read_sums();
        mean += s.alloc_bytes / DRAWS;
        square += s.alloc_bytes * s.alloc_bytes / DRAWS;
        live += s.live_bytes / DRAWS;
        for (size_t i = 1; i < BLOCKS; i += 2)
            pa_free(blocks[i]);
        REQUIRE(read_sums().live_bytes == 0 && profile_now().live == 0);
        REQUIRE(pa_profile_stop());
        REQUIRE(profile_now().lost == 0);
    }
    /* A block of usable size s has the chance 1 - exp(-s / rate), its estimate's variance s^2 (1 / chance - 1). */
    double size = truth / BLOCKS, weight = (double)pa_poisson_weight((uint64_t)size, rate) / PA_WEIGHT_ONE;
    double variance = BLOCKS * size * size * (weight - 1), error = variance / DRAWS;
    REQUIRE((mean - truth) * (mean - truth) <= 16 * error + 1, "%zu bytes at %zu: mean %.0f, truth %.0f, 4 errors %.0f",
            nbytes, rate, mean, truth, 4 * error);
    REQUIRE((live - truth / 2) * (live - truth / 2) <= 16 * error / 2 + 1, "%zu bytes: live %.0f of %.0f", nbytes, live,
            truth);
    double found = square - mean * mean;
    REQUIRE(found <= 1.6 * variance + 1 && found >= 0.5 * variance, "%zu bytes: variance %.0f, not %.0f", nbytes, found,
            variance);
}

/* A large block that grows and shrinks where it is, is a free and a malloc each time. */
static void resizing_is_counted(void)
{
    start(1, 1);
    void *p = taken(pa_malloc(100000));
    double allocated = 0;
    for (size_t nbytes = 100000; nbytes < 20 << 20; nbytes += nbytes / 3) {
        p = taken(pa_realloc(p, nbytes));
        sums s = read_sums();
        REQUIRE(s.live_objects == 1 && s.live_bytes == (double)pa_usable_size(p), "%.0f blocks, %.0f bytes, not %zu",
                s.live_objects, s.live_bytes, pa_usable_size(p));
        REQUIRE(s.alloc_bytes >= allocated);
        allocated = s.alloc_bytes;
    }
    p = taken(pa_realloc(p, 40000));
    REQUIRE(read_sums().live_bytes == (double)pa_usable_size(p));
    p = taken(pa_realloc(p, 100));
    REQUIRE(read_sums().live_bytes == (double)pa_usable_size(p) && read_sums().live_objects == 1);
    pa_free(p);
    REQUIRE(read_sums().live_bytes == 0 && profile_now().live == 0);
    pa_profile_stop();
}

static void full_tables_count_what_they_lose(void)
{
    void *blocks[100];
    pa_profile_limit(40, 0);
    start(1, 1);
    for (size_t i = 0; i < 100; i++)
        blocks[i] = taken(pa_malloc(100));
    pa_profile_stats s = profile_now();
    REQUIRE(s.live == 40 && s.samples == 40 && s.lost == 60, "%" PRIu64 " %" PRIu64, s.live, s.lost);
    for (size_t i = 0; i < 100; i++)
        pa_free(blocks[i]);
    REQUIRE(profile_now().live == 0);
    pa_profile_limit(0, 1);
    for (size_t i = 0; i < 100; i++)
        blocks[i] = taken(i == 0 ? pa_malloc(100) : pa_calloc(10, 10));
    s = profile_now();
    REQUIRE(s.lost >= 99 + 60 && s.live <= 1, "%" PRIu64 " lost, %" PRIu64 " live", s.lost, s.live);
    for (size_t i = 0; i < 100; i++)
        pa_free(blocks[i]);
    pa_profile_limit(0, 0);
    pa_profile_stop();
}

/* Blocks outlive the profile that sampled them, and the next one does not take their deaths for its own. */
static void blocks_outlive_their_profile(void)
{
    void *old = (start(1, 1), taken(pa_malloc(500)));
    pa_profile_stop();
    pa_profile_discard();
    REQUIRE(profile_now().live == 1 && profile_now().samples == 0);
    start(1, 2);
    void *new = taken(pa_malloc(500));
    REQUIRE(profile_now().live == 2);
    pa_free(old);
    sums s = read_sums();
    REQUIRE(s.live_objects == 1 && s.alloc_objects == 1 && profile_now().live == 1);
    pa_profile_stop();
    pa_free(new);
    REQUIRE(read_sums().live_objects == 0 && profile_now().live == 0);
    REQUIRE(pa_profile_start(0, 0) == EINVAL && pa_profile_start(((size_t)1 << 40) + 1, 0) == EINVAL);
    start(4096, 0);
    REQUIRE(pa_profile_start(4096, 0) == EBUSY && profile_now().on);
    REQUIRE(pa_profile_stop() && !pa_profile_stop() && !profile_now().on);
}

/* Root ranges use the same mark in a span's header: each leaves the other's alone. */
static void pins_and_samples_are_two_things(void)
{
    start(1, 3);
    void **small = taken(pa_calloc(64, sizeof *small)), **large = taken(pa_calloc(20000, sizeof *large));
    REQUIRE(pa_roots_add(small, 64 * sizeof *small, PA_ROOTS_BARRIERED) == 0);
    REQUIRE(pa_roots_add(large, 20000 * sizeof *large, PA_ROOTS_BARRIERED) == 0);
    heap_must_be_whole();
    REQUIRE(profile_now().live == 2);
    REQUIRE(pa_roots_remove(small) == 0 && pa_roots_remove(large) == 0);
    heap_must_be_whole();
    REQUIRE(profile_now().live == 2);
    pa_free(small);
    pa_free(large);
    REQUIRE(profile_now().live == 0 && read_sums().live_bytes == 0);
    pa_profile_stop();
}

/* ---- The storm ---- */

/* Its first word says how large it is, so that the next thread can look at the rest. */
static void check_and_free(void *p)
{
    if (!p)
        return;
    size_t nbytes;
    memcpy(&nbytes, p, sizeof nbytes);
    REQUIRE(nbytes <= pa_usable_size(p), "%zu", nbytes);
    pattern_verify((char *)p + sizeof nbytes, nbytes - sizeof nbytes, nbytes - sizeof nbytes, (uint32_t)nbytes);
    pa_free(p);
}

static void *make(uint64_t *random)
{
    size_t nbytes = random_size(random) + sizeof nbytes;
    void *p = taken(pa_malloc(nbytes));
    if (random_below(random, 4) == 0) {
        nbytes = random_size(random) + sizeof nbytes;
        p = taken(pa_realloc(p, nbytes));
    }
    memcpy(p, &nbytes, sizeof nbytes);
    pattern_fill((char *)p + sizeof nbytes, nbytes - sizeof nbytes, (uint32_t)nbytes);
    return p;
}

static void *work(void *seed)
{
    uint64_t random = (uint64_t)(uintptr_t)seed;
    while (!atomic_load_explicit(&stop_working, memory_order_relaxed))
        check_and_free(atomic_exchange(&shared[random_below(&random, SLOTS)],
                                       random_below(&random, 3) ? make(&random) : NULL));
    return NULL;
}

static void clear_shared(void)
{
    for (size_t i = 0; i < SLOTS; i++)
        check_and_free(atomic_exchange(&shared[i], NULL));
}

/* Threads are gone, their blocks are not: the books and the heap say the same. */
static void child_must_be_whole(bool on)
{
    heap_must_be_whole();
    REQUIRE(profile_now().on == on);
    uint64_t before = profile_now().live;
    void *p = taken(pa_malloc(5000));
    REQUIRE(!on || profile_now().live >= before);
    pa_free(p);
    clear_shared();
    REQUIRE(profile_now().live <= before);
    int null = open("/dev/null", O_WRONLY);
    REQUIRE(pa_profile_write(null) == 0);
    heap_must_be_whole();
    _exit(0);
}

static void fork_one(bool on)
{
    pid_t pid = fork();
    REQUIRE(pid >= 0, "%s", strerror(errno));
    if (pid == 0)
        child_must_be_whole(on);
    int status;
    REQUIRE(waitpid(pid, &status, 0) == pid && status == 0, "child ended with %#x", (unsigned)status);
}

static void storm(long rounds, long threads, uint64_t random)
{
    static const size_t rates[] = {1, 300, 20000, 512 * 1024};
    pthread_t ids[MAX_THREADS];
    int null = open("/dev/null", O_WRONLY);
    for (long i = 0; i < threads; i++)
        REQUIRE(pthread_create(&ids[i], NULL, work, (void *)(uintptr_t)(random_next(&random) | 1)) == 0);
    for (long i = 0; i < rounds; i++) {
        start(rates[i % 4], random_next(&random));
        for (int k = 0; k < 50; k++)
            check_and_free(make(&random));
        REQUIRE(pa_profile_write(null) == 0);
        if (i % (STRESS_SANITIZED ? 16 : 4) == 0)
            fork_one(true);
        if (i % 3) {
            REQUIRE(pa_profile_stop());
            pa_profile_discard();
        } else {
            check_and_free(make(&random));
            REQUIRE(pa_profile_stop());
        }
    }
    atomic_store(&stop_working, true);
    for (long i = 0; i < threads; i++)
        REQUIRE(pthread_join(ids[i], NULL) == 0);
    clear_shared();
    close(null);
}

int main(int argc, char **argv)
{
    long rounds = argument(argc, argv, 1, 60), threads = argument(argc, argv, 2, 3);
    REQUIRE(threads >= 0 && threads <= MAX_THREADS);
    static const size_t sizes[] = {16, 100, 1000, 5000, 20000, 100000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && !STRESS_SANITIZED; i++)
        sums_are_unbiased(sizes[i], sizes[i] * 8);
    resizing_is_counted();
    full_tables_count_what_they_lose();
    blocks_outlive_their_profile();
    pins_and_samples_are_two_things();
    heap_must_be_empty();
    storm(rounds, threads, (uint64_t)argument(argc, argv, 3, 1));
    REQUIRE(profile_now().live == 0, "%" PRIu64 " sampled blocks are left", profile_now().live);
    heap_must_be_empty();
    printf("profiling: %ld rounds of %ld threads\n", rounds, threads);
    return 0;
}
