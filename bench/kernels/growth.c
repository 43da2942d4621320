/* growth.c - arrays that grow: realloc by an eighth (--order double: to twice the size), from --size to --size-max.
 *
 * What every list, string builder and vector does.  --live arrays grow in turn (1: the block at the end of
 * the heap can grow in place; several: they are in one another's way), and between two steps a
 * small block is allocated and the one before it freed, because real programs do other things meanwhile.  The
 * part that was added is written once every 64 bytes up to 4 KiB and once a page beyond; the
 * last old byte is checked after each step.  When an array has reached the end it is freed and
 * starts again.  One operation is one realloc.
 */
#include "bench.h"

#include <string.h>

typedef struct array {
    unsigned char *p;
    size_t nbytes;
} array;

static void touch(unsigned char *p, size_t from, size_t to)
{
    size_t step = to - from <= 4096 ? 64 : 4096;
    for (size_t i = from; i < to; i += step)
        p[i] = (unsigned char)i;
    p[to - 1] = (unsigned char)to;
}

static void grow(array *a, const bench_options *o)
{
    if (a->nbytes >= o->size_max_bytes) {
        free(a->p);
        *a = (array){NULL, 0};
    }
    bool doubles = o->order != NULL && strcmp(o->order, "double") == 0;
    size_t nbytes = a->nbytes == 0 ? o->size_bytes : doubles ? 2 * a->nbytes : a->nbytes + a->nbytes / 8 + 8;
    unsigned char *p = realloc(a->p, nbytes);
    if (p == NULL)
        bench_die("realloc to %zu bytes failed", nbytes);
    bench_escape(p);
    if (a->nbytes != 0 && p[a->nbytes - 1] != (unsigned char)a->nbytes)
        bench_die("realloc from %zu to %zu bytes lost its content", a->nbytes, nbytes);
    touch(p, a->nbytes, nbytes);
    *a = (array){p, nbytes};
}

static void run(const bench_options *o, bench_result *r)
{
    if (o->order != NULL && strcmp(o->order, "double") != 0)
        bench_die("growth knows --order double only");
    if (o->live == 0 || o->size_bytes == 0)
        bench_die("growth needs --live and --size of at least 1");
    array *arrays = bench_table(o->live * sizeof *arrays);
    uint64_t rounds = o->ops / o->live, seed = o->seed;
    void *other = bench_malloc(16);
    if (rounds == 0)
        rounds = 1;
    bench_start(r);
    for (uint64_t i = 0; i < rounds; i++) {
        for (size_t k = 0; k < o->live; k++) {
            grow(&arrays[k], o);
            void *next = bench_malloc(16 + bench_random_below(&seed, 240));
            free(other);
            other = next;
        }
    }
    bench_stop(r, rounds * o->live);
    free(other);
    for (size_t k = 0; k < o->live; k++)
        free(arrays[k].p);
}

const bench_kernel bench_growth = {
    "growth",
    "realloc by an eighth from size to size-max; one realloc is an operation",
    run,
    {.size_bytes = 16, .size_max_bytes = 65536, .live = 8, .ops = 500000, .threads = 1}};
