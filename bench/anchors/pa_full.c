/* pa_full.c - full collections of live 32-byte objects with pyalloc.
 *
 *   pa_full n=20000000 order=random|alloc runs=5
 *
 * The heap of pa_heap.h with one table, built with the collector off; one collection to warm up, then the median of
 * runs. A collection is pa_gc: marked and swept on return. PYALLOC_GC_WORKERS limits the marking threads.
 */
#include "pa_heap.h"

enum { MAX_RUNS = 100 };

int main(int argc, char **argv)
{
    uint32_t n = (uint32_t)anchor_number(argc, argv, "n", 20e6);
    int runs = (int)anchor_number(argc, argv, "runs", 5);
    bool shuffled = !strcmp(anchor_text(argc, argv, "order", "random"), "random");
    if (n < 2 || n > 2000000000 || runs < 1 || runs > MAX_RUNS)
        anchor_die("n 2..2e9, runs 1..100");
    static pa_forest forest[1];
    static pa_stops stops;
    double times_ms[MAX_RUNS];
    pa_set_gc_percent(-1);
    uint64_t started = anchor_now_ns();
    pa_heap_build(forest, 1, n, 32, shuffled);
    double build_s = 1e-9 * (double)(anchor_now_ns() - started);
    pa_gc();
    pa_stops_begin(&stops);
    double cpu_s = anchor_cpu_s();
    for (int i = 0; i < runs; i++) {
        started = anchor_now_ns();
        pa_gc();
        times_ms[i] = 1e-6 * (double)(anchor_now_ns() - started);
    }
    cpu_s = anchor_cpu_s() - cpu_s;
    double median_ms = anchor_median(times_ms, (size_t)runs);
    printf("{\"collector\": \"pyalloc\", \"program\": \"full\", \"n\": %u, \"order\": \"%s\", \"build_s\": %.3f, "
           "\"ms\": %.3f, \"ms_min\": %.3f, \"ns_per_object\": %.3f, \"cpu_ns_per_object\": %.3f, \"whole\": %s",
           n, shuffled ? "random" : "alloc", build_s, median_ms, times_ms[0], 1e6 * median_ms / n,
           1e9 * cpu_s / runs / n, pa_heap_is_whole(forest, 1) ? "true" : "false");
    pa_stops_end(&stops);
    printf("}\n");
    return 0;
}
