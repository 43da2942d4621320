/* boehm_mutate.c - a large live heap mutated by several threads, with the Boehm collector; see pa_mutate.c.
 *
 *   boehm_mutate n=20000000 threads=2 seconds=30 order=random churn=8
 */
#include "boehm_heap.h"

static void *mutate(void *argument)
{
    boehm_forest *forest = argument;
    uint64_t now = forest->started_ns = anchor_now_ns(), before;
    do {
        node *fresh = boehm_must(GC_MALLOC(sizeof(node)));
        node **slot = boehm_heap_find(forest->table, anchor_below(&forest->seed, forest->nodes));
        node *old = *slot;
        fresh->value = old->value;
        fresh->left = old->left;
        fresh->right = old->right;
        *slot = fresh;
        for (uint32_t i = 0; i < forest->churn; i++)
            boehm_must(GC_MALLOC(sizeof(node)));
        before = now;
        now = anchor_now_ns();
        anchor_record(&forest->latency, now - before);
    } while (now < forest->deadline_ns);
    forest->ended_ns = now;
    forest->ops = forest->latency.count;
    return NULL;
}

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
    static boehm_forest forests[ANCHOR_MAX_THREADS];
    static anchor_histogram latency;
    boehm_start();
    uint64_t started = anchor_now_ns();
    boehm_heap_build(forests, threads, n, shuffled);
    double build_s = 1e-9 * (double)(anchor_now_ns() - started);
    anchor_mark("mutate begins", main_began);
    boehm_stops_begin();
    double cpu_s = anchor_cpu_s();
    started = anchor_now_ns();
    for (int t = 0; t < threads; t++) {
        forests[t].seed = 1000 + (uint64_t)t;
        forests[t].deadline_ns = started + (uint64_t)(1e9 * seconds);
        forests[t].churn = churn;
        if (pthread_create(&forests[t].thread, NULL, mutate, &forests[t]))
            anchor_die("no thread");
    }
    double mops = 0;
    for (int t = 0; t < threads; t++) {
        pthread_join(forests[t].thread, NULL);
        mops += 1e3 * (double)forests[t].ops / (double)(forests[t].ended_ns - forests[t].started_ns);
        anchor_merge(&latency, &forests[t].latency);
    }
    double wall_s = 1e-9 * (double)(anchor_now_ns() - started);
    cpu_s = anchor_cpu_s() - cpu_s;
    anchor_mark("mutate ends", main_began);
    printf("{\"collector\": \"boehm\", \"program\": \"mutate\", \"n\": %u, \"build_s\": %.3f, \"wall_s\": %.6f, "
           "\"cpu_s\": %.6f, \"mops\": %.6f",
           n, build_s, wall_s, cpu_s, mops);
    anchor_print_latency(&latency);
    boehm_stops_end();
    printf(", \"whole\": %s}\n", boehm_heap_is_whole(forests, threads) ? "true" : "false");
    return 0;
}
