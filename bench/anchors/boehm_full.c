/* boehm_full.c - full collections of live 32-byte objects with the Boehm collector; see pa_full.c.
 *
 *   boehm_full n=20000000 order=random|alloc runs=5
 *
 * A collection is GC_gcollect. GC_MARKERS=1 or 2 in the environment sets the marking threads. What this
 * collector leaves to later allocations, the sweep of blocks that are not empty, is not in its figure.
 */
#include "boehm_heap.h"

enum { MAX_RUNS = 100 };

int main(int argc, char **argv)
{
    uint32_t n = (uint32_t)anchor_number(argc, argv, "n", 20e6);
    int runs = (int)anchor_number(argc, argv, "runs", 5);
    bool shuffled = !strcmp(anchor_text(argc, argv, "order", "random"), "random");
    if (n < 2 || n > 2000000000 || runs < 1 || runs > MAX_RUNS)
        anchor_die("n 2..2e9, runs 1..100");
    static boehm_forest forest[1];
    double times_ms[MAX_RUNS];
    boehm_start();
    GC_disable();
    uint64_t started = anchor_now_ns();
    boehm_heap_build(forest, 1, n, shuffled);
    double build_s = 1e-9 * (double)(anchor_now_ns() - started);
    GC_enable();
    GC_gcollect();
    boehm_stops_begin();
    double cpu_s = anchor_cpu_s();
    for (int i = 0; i < runs; i++) {
        started = anchor_now_ns();
        GC_gcollect();
        times_ms[i] = 1e-6 * (double)(anchor_now_ns() - started);
    }
    cpu_s = anchor_cpu_s() - cpu_s;
    double median_ms = anchor_median(times_ms, (size_t)runs);
    printf("{\"collector\": \"boehm\", \"program\": \"full\", \"n\": %u, \"order\": \"%s\", \"build_s\": %.3f, "
           "\"ms\": %.3f, \"ms_min\": %.3f, \"ns_per_object\": %.3f, \"cpu_ns_per_object\": %.3f, \"whole\": %s",
           n, shuffled ? "random" : "alloc", build_s, median_ms, times_ms[0], 1e6 * median_ms / n,
           1e9 * cpu_s / runs / n, boehm_heap_is_whole(forest, 1) ? "true" : "false");
    boehm_stops_end();
    printf("}\n");
    return 0;
}
