/* batch.c - many blocks of mixed sizes, then all freed: last first, first first, or in random order.
 *
 * 10,000 blocks (--live) of 16 to 1024 bytes are about 5 MB: more than the second-level cache, so the
 * order in which they come back decides how well an allocator's lists keep addresses together.
 *   lifo    a stack of scopes; flattering, because free lists hand blocks out in the order in which
 *           they will be wanted
 *   fifo    a queue
 *   random  a long-running program's heap; every free goes to another span
 * Sizes and the random order are drawn beforehand and are the same in every round and for every
 * allocator.  The first two rounds are warm-up.  One operation is one malloc or one free.
 */
#include "bench.h"

#include <string.h>

typedef struct job {
    const bench_options *o;
    void **blocks[BENCH_MAX_THREADS];
    uint32_t *sizes, *order;
    uint64_t rounds;
} job;

static void thread_body(unsigned index, void *arg)
{
    const job *j = arg;
    void **blocks = j->blocks[index];
    size_t n = j->o->live;
    for (uint64_t round = 0; round < j->rounds; round++) {
        for (size_t i = 0; i < n; i++)
            blocks[i] = bench_malloc(j->sizes[i]);
        for (size_t i = 0; i < n; i++)
            free(blocks[j->order[i]]);
    }
}

static void run(const bench_options *o, bench_result *r)
{
    static job j;
    uint64_t seed = o->seed;
    size_t n = o->live;
    if (n == 0)
        bench_die("batch needs --live of at least 1");
    j.o = o;
    j.sizes = bench_table(n * sizeof *j.sizes);
    j.order = bench_table(n * sizeof *j.order);
    for (unsigned t = 0; t < o->threads; t++)
        j.blocks[t] = bench_table(n * sizeof(void *));
    bool lifo = strcmp(o->order, "lifo") == 0;
    for (size_t i = 0; i < n; i++) {
        j.sizes[i] = (uint32_t)bench_random_size(&seed, o);
        j.order[i] = (uint32_t)(lifo ? n - 1 - i : i);
    }
    if (strcmp(o->order, "random") == 0) {
        for (size_t i = n - 1; i > 0; i--) {
            size_t k = bench_random_below(&seed, i + 1);
            uint32_t swap = j.order[i];
            j.order[i] = j.order[k];
            j.order[k] = swap;
        }
    } else if (!lifo && strcmp(o->order, "fifo") != 0) {
        bench_die("batch: --order must be lifo, fifo or random, not %s", o->order);
    }
    j.rounds = 2;
    thread_body(0, &j);
    j.rounds = o->ops / (2 * n * o->threads);
    if (j.rounds == 0)
        j.rounds = 1;
    bench_parallel(o->threads, thread_body, &j, r, j.rounds * 2 * n * o->threads);
}

const bench_kernel bench_batch = {
    "batch",
    "10,000 blocks of mixed sizes, freed lifo, fifo or in random order; one malloc or free is an operation",
    run,
    {.order = "random",
     .size_bytes = 16,
     .size_max_bytes = 1024,
     .live = 10000,
     .ops = 4000000,
     .threads = 1}};
