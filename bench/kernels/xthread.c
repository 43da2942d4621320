/* xthread.c - one thread allocates, another frees.
 *
 * A pipeline: the producer fills batches of 100 blocks and hands them through a bounded ring of 16
 * batches, the consumer frees each.  Every free is a free by a thread that does not own the block, the
 * case in which allocators differ most: per-thread caches drain into a central place and are filled from
 * it again, lists of remote frees travel back to the owner.  A bounded ring keeps the producer from
 * running away, so peak RSS shows what the allocator holds and not who was scheduled.
 *
 * --threads counts both ends: 2 is one producer with one consumer.  The time is end to end, from the
 * start of both until the last block is free; one operation is one block's whole life.
 * Waiting spins briefly and then yields, so it works on one processor as well.
 */
#include "bench.h"

#include <sched.h>
#include <stdatomic.h>

enum { BATCH = 100, SLOTS = 16 };

/* Both counters are stored with release and read with acquire: who sees the count sees the blocks. */
typedef struct ring {
    _Atomic uint64_t filled; /* batches ever put in; only the producer writes it */
    char pad1[120];
    _Atomic uint64_t emptied; /* batches ever taken out; only the consumer writes it */
    char pad2[120];
    void *blocks[SLOTS][BATCH];
} ring;

typedef struct job {
    const bench_options *o;
    ring *rings[BENCH_MAX_THREADS];
    uint32_t *sizes; /* a cycle of BATCH * SIZE_BATCHES sizes drawn beforehand */
    uint64_t batches;
} job;

enum { SIZE_BATCHES = 97 };

static void wait_until(_Atomic uint64_t *counter, uint64_t at_least)
{
    for (unsigned spins = 0; atomic_load_explicit(counter, memory_order_acquire) < at_least; spins++) {
        if (spins < 200)
            bench_cpu_relax();
        else
            sched_yield();
    }
}

static void produce(const job *j, ring *q)
{
    for (uint64_t b = 0; b < j->batches; b++) {
        if (b >= SLOTS)
            wait_until(&q->emptied, b - SLOTS + 1);
        const uint32_t *sizes = j->sizes + b % SIZE_BATCHES * BATCH;
        void **blocks = q->blocks[b % SLOTS];
        for (int i = 0; i < BATCH; i++)
            blocks[i] = bench_malloc(sizes[i]);
        atomic_store_explicit(&q->filled, b + 1, memory_order_release);
    }
}

static void consume(const job *j, ring *q)
{
    for (uint64_t b = 0; b < j->batches; b++) {
        wait_until(&q->filled, b + 1);
        void **blocks = q->blocks[b % SLOTS];
        for (int i = 0; i < BATCH; i++)
            free(blocks[i]);
        atomic_store_explicit(&q->emptied, b + 1, memory_order_release);
    }
}

static void thread_body(unsigned index, void *arg)
{
    const job *j = arg;
    if (index % 2 == 0)
        produce(j, j->rings[index / 2]);
    else
        consume(j, j->rings[index / 2]);
}

static void run(const bench_options *o, bench_result *r)
{
    static job j;
    uint64_t seed = o->seed;
    unsigned pairs = o->threads / 2;
    if (o->threads % 2 != 0)
        bench_die("xthread needs an even number of --threads");
    j.o = o;
    j.sizes = bench_table(BATCH * SIZE_BATCHES * sizeof *j.sizes);
    for (int i = 0; i < BATCH * SIZE_BATCHES; i++)
        j.sizes[i] = (uint32_t)bench_random_size(&seed, o);
    for (unsigned i = 0; i < pairs; i++)
        j.rings[i] = bench_table(sizeof(ring));
    j.batches = o->ops / (BATCH * pairs);
    if (j.batches == 0)
        j.batches = 1;
    free(bench_malloc(o->size_bytes));
    bench_parallel(o->threads, thread_body, &j, r, j.batches * BATCH * pairs);
}

const bench_kernel bench_xthread = {
    "xthread",
    "one thread allocates, another frees, through a bounded ring; one block is an operation",
    run,
    {.size_bytes = 64, .size_max_bytes = 64, .ops = 3000000, .threads = 2}};
