/* larson.c - a server: each request frees a random old block and allocates a new one.
 *
 * After Larson and Krishnan, "Memory Allocation for Long-Running Server Applications" (ISMM 1998).  Each
 * thread holds an array of blocks of random sizes and keeps replacing random entries.  From time to time a
 * thread hands its array to a thread that it starts, and ends: so blocks are freed by threads that did
 * not allocate them, and the caches of ended threads must find a new user.  Here the hand-over comes after
 * a fixed number of replacements, ten generations in all, which makes the work the same for everyone.
 * One operation is one replacement: a free and a malloc.
 */
#include "bench.h"

#include <pthread.h>

enum { GENERATIONS = 10 };

typedef struct server {
    const bench_options *o;
    void **blocks;
    uint64_t seed, each;
} server;

static server servers[BENCH_MAX_THREADS];

static void serve(server *s, uint64_t n)
{
    uint64_t seed = s->seed;
    for (uint64_t i = 0; i < n; i++) {
        size_t at = bench_random_below(&seed, s->o->live);
        free(s->blocks[at]);
        s->blocks[at] = bench_malloc(bench_random_size(&seed, s->o));
    }
    s->seed = seed;
}

/* The thread that was measured from the start only waits: the work goes from successor to successor. */
static void *generation_main(void *p)
{
    server *s = p;
    serve(s, s->each);
    return NULL;
}

static void thread_body(unsigned index, void *arg)
{
    server *s = &servers[index];
    (void)arg;
    serve(s, s->each);
    for (unsigned g = 1; g < GENERATIONS; g++) {
        pthread_t successor;
        if (pthread_create(&successor, NULL, generation_main, s) != 0)
            bench_die("cannot start a successor");
        pthread_join(successor, NULL);
    }
}

static void run(const bench_options *o, bench_result *r)
{
    if (o->live == 0)
        bench_die("larson needs --live of at least 1");
    for (unsigned t = 0; t < o->threads; t++) {
        servers[t] = (server){o, bench_table(o->live * sizeof(void *)), o->seed + t * 7919u,
                              o->ops / (o->threads * GENERATIONS)};
        for (size_t i = 0; i < o->live; i++)
            servers[t].blocks[i] = bench_malloc(bench_random_size(&servers[t].seed, o));
    }
    /* every block so far belongs to the first thread, as in the original */
    bench_parallel(o->threads, thread_body, NULL, r, servers[0].each * GENERATIONS * o->threads);
}

const bench_kernel bench_larson = {
    "larson",
    "servers that replace random blocks and hand over to new threads; one replacement is an operation",
    run,
    {.size_bytes = 8, .size_max_bytes = 1000, .live = 5000, .ops = 3000000, .threads = 2}};
