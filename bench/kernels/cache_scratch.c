/* cache_scratch.c - does the allocator put two threads on one cache line?
 *
 * After Berger et al., "Hoard" (ASPLOS 2000), *passive* false sharing: the main thread allocates one small
 * block for each worker, so the blocks are neighbours.  Each worker frees the one that it was given,
 * then allocates a block of the same size, writes it many times and frees it, again and again.  An
 * allocator that gives the freed block straight to the thread that freed it lets the workers fight over one
 * line for ever; one that returns it to its owner does not.  Writes dominate: one operation is one
 * write, and the time is mostly the memory system's.
 */
#include "bench.h"

enum { WRITES = 200 };

typedef struct job {
    const bench_options *o;
    char *given[BENCH_MAX_THREADS];
    uint64_t rounds;
} job;

static void thread_body(unsigned index, void *arg)
{
    job *j = arg;
    size_t n = j->o->size_bytes;
    free(j->given[index]);
    for (uint64_t round = 0; round < j->rounds; round++) {
        volatile char *p = bench_malloc(n);
        for (size_t i = 0, at = 0; i < WRITES; i++) {
            p[at]++;
            at = at + 1 == n ? 0 : at + 1;
        }
        free((void *)p);
    }
}

static void run(const bench_options *o, bench_result *r)
{
    static job j;
    if (o->size_bytes == 0)
        bench_die("cache_scratch needs --size of at least 1");
    j.o = o;
    j.rounds = o->ops / (WRITES * (uint64_t)o->threads);
    if (j.rounds == 0)
        j.rounds = 1;
    for (unsigned t = 0; t < o->threads; t++)
        j.given[t] = bench_malloc(o->size_bytes);
    bench_parallel(o->threads, thread_body, &j, r, j.rounds * WRITES * o->threads);
}

const bench_kernel bench_cache_scratch = {
    "cache_scratch",
    "false sharing by blocks that were allocated together; one write is an operation",
    run,
    {.size_bytes = 8, .size_max_bytes = 8, .ops = 80000000, .threads = 2}};
