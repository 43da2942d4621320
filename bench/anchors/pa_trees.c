/* pa_trees.c - binary-trees with pyalloc: many short-lived trees beside one that stays, by several threads.
 *
 *   pa_trees depth=18 threads=2 frames=thread
 *
 * The benchmark of that name, from its description: a stretch tree of depth + 1, a tree of depth that lives to
 * the end, and for every second depth d from 4 up as many trees as make the node count about the same; each is
 * built bottom up, its nodes are counted, and it is dropped. The trees of each depth are divided among threads.
 *
 * frames=thread keeps the half-built subtrees of a thread in one frame, two slots a depth; frames=call pushes a
 * frame for every inner node, as a C caller does who thinks of one function at a time.
 */
#include "pa_common.h"

enum { MIN_DEPTH = 4, MAX_DEPTH = 30 };

typedef struct node {
    struct node *left, *right;
} node;

static const pa_type *node_type;
static bool frame_per_call;

typedef struct worker {
    pthread_t thread;
    int depth;
    uint32_t trees;
    uint64_t nodes;
} worker;

/* slots[2 * depth] and the next hold this depth's subtrees across the polls of pa_new. */
static node *build(int depth, void **slots)
{
    node *made;
    if (depth > 0) {
        slots[2 * depth] = build(depth - 1, slots);
        slots[2 * depth + 1] = build(depth - 1, slots);
        made = pa_new_inline(node_type);
        pa_must(made, "out of memory");
        pa_store_inline((void **)&made->left, slots[2 * depth]);
        pa_store_inline((void **)&made->right, slots[2 * depth + 1]);
    } else {
        made = pa_new_inline(node_type);
        pa_must(made, "out of memory");
    }
    return made;
}

static node *build_with_frames(int depth)
{
    if (depth == 0) {
        node *leaf = pa_new_inline(node_type);
        pa_must(leaf, "out of memory");
        return leaf;
    }
    void *children[2];
    pa_frame frame;
    pa_frame_push(&frame, children, 2);
    children[0] = build_with_frames(depth - 1);
    children[1] = build_with_frames(depth - 1);
    node *made = pa_new_inline(node_type);
    pa_must(made, "out of memory");
    pa_store_inline((void **)&made->left, children[0]);
    pa_store_inline((void **)&made->right, children[1]);
    pa_frame_pop(&frame);
    return made;
}

static node *tree(int depth, void **slots)
{
    return frame_per_call ? build_with_frames(depth) : build(depth, slots);
}

static uint64_t count(const node *n)
{
    return n->left ? 1 + count(n->left) + count(n->right) : 1;
}

static void *work(void *argument)
{
    worker *w = argument;
    void *slots[2 * (MAX_DEPTH + 2)];
    pa_frame frame;
    pa_must(pa_enter(), "cannot enter");
    pa_frame_push(&frame, slots, sizeof slots / sizeof slots[0]);
    for (uint32_t i = 0; i < w->trees; i++) {
        w->nodes += count(tree(w->depth, slots));
        /* The tree is dropped here: a compiler's stack maps know that, a shadow stack is told. */
        memset(slots, 0, (2 * (size_t)w->depth + 2) * sizeof slots[0]);
    }
    pa_frame_pop(&frame);
    pa_leave();
    return NULL;
}

int main(int argc, char **argv)
{
    int depth = (int)anchor_number(argc, argv, "depth", 18);
    int threads = (int)anchor_number(argc, argv, "threads", 2);
    frame_per_call = !strcmp(anchor_text(argc, argv, "frames", "thread"), "call");
    if (depth < MIN_DEPTH || depth > MAX_DEPTH || threads < 1 || threads > ANCHOR_MAX_THREADS)
        anchor_die("depth 4..30, threads 1..64");
    static pa_stops stops;
    pa_stops_begin(&stops);
    uint64_t started = anchor_now_ns();

    node_type = pa_type_new(sizeof(node), (size_t[]){offsetof(node, left), offsetof(node, right)}, 2);
    pa_must(node_type, "no type");
    void *slots[2 * (MAX_DEPTH + 2)];
    pa_frame frame;
    pa_must(pa_enter(), "cannot enter");
    pa_frame_push(&frame, slots, sizeof slots / sizeof slots[0]);
    uint64_t nodes = count(tree(depth + 1, slots));
    memset(slots, 0, sizeof slots);
    pa_handle *lasting = pa_handle_new(tree(depth, slots));
    pa_must(lasting, "no handle");
    pa_frame_pop(&frame);
    pa_leave();

    for (int d = MIN_DEPTH; d <= depth; d += 2) {
        worker workers[ANCHOR_MAX_THREADS];
        uint32_t trees = (uint32_t)1 << (depth - d + MIN_DEPTH);
        for (int t = 0; t < threads; t++) {
            uint32_t share = trees / (uint32_t)threads + ((uint32_t)t < trees % (uint32_t)threads);
            workers[t] = (worker){.depth = d, .trees = share};
            pa_must(!pthread_create(&workers[t].thread, NULL, work, &workers[t]), "no thread");
        }
        for (int t = 0; t < threads; t++) {
            pthread_join(workers[t].thread, NULL);
            nodes += workers[t].nodes;
        }
    }
    pa_must(pa_enter(), "cannot enter");
    nodes += count(pa_handle_get(lasting));
    pa_leave();

    double wall_s = 1e-9 * (double)(anchor_now_ns() - started);
    printf("{\"collector\": \"pyalloc\", \"program\": \"trees\", \"nodes\": %llu, \"wall_s\": %.6f, \"cpu_s\": %.6f",
           (unsigned long long)nodes, wall_s, anchor_cpu_s());
    pa_stops_end(&stops);
    printf("}\n");
    return 0;
}
