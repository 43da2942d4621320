/* pair.c - the shortest life: malloc(n), free, again.
 *
 * The classic first figure of any allocator: one size, one block alive at a time, everything in the
 * first-level cache.  It shows the length of the fast path and nothing else, which is why it is one row
 * among many.  One operation is one pair.  The block is deliberately not written, so that the figure is
 * the allocator's own.
 *
 * --order loop runs the same loop without the calls; the difference of two instruction counts, less
 * that of the loop, is what one pair executes (see instructions.py in the Python package).
 * With --threads 2 each thread does its half: an allocator without shared state stays at half the time.
 */
#include "bench.h"

#include <string.h>

static void loop(size_t nbytes, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        bench_escape((void *)(uintptr_t)nbytes);
}

static void pairs(size_t nbytes, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        void *p = malloc(nbytes);
        bench_escape(p);
        free(p);
    }
}

typedef struct job {
    size_t nbytes;
    uint64_t each;
    void (*body)(size_t nbytes, uint64_t n);
} job;

static void thread_body(unsigned index, void *arg)
{
    const job *j = arg;
    (void)index;
    j->body(j->nbytes, j->each);
}

static void run(const bench_options *o, bench_result *r)
{
    job j = {o->size_bytes, o->ops / o->threads, pairs};
    if (o->order != NULL && strcmp(o->order, "loop") == 0)
        j.body = loop;
    free(bench_malloc(o->size_bytes));
    pairs(o->size_bytes, 1000); /* warm-up, and the same number whatever --ops says */
    bench_parallel(o->threads, thread_body, &j, r, j.each * o->threads);
}

const bench_kernel bench_pair = {"pair",
                                 "malloc(size) + free, again and again; one operation is one pair",
                                 run,
                                 {.size_bytes = 64, .size_max_bytes = 64, .ops = 10000000, .threads = 1}};
