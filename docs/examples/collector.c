/* collector.c - a sorted tree of managed objects, from C.
 *
 *     cc collector.c -lpyalloc -o collector && ./collector
 *
 * Nothing is freed by hand: what no root leads to any more, the collector takes.
 */
#include <inttypes.h>
#include <pyalloc_inline.h>    /* pyalloc.h, and pa_store inlined */
#include <stddef.h>
#include <stdio.h>

typedef struct tree {
    struct tree *left, *right;
    int64_t key;
} tree;

static const pa_type *tree_type;

/* A new object stays only when a root leads to it, so it goes into a frame before anything else is allocated.
 * Pointers in objects are written with pa_store or its inlined twin: that tells a collection under way. */
static tree *insert(tree *root, int64_t key)
{
    void *slots[1];
    pa_frame frame;
    pa_frame_push(&frame, slots, 1);    /* slots are roots until the pop */
    slots[0] = root;
    tree *fresh = pa_new(tree_type);    /* may collect, and polls: root is safe in its slot */
    if (fresh) {
        fresh->key = key;
        tree **at = NULL;
        for (tree *t = slots[0]; t; t = *at)
            at = key < t->key ? &t->left : &t->right;
        if (at)
            pa_store_inline((void **)at, fresh);
        else
            slots[0] = fresh;           /* a frame is plain C: no pa_store */
    }
    pa_frame_pop(&frame);
    return slots[0];                    /* good until the next poll */
}

static int64_t sum(const tree *t) { return t ? sum(t->left) + t->key + sum(t->right) : 0; }

int main(void)
{
    const size_t pointers[] = {offsetof(tree, left), offsetof(tree, right)};
    tree_type = pa_type_new(sizeof(tree), pointers, 2);
    if (!tree_type || !pa_enter())      /* managed objects are touched only between enter and leave */
        return 1;
    pa_handle *kept = pa_handle_new(NULL); /* a root that any thread may use */
    uint64_t random = 1;
    for (int round = 0; round < 20; round++) {
        pa_handle_set(kept, NULL);      /* the last round's tree is garbage now */
        for (int i = 0; i < 20000; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            pa_handle_set(kept, insert(pa_handle_get(kept), (int64_t)(random >> 44)));
        }
    }
    pa_gc();                            /* all that is unreachable is gone on return */
    printf("sum of the keys: %" PRId64 "\n", sum(pa_handle_get(kept)));
    pa_handle_free(kept);
    pa_leave();

    pa_gc_stats s;
    pa_read_gc_stats(&s);
    printf("%" PRIu64 " objects made, %" PRIu64 " bytes of them alive after %" PRIu64 " collections\n",
           s.mallocs, s.heap_marked_bytes, s.cycles);
    printf("stopped %" PRIu64 " times, %.3f ms in all\n", s.pause_count, (double)s.pause_total_ns / 1e6);
    return 0;
}
