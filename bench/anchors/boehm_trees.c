/* boehm_trees.c - binary-trees with the Boehm collector; the work is described in pa_trees.c.
 *
 *   boehm_trees depth=18 threads=2
 */
#include "boehm_common.h"

enum { MIN_DEPTH = 4, MAX_DEPTH = 30 };

typedef struct node {
    struct node *left, *right;
} node;

typedef struct worker {
    pthread_t thread;
    int depth;
    uint32_t trees;
    uint64_t nodes;
} worker;

static node *build(int depth)
{
    if (depth == 0)
        return boehm_must(GC_MALLOC(sizeof(node)));
    node *left = build(depth - 1), *right = build(depth - 1);
    node *made = boehm_must(GC_MALLOC(sizeof(node)));
    made->left = left;
    made->right = right;
    return made;
}

static uint64_t count(const node *n)
{
    return n->left ? 1 + count(n->left) + count(n->right) : 1;
}

static void *work(void *argument)
{
    worker *w = argument;
    for (uint32_t i = 0; i < w->trees; i++)
        w->nodes += count(build(w->depth));
    return NULL;
}

int main(int argc, char **argv)
{
    int depth = (int)anchor_number(argc, argv, "depth", 18);
    int threads = (int)anchor_number(argc, argv, "threads", 2);
    if (depth < MIN_DEPTH || depth > MAX_DEPTH || threads < 1 || threads > ANCHOR_MAX_THREADS)
        anchor_die("depth 4..30, threads 1..64");
    boehm_start();
    uint64_t started = anchor_now_ns();

    uint64_t nodes = count(build(depth + 1));
    static node *lasting;       /* the data segment is a root */
    lasting = build(depth);

    for (int d = MIN_DEPTH; d <= depth; d += 2) {
        worker workers[ANCHOR_MAX_THREADS];
        uint32_t trees = (uint32_t)1 << (depth - d + MIN_DEPTH);
        for (int t = 0; t < threads; t++) {
            uint32_t share = trees / (uint32_t)threads + ((uint32_t)t < trees % (uint32_t)threads);
            workers[t] = (worker){.depth = d, .trees = share};
            if (pthread_create(&workers[t].thread, NULL, work, &workers[t]))
                anchor_die("no thread");
        }
        for (int t = 0; t < threads; t++) {
            pthread_join(workers[t].thread, NULL);
            nodes += workers[t].nodes;
        }
    }
    nodes += count(lasting);

    double wall_s = 1e-9 * (double)(anchor_now_ns() - started);
    printf("{\"collector\": \"boehm\", \"program\": \"trees\", \"nodes\": %llu, \"wall_s\": %.6f, \"cpu_s\": %.6f",
           (unsigned long long)nodes, wall_s, anchor_cpu_s());
    boehm_stops_end();
    printf("}\n");
    return 0;
}
