/* misuse.c - what a program must not do with managed objects, one a run, named by argv[1].
 *
 * The library must end the process with one line on stderr.  An address on stdout, where one is printed before, must
 * be named by that line.  "allowed" runs the neighbours that are right and returns 0.  The expected words are in
 * tests/gc/test_gc_misuse.py.
 */
#include "gc_test.h"
#include "include/pyalloc_inline.h"

static const pa_type *type;

static void say(const void *p)
{
    printf("%p\n", p);
    fflush(stdout);
}

static void new_outside(void) { pa_new(type); }
static void new_inline_outside(void) { pa_new_inline(type); }
static void new_bytes_outside(void) { pa_new_bytes(8); }
static void new_array_outside(void) { pa_new_array(type, 3); }
static void new_pointers_outside(void) { pa_new_pointers(3); }
static void new_conservative_outside(void) { pa_new_conservative(64); }
static void safepoint_outside(void) { pa_safepoint(); }
static void handle_outside(void) { pa_handle_new(NULL); }
static void unbalanced_leave(void) { pa_leave(); }

static void unbalanced_leave_after_nesting(void)
{
    enter();
    enter();
    pa_leave();
    pa_leave();
    pa_leave();
}

static void new_after_leave(void)
{
    enter();
    pa_new(type);
    pa_leave();
    pa_new(type);
}

static void frame_outside(void)
{
    void *slots[1];
    pa_frame frame;
    enter();
    pa_leave();
    pa_frame_push(&frame, slots, 1);
}

static void pop_in_wrong_order(void)
{
    void *slots[2];
    pa_frame below, above;
    enter();
    pa_frame_push(&below, &slots[0], 1);
    pa_frame_push(&above, &slots[1], 1);
    pa_frame_pop(&below);
}

static void *managed(size_t nbytes)
{
    enter();
    void *p = must(pa_new_bytes(nbytes));
    pa_leave();
    say(p);
    return p;
}

static void free_small(void) { pa_free(managed(100)); }
static void free_large(void) { pa_free(managed(100000)); }
static void free_tiny(void) { pa_free(managed(5)); }

static void *free_in_thread(void *p)
{
    pa_free(p);
    return NULL;
}

static void free_small_in_other_thread(void) { join(start(free_in_thread, managed(100))); }
static void realloc_managed(void) { pa_realloc(managed(100), 200); }

static void store_to_stack(void)
{
    static _Thread_local void *foreign;
    enter();
    void *p = pa_new(type);
    say(&foreign);
    pa_store(&foreign, p);
}

static void store_to_explicit_block(void)
{
    void **block = pa_malloc(64);
    enter();
    void *p = pa_new(type);
    say(block);
    pa_store(block, p);
}

static void store_range_to_explicit_block(void)
{
    void **block = pa_malloc(64);
    void *from[2] = {0};
    enter();
    say(block);
    pa_store_range(block, from, 2);
}

static void *block_with_range(size_t nbytes, size_t from)
{
    char *block = pa_malloc(nbytes);
    REQUIRE(block);
    memset(block, 0, nbytes);
    REQUIRE(pa_roots_add(block + from, 64, PA_ROOTS_BARRIERED) == 0);
    say(block);
    return block;
}

static void free_with_range(void) { pa_free(block_with_range(256, 0)); }
static void free_with_range_inside(void) { pa_free(block_with_range(4096, 1024)); }
static void free_large_with_range(void) { pa_free(block_with_range(1 << 20, 1 << 19)); }
static void realloc_with_range(void) { pa_realloc(block_with_range(256, 64), 100000); }
static void free_with_range_in_other_thread(void) { join(start(free_in_thread, block_with_range(256, 64))); }

static void allowed(void)
{
    char *block = block_with_range(256, 64);
    void *slots[1];
    pa_frame frame;
    enter();
    REQUIRE(pa_try_enter() && pa_is_inside());
    pa_leave();
    pa_frame_push(&frame, slots, 1);
    slots[0] = pa_new(type);
    pa_store((void **)(block + 64), slots[0]);
    pa_store((void **)(block + 120), (char *)slots[0] + 8);
    pa_frame_pop(&frame);
    pa_gc();
    REQUIRE(pa_find_object(load((void **)(block + 120))) == load((void **)(block + 64)));
    pa_leave();
    REQUIRE(!pa_is_inside());
    char *neighbour = pa_malloc(256);
    pa_free(neighbour);
    errno = 0;
    REQUIRE(pa_roots_add(block + 64, 8, PA_ROOTS_BARRIERED) == EINVAL, "overlap");
    REQUIRE(pa_roots_add(block + 120, 16, PA_ROOTS_BARRIERED) == EINVAL, "overlap");
    REQUIRE(pa_roots_add(block + 1, 8, PA_ROOTS_BARRIERED) == EINVAL, "alignment");
    REQUIRE(pa_roots_add(block + 128, 8, 2) == EINVAL && pa_roots_add(block + 128, 8, 77) == EINVAL, "flags");
    REQUIRE(pa_roots_remove(block) == EINVAL, "never registered");
    REQUIRE(pa_roots_remove(block + 72) == EINVAL, "not its base");
    REQUIRE(pa_roots_remove(block + 64) == 0 && pa_roots_remove(block + 64) == EINVAL);
    pa_free(block);
    pa_handle_free(NULL);
    REQUIRE(pa_set_gc_mode(-1) == -1 && pa_set_gc_mode(MODES) == -1);
    managed_heap_must_be_empty();
}

#define CASES(X)                                                                                              \
    X(new_outside) X(new_inline_outside) X(new_bytes_outside) X(new_array_outside) X(new_pointers_outside) \
    X(new_conservative_outside) X(safepoint_outside) X(handle_outside) X(unbalanced_leave) \
    X(unbalanced_leave_after_nesting) X(new_after_leave) \
    X(frame_outside) X(pop_in_wrong_order) X(free_small) X(free_large) X(free_tiny) X(free_small_in_other_thread) \
    X(realloc_managed) X(store_to_stack) X(store_to_explicit_block) X(store_range_to_explicit_block) \
    X(free_with_range) X(free_with_range_inside) X(free_large_with_range) X(realloc_with_range) \
    X(free_with_range_in_other_thread) X(allowed)

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    type = node_type(1);
#define X(it)                                                                                                 \
    if (strcmp(name, "list") == 0)                                                                            \
        puts(#it);                                                                                            \
    else if (strcmp(name, #it) == 0)                                                                          \
        return it(), 0;
    CASES(X)
#undef X
    return strcmp(name, "list") == 0 ? 0 : 2;
}
