/* pa_mutate.c - a large live heap mutated by several threads, with pyalloc.
 *
 *   pa_mutate n=20000000 threads=2 seconds=30 order=random churn=8 [explain=1]
 *
 * The heap and the operation are described in pa_heap.h. Built with the collector on, then mutated for the time
 * given; churn adds that many objects, dropped at once, to each operation. With gctrace on, the runner reads the
 * shares of the processors from the lines of cycles that lie between the marks "mutate begins" and "mutate ends".
 * With explain=1 it says what operations of 1 ms and more were made of (delay.h); machine.c is the control.
 */
#include "pa_heap.h"

int main(int argc, char **argv)
{
    uint64_t main_began = anchor_now_ns();
    uint32_t n = (uint32_t)anchor_number(argc, argv, "n", 20e6);
    int threads = (int)anchor_number(argc, argv, "threads", 2);
    double seconds = anchor_number(argc, argv, "seconds", 30);
    uint32_t churn = (uint32_t)anchor_number(argc, argv, "churn", 8);
    bool shuffled = !strcmp(anchor_text(argc, argv, "order", "random"), "random");
    if (threads < 1 || threads > ANCHOR_MAX_THREADS || n < 4 * (uint32_t)threads || n > 2000000000)
        anchor_die("threads 1..64, n 4 * threads..2e9");
    static pa_forest forests[ANCHOR_MAX_THREADS];
    static pa_stops stops;
    static anchor_histogram latency;
    static anchor_delays delays;
    bool explained = anchor_number(argc, argv, "explain", 0) != 0;
    uint64_t started = anchor_now_ns();
    pa_heap_build(forests, threads, n, 32, shuffled);
    double build_s = 1e-9 * (double)(anchor_now_ns() - started);
    for (int t = 0; t < threads; t++)
        forests[t].explained = explained;
    anchor_mark("mutate begins", main_began);
    pa_stops_begin(&stops);
    double cpu_s = anchor_cpu_s();
    started = anchor_now_ns();
    pa_heap_start(forests, threads, seconds, churn, NULL);
    double mops = pa_heap_join(forests, threads, &latency);
    double wall_s = 1e-9 * (double)(anchor_now_ns() - started);
    cpu_s = anchor_cpu_s() - cpu_s;
    anchor_mark("mutate ends", main_began);
    printf("{\"collector\": \"pyalloc\", \"program\": \"mutate\", \"n\": %u, \"build_s\": %.3f, \"wall_s\": %.6f, "
           "\"cpu_s\": %.6f, \"mops\": %.6f",
           n, build_s, wall_s, cpu_s, mops);
    anchor_print_latency(&latency);
    for (int t = 0; t < threads; t++)
        anchor_delays_merge(&delays, &forests[t].delays);
    if (explained)
        anchor_print_delays(&delays);
    pa_stops_end(&stops);
    printf(", \"whole\": %s}\n", pa_heap_is_whole(forests, threads) ? "true" : "false");
    return 0;
}
