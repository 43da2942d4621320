/* threadtest.c - threads that have nothing to do with one another.
 *
 * After Berger, McKinley, Blumofe, Wilson, "Hoard" (ASPLOS 2000).  Each thread allocates --live blocks of
 * one size, frees them all in the order of allocation, and again.  Nothing is shared, so an allocator
 * that scales takes half the time with two threads.  One operation is one malloc or one free.
 */
#include "bench.h"

typedef struct job {
    const bench_options *o;
    void **blocks[BENCH_MAX_THREADS];
    uint64_t rounds;
} job;

static void thread_body(unsigned index, void *arg)
{
    const job *j = arg;
    void **blocks = j->blocks[index];
    for (uint64_t round = 0; round < j->rounds; round++) {
        for (size_t i = 0; i < j->o->live; i++)
            blocks[i] = bench_malloc(j->o->size_bytes);
        for (size_t i = 0; i < j->o->live; i++)
            free(blocks[i]);
    }
}

static void run(const bench_options *o, bench_result *r)
{
    static job j;
    if (o->live == 0)
        bench_die("threadtest needs --live of at least 1");
    j.o = o;
    for (unsigned t = 0; t < o->threads; t++)
        j.blocks[t] = bench_table(o->live * sizeof(void *));
    uint64_t round_ops = 2 * (uint64_t)o->live * o->threads;
    j.rounds = o->ops / round_ops;
    if (j.rounds == 0)
        j.rounds = 1;
    free(bench_malloc(o->size_bytes));
    bench_parallel(o->threads, thread_body, &j, r, j.rounds * round_ops);
}

const bench_kernel bench_threadtest = {
    "threadtest",
    "independent threads: blocks of one size allocated and freed in order; one call is an operation",
    run,
    {.size_bytes = 64, .size_max_bytes = 64, .live = 20000, .ops = 8000000, .threads = 2}};
