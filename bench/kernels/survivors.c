/* survivors.c - a burst of which a part survives, and what is resident some seconds later.
 *
 * 200 MB (--live KiB) are allocated in blocks of --size to --size-max bytes and written; all but a tenth of the
 * blocks are freed.  --order says which tenth survives: "phase", the first of the blocks, or "random".  Then the
 * program goes on with little: every 10 ms a thousand blocks of up to 4 KiB come and go, some hundred KiB at a time,
 * so that allocators that give memory back from their slow paths have the occasion; until IDLE_NS are over.  Look at
 * "rss_over_live_percent": resident memory above that at the start, per bytes that the survivors asked for.
 */
#include "bench.h"

#include <string.h>
#include <time.h>

enum { SURVIVOR_OF = 10, NAP_NS = 10 * 1000 * 1000, TOUCH_BYTES = 64, FEW = 1000, FEW_MAX_BYTES = 4096 };
static const uint64_t IDLE_NS = (uint64_t)5 * 1000 * 1000 * 1000;

typedef struct block {
    char *p;
    size_t nbytes;
} block;

static void go_on_with_little(uint64_t *seed)
{
    static void *few[FEW];
    struct timespec nap = {.tv_nsec = NAP_NS};
    for (uint64_t end_ns = bench_now_ns() + IDLE_NS; bench_now_ns() < end_ns;) {
        for (int i = 0; i < FEW; i++)
            few[i] = bench_malloc(bench_random_below(seed, (size_t)FEW_MAX_BYTES >> i % 12) + 1);
        for (int i = 0; i < FEW; i++)
            free(few[i]);
        nanosleep(&nap, NULL);
    }
}

static void run(const bench_options *o, bench_result *r)
{
    if (o->order == NULL || (strcmp(o->order, "phase") != 0 && strcmp(o->order, "random") != 0))
        bench_die("survivors needs --order phase or random");
    size_t limit = o->live * 1024, most = limit / o->size_bytes + 1, n = 0, total = 0, live_bytes = 0;
    uint64_t seed = o->seed, freed = 0;
    bool random = strcmp(o->order, "random") == 0;
    block *blocks = bench_table(most * sizeof *blocks);
    free(bench_malloc(1));
    size_t start_kib = bench_rss_kib();
    bench_start(r);
    while (total < limit && n < most) {
        size_t nbytes = bench_random_size(&seed, o);
        char *p = bench_malloc(nbytes);
        for (size_t i = 0; i < nbytes; i += TOUCH_BYTES)
            p[i] = (char)i;
        blocks[n++] = (block){p, nbytes};
        total += nbytes;
    }
    for (size_t i = 0; i < n; i++) {
        if (random ? bench_random_below(&seed, SURVIVOR_OF) == 0 : i < n / SURVIVOR_OF) {
            live_bytes += blocks[i].nbytes;
            continue;
        }
        free(blocks[i].p);
        blocks[i].p = NULL;
        freed++;
    }
    bench_stop(r, n + freed);
    go_on_with_little(&seed);
    size_t end_kib = bench_rss_kib();
    long long held_bytes = 1024 * ((long long)end_kib - (long long)start_kib);
    bench_extra(r, "live_kib", (long long)(live_bytes / 1024));
    bench_extra(r, "held_kib", held_bytes / 1024);
    bench_extra(r, "rss_over_live_percent", live_bytes ? held_bytes * 100 / (long long)live_bytes : 0);
    for (size_t i = 0; i < n; i++)
        free(blocks[i].p);
}

const bench_kernel bench_survivors = {
    "survivors",
    "a burst, a tenth of which survives; what is resident 5 s later",
    run,
    {.size_bytes = 16, .size_max_bytes = 1024, .live = 200 * 1024, .ops = 1, .threads = 1, .order = "random"}};
