/* large.c - buffers of 64 KiB to 4 MiB: malloc, touch every page, free.
 *
 * What NumPy temporaries, image rows and I/O buffers do.  The cost is not in finding the pages but in giving
 * them back: an allocator that returns memory to the system at every free pays a page fault for each 4 KiB
 * at the next malloc.  So after a warm-up this kernel reports the minor page faults of the measured part
 * (0 is right) beside the time.  --live blocks are alive at a time and replaced in turn; sizes between
 * --size and --size-max are drawn beforehand.  One operation is one malloc, touch, free.
 *
 * At the end everything is freed.  When the allocator under test is pyalloc, pa_free_os_memory is called
 * and three more figures come out, all RSS in KiB: start (after the first small malloc), freed, released.
 * With --threads 2 the workers stay alive meanwhile; after the first call each makes calls that must
 * take the slow path (so it sees that it should give its caches back), then comes a second call, then
 * the measurement: "RSS back to the start at once, with N other active threads + 1 MiB each".
 */
#define _GNU_SOURCE 1
#include "bench.h"

#include <dlfcn.h>
#include <pthread.h>

enum { DRAWN = 1024, TOUCH = 4096, SLOW_BLOCKS = 64 };

typedef struct job {
    const bench_options *o;
    void **table[BENCH_MAX_THREADS];
    uint32_t *sizes;
    uint64_t each;
    pthread_barrier_t gate; /* all workers and the main thread */
} job;

static job j;

static void spin_blocks(unsigned index, uint64_t n)
{
    void **table = j.table[index];
    size_t live = j.o->live, at = 0;
    for (uint64_t i = 0; i < n; i++) {
        free(table[at]);
        size_t nbytes = j.sizes[(i + index * 31u) % DRAWN];
        char *p = bench_malloc(nbytes);
        for (size_t k = 0; k < nbytes; k += TOUCH)
            ((volatile char *)p)[k] = 1;
        table[at] = p;
        at = at + 1 == live ? 0 : at + 1;
    }
    for (size_t k = 0; k < live; k++) {
        free(table[k]);
        table[k] = NULL;
    }
}

/* More small blocks than any per-thread span list holds ready: some of these calls take the slow path. */
static void make_slow_calls(void)
{
    void *blocks[SLOW_BLOCKS];
    for (int i = 0; i < SLOW_BLOCKS; i++)
        blocks[i] = bench_malloc(4096 + 64 * (size_t)i);
    for (int i = 0; i < SLOW_BLOCKS; i++)
        free(blocks[i]);
}

/* The drawn sizes twice: once from an empty heap, once as it will go on. */
static const uint64_t warm_up = 2 * DRAWN;

static void *worker_main(void *p)
{
    unsigned index = (unsigned)(uintptr_t)p;
    spin_blocks(index, warm_up + 2 * j.o->live);
    pthread_barrier_wait(&j.gate); /* warm */
    pthread_barrier_wait(&j.gate); /* the clock runs */
    spin_blocks(index, j.each);
    pthread_barrier_wait(&j.gate); /* done */
    pthread_barrier_wait(&j.gate); /* released once */
    make_slow_calls();
    pthread_barrier_wait(&j.gate); /* noticed */
    pthread_barrier_wait(&j.gate); /* measured */
    return NULL;
}

static void run(const bench_options *o, bench_result *r)
{
    size_t (*release)(void) = (size_t (*)(void))(uintptr_t)dlsym(RTLD_DEFAULT, "pa_free_os_memory");
    static pthread_t ids[BENCH_MAX_THREADS];
    uint64_t seed = o->seed;
    if (o->live == 0)
        bench_die("large needs --live of at least 1");
    j.o = o;
    j.each = o->ops / o->threads;
    j.sizes = bench_table(DRAWN * sizeof *j.sizes);
    for (int i = 0; i < DRAWN; i++)
        j.sizes[i] = (uint32_t)bench_random_size(&seed, o);
    for (unsigned t = 0; t < o->threads; t++)
        j.table[t] = bench_table(o->live * sizeof(void *));
    free(bench_malloc(64));
    size_t start_kib = bench_rss_kib();

    if (o->threads == 1) {
        spin_blocks(0, warm_up + 2 * o->live);
        bench_start(r);
        spin_blocks(0, j.each);
        bench_stop(r, j.each);
    } else {
        pthread_barrier_init(&j.gate, NULL, o->threads + 1);
        for (unsigned t = 0; t < o->threads; t++)
            if (pthread_create(&ids[t], NULL, worker_main, (void *)(uintptr_t)t) != 0)
                bench_die("cannot start thread %u", t);
        pthread_barrier_wait(&j.gate);
        bench_start(r);
        pthread_barrier_wait(&j.gate);
        pthread_barrier_wait(&j.gate);
        bench_stop(r, j.each * o->threads);
    }

    size_t freed_kib = bench_rss_kib();
    if (release != NULL)
        release();
    if (o->threads > 1) {
        pthread_barrier_wait(&j.gate);
        pthread_barrier_wait(&j.gate);
        if (release != NULL)
            release();
    }
    bench_extra(r, "rss_start_kib", (long long)start_kib);
    bench_extra(r, "rss_freed_kib", (long long)freed_kib);
    if (release != NULL)
        bench_extra(r, "rss_released_kib", (long long)bench_rss_kib());
    if (o->threads > 1) {
        pthread_barrier_wait(&j.gate);
        for (unsigned t = 0; t < o->threads; t++)
            pthread_join(ids[t], NULL);
    }
}

const bench_kernel bench_large = {
    "large",
    "64 KiB to 4 MiB: malloc, touch each page, free; reports page faults of the steady state",
    run,
    {.size_bytes = 65536, .size_max_bytes = 4194304, .live = 1, .ops = 4000, .threads = 1}};
