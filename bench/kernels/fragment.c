/* fragment.c - a program whose taste in sizes changes.
 *
 * The worst case of size classes: memory that was cut up for one size is of no use for the next.  The
 * program goes through phases; each allocates blocks of its own range of sizes until --live KiB are
 * requested in all, writes them whole (once every 64 bytes), and at the end of the phase frees a random 85 %
 * of everything that is alive.  What survives pins spans, pages or heap chunks; the next phase wants other
 * sizes.  The figure to look at is the peak RSS over --live, the time comes second. One operation is one
 * malloc or one free.
 */
#include "bench.h"

#include <string.h>

typedef struct range {
    size_t low, high;
} range;

static const range phases[] = {
    {16, 64},      {200, 400}, {33, 130},      {1000, 3000}, {64, 96},
    {5000, 12000}, {16, 48},   {20000, 60000}, {500, 800},
};
enum { PHASES = sizeof phases / sizeof phases[0], KEEP_PERCENT = 15 };

typedef struct block {
    char *p;
    size_t nbytes;
} block;

static void run(const bench_options *o, bench_result *r)
{
    size_t limit = o->live * 1024, most = limit / 32 + 1, alive = 0, live_bytes = 0, peak_live = 0;
    uint64_t seed = o->seed, done = 0;
    block *blocks = bench_table(most * sizeof *blocks);
    memset(blocks, 0, most * sizeof *blocks);
    free(bench_malloc(1));
    bench_start(r);
    for (unsigned phase = 0; done < o->ops; phase++) {
        const range *sizes = &phases[phase % PHASES];
        while (live_bytes < limit && alive < most && done < o->ops) {
            size_t nbytes = sizes->low + bench_random_below(&seed, sizes->high - sizes->low + 1);
            char *p = bench_malloc(nbytes);
            for (size_t i = 0; i < nbytes; i += 64)
                p[i] = (char)i;
            blocks[alive++] = (block){p, nbytes};
            live_bytes += nbytes;
            done++;
        }
        if (live_bytes > peak_live)
            peak_live = live_bytes;
        size_t kept = 0;
        for (size_t i = 0; i < alive; i++) {
            if (bench_random_below(&seed, 100) < KEEP_PERCENT) {
                blocks[kept++] = blocks[i];
                continue;
            }
            free(blocks[i].p);
            live_bytes -= blocks[i].nbytes;
            done++;
        }
        alive = kept;
    }
    bench_stop(r, done);
    bench_extra(r, "peak_live_kib", (long long)(peak_live / 1024));
}

const bench_kernel bench_fragment = {"fragment",
                                     "phases of different sizes with survivors; look at the peak RSS",
                                     run,
                                     {.live = 24 * 1024, .ops = 3000000, .threads = 1}};
