/* sizemix.c - skewed sizes and skewed lifetimes, in the manner of MicroQuill's shbench.
 *
 * Most blocks of real programs are small and die young, a few are large, a few stay.  The mix here: of 16
 * blocks, 10 have 1 to 64 bytes, 4 have 65 to 512, and 2 anything up to --size-max.  Lifetimes: three of
 * four blocks go into a short ring and die after 64 further allocations, in order; the fourth goes to a
 * random place of a long table (--live) and dies when that place is drawn again.  Every 65,536 blocks the
 * program finishes a job: a random quarter of the long table is freed at once.
 * One operation is one malloc or one free.
 */
#include "bench.h"

#include <string.h>

enum { SHORT = 64, JOB = 65536, DRAWN = 1 << 16 };

typedef struct job {
    const bench_options *o;
    void **table[BENCH_MAX_THREADS];
    uint32_t *sizes; /* DRAWN sizes, the same for every thread */
    uint64_t each;
    _Alignas(128) uint64_t frees[BENCH_MAX_THREADS][16];
} job;

static size_t draw_size(uint64_t *seed, const bench_options *o)
{
    size_t kind = bench_random_below(seed, 16);
    if (kind < 10)
        return 1 + bench_random_below(seed, 64);
    if (kind < 14)
        return 65 + bench_random_below(seed, 448);
    return 1 + bench_random_below(seed, o->size_max_bytes);
}

static void thread_body(unsigned index, void *arg)
{
    job *j = arg;
    void *ring[SHORT];
    void **table = j->table[index];
    size_t live = j->o->live;
    uint64_t seed = j->o->seed + index * 104729u, frees = 0;
    memset(ring, 0, sizeof ring);
    for (uint64_t i = 0; i < j->each; i++) {
        void *p = bench_malloc(j->sizes[(i + index) % DRAWN]);
        void **place = i % 4 != 3 ? &ring[i % SHORT] : &table[bench_random_below(&seed, live)];
        if (*place != NULL) {
            free(*place);
            frees++;
        }
        *place = p;
        if (i % JOB == JOB - 1) {
            for (size_t k = 0; k < live; k++) {
                if (table[k] != NULL && bench_random_below(&seed, 4) == 0) {
                    free(table[k]);
                    table[k] = NULL;
                    frees++;
                }
            }
        }
    }
    for (size_t k = 0; k < SHORT; k++)
        free(ring[k]);
    for (size_t k = 0; k < live; k++)
        free(table[k]);
    j->frees[index][0] = frees;
}

static void run(const bench_options *o, bench_result *r)
{
    static job j;
    uint64_t seed = o->seed;
    if (o->live == 0 || o->size_max_bytes == 0)
        bench_die("sizemix needs --live and --size-max of at least 1");
    j.o = o;
    j.each = o->ops / 2 / o->threads;
    j.sizes = bench_table(DRAWN * sizeof *j.sizes);
    for (size_t i = 0; i < DRAWN; i++)
        j.sizes[i] = (uint32_t)draw_size(&seed, o);
    for (unsigned t = 0; t < o->threads; t++)
        j.table[t] = bench_table(o->live * sizeof(void *));
    free(bench_malloc(1));
    bench_parallel(o->threads, thread_body, &j, r, 0);
    r->ops = j.each * o->threads;
    for (unsigned t = 0; t < o->threads; t++)
        r->ops += j.frees[t][0];
}

const bench_kernel bench_sizemix = {
    "sizemix",
    "skewed sizes and lifetimes as in shbench; one malloc or free is an operation",
    run,
    {.size_bytes = 1, .size_max_bytes = 8192, .live = 10000, .ops = 4000000, .threads = 1}};
