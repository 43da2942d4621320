/* hollow.c - pages of free blocks that go back while blocks around them live (heap/hollow.h, heap/thin.h).
 *
 *     hollow [rounds [threads [forks?]]]
 *
 * First, interleavings laid out by puppets (puppet.h): a sleeper's span loses pages while its owner is in the middle
 * of a free into it; the blocks come back each once.  Then threads that fill their spans, free nine blocks of ten
 * in random order, partly by other threads' hands, and go on with little, under a clock that races ahead, so that
 * every lap finds idle spans; against a thread that asks for everything back or looks at sleepers.  Every block's
 * bytes are checked.  Forks in between: the child's spans have holes, too.  At the end nothing is in use.
 */
#include "puppet.h"

#include <sys/wait.h>

#include "heap/hollow.h"
#include "sys/clock.h"

enum { BLOCK_BYTES = 2000, BLOCKS = 4096, LEAST_BLOCKS = 24 };

static puppet owner_puppet, flusher_puppet;
static void *blocks[BLOCKS];
static size_t block_count;

static void *do_malloc(puppet *p, void *nbytes)
{
    void *block = pa_malloc((size_t)(uintptr_t)nbytes);
    REQUIRE(block);
    memset(block, 0x5a, (size_t)(uintptr_t)nbytes);
    return block;
}

static void *do_free(puppet *p, void *block)
{
    pa_free(block);
    return NULL;
}

static void *do_flush(puppet *p, void *unused)
{
    return (void *)(uintptr_t)pa_idle_flush_all(&pa_the_heap, pa_current_mcache);
}

static void *do_flush_outbox(puppet *p, void *unused)
{
    pa_mcache_flush_outbox(pa_current_mcache);
    return NULL;
}

/* A span of the owner's that is partial: it was full, and one block came back. */
static pa_span *a_partial_span(puppet *owner)
{
    pa_span *s = NULL;
    block_count = 0;
    for (bool full = false; !full;) {
        void *p = run(owner, do_malloc, (void *)BLOCK_BYTES);
        if (pa_span_of(p) != s) {
            while (block_count)
                run(owner, do_free, blocks[--block_count]);
            s = pa_span_of(p);
        }
        blocks[block_count++] = p;
        size_t capacity = (s->limit - s->base) / pa_span_element_bytes(s);
        full = block_count == capacity && capacity >= LEAST_BLOCKS; /* the first spans of a class are short */
    }
    void *next = run(owner, do_malloc, (void *)BLOCK_BYTES); /* gives it up */
    REQUIRE(pa_span_of(next) != s && atomic_load(&s->owner) == NULL);
    run(owner, do_free, blocks[--block_count]);
    run(owner, do_flush_outbox, NULL); /* and claims it */
    run(owner, do_free, next);
    REQUIRE(atomic_load(&s->owner) != NULL);
    return s;
}

static void require_intact(size_t from)
{
    for (size_t i = from; i < block_count; i++)
        for (size_t k = 0; k < BLOCK_BYTES; k++)
            REQUIRE(((unsigned char *)blocks[i])[k] == 0x5a);
}

static void free_all(puppet *owner)
{
    while (block_count)
        run(owner, do_free, blocks[--block_count]);
}

/* The owner's block is listed and its count not lowered yet: what is behind it may go, it must not. */
static void pages_go_while_the_owner_frees(void)
{
    pa_span *s = a_partial_span(&owner_puppet);
    size_t gone = block_count - 6;
    for (size_t i = 0; i < gone; i++)
        run(&owner_puppet, do_free, blocks[i]);
    memmove(blocks, blocks + gone, (block_count -= gone) * sizeof *blocks);
    void *last = blocks[0];
    run_to(&owner_puppet, PA_YIELD_FREE_PUSHED, do_free, last);
    REQUIRE((uintptr_t)run(&flusher_puppet, do_flush, NULL) > 0 && s->hollow != 0);
    REQUIRE(s->free == last && !pa_span_is_out(s, (uintptr_t)last));
    let_go(&owner_puppet);
    finish(&owner_puppet);
    memmove(blocks, blocks + 1, --block_count * sizeof *blocks);
    require_intact(0);
    heap_must_be_whole();
    /* All of its blocks come back, each once: none is one that lives. */
    size_t size = pa_span_element_bytes(s), capacity = (s->limit - s->base) / size, survivors = block_count;
    void *others[BLOCKS];
    size_t other_count = 0;
    while (block_count < capacity && other_count < BLOCKS) {
        void *p = run(&owner_puppet, do_malloc, (void *)BLOCK_BYTES);
        if (pa_span_of(p) != s) {
            others[other_count++] = p;
            continue;
        }
        for (size_t i = 0; i < block_count; i++)
            REQUIRE(blocks[i] != p);
        blocks[block_count++] = p;
    }
    while (other_count)
        run(&owner_puppet, do_free, others[--other_count]);
    REQUIRE(block_count == capacity && survivors < capacity && !pa_span_has_out(s));
    require_intact(0);
    free_all(&owner_puppet);
}

/* The span empties by the owner's hand while it has holes: they are free and released, not counted as backed. */
static void a_span_with_holes_empties(void)
{
    pa_span *s = a_partial_span(&owner_puppet);
    while (block_count > 2)
        run(&owner_puppet, do_free, blocks[--block_count]);
    run(&flusher_puppet, do_flush, NULL);
    size_t hollow_bytes = pa_span_hollow_bytes(s);
    uint64_t scavenged = pa_the_heap.pages.scavenged_pages;
    REQUIRE(hollow_bytes >= 2 * PA_PAGE_BYTES);
    free_all(&owner_puppet);
    run(&owner_puppet, do_flush_outbox, NULL);
    REQUIRE(atomic_load(&pa_the_heap.hollow_bytes) == 0);
    REQUIRE(pa_the_heap.pages.scavenged_pages > scavenged);
}

/* A thread ends: its spans are listed with their holes, and who takes one over gets their blocks. */
static void a_thread_ends_and_leaves_holes(void)
{
    puppet *p = new_puppet(&owner_puppet);
    pa_span *s = a_partial_span(p);
    while (block_count > 3)
        run(p, do_free, blocks[--block_count]);
    run(&flusher_puppet, do_flush, NULL);
    REQUIRE(s->hollow != 0);
    dismiss(p);
    REQUIRE(s->listed && s->hollow != 0);
    heap_must_be_whole();
    run(&flusher_puppet, do_flush, NULL);
    pa_free_os_memory(); /* listed ones, too */
    require_intact(0);
    heap_must_be_whole();
    while (block_count)
        pa_free(blocks[--block_count]);
}

static void scenarios(void)
{
    new_puppet(&owner_puppet);
    new_puppet(&flusher_puppet);
    pages_go_while_the_owner_frees();
    heap_must_be_whole();
    a_span_with_holes_empties();
    heap_must_be_whole();
    dismiss(&owner_puppet);
    a_thread_ends_and_leaves_holes();
    dismiss(&flusher_puppet);
    heap_must_be_empty();
}

/* ---- Races ---- */

enum { SLOTS = 400, HANDED = 512, MAX_THREADS = 16, LITTLE = 60 };

typedef struct block {
    unsigned char *p;
    size_t nbytes;
} block;

static const size_t sizes[] = {96, 700, 1024, 1500, 3000, 4096, 6000, 9000, 20000, 30000};
static _Atomic(void *) handed[HANDED]; /* blocks on their way to whoever frees them */
static _Atomic bool stop;
static _Atomic uint64_t hollow_seen;
static long rounds;

static void make(uint64_t *seed, block *b)
{
    b->nbytes = sizes[random_below(seed, sizeof sizes / sizeof *sizes)] - random_below(seed, 16);
    REQUIRE((b->p = pa_malloc(b->nbytes)) != NULL);
    pattern_fill(b->p, b->nbytes, (uint32_t)b->nbytes);
}

static void unmake(uint64_t *seed, block *b)
{
    pattern_verify(b->p, b->nbytes, b->nbytes, (uint32_t)b->nbytes);
    pa_free(random_below(seed, 3) ? b->p : atomic_exchange(&handed[random_below(seed, HANDED)], b->p));
    b->p = NULL;
}

static void *owner(void *argument)
{
    uint64_t seed = (uintptr_t)argument;
    block mine[SLOTS] = {{0}};
    for (long i = 0; i < rounds; i++) {
        for (int k = 0; k < SLOTS; k++)
            if (!mine[k].p)
                make(&seed, &mine[k]);
        for (int k = 0; k < SLOTS; k++)
            if (random_below(&seed, 10))
                unmake(&seed, &mine[k]);
        for (int k = 0; k < LITTLE; k++) {
            block b;
            make(&seed, &b);
            unmake(&seed, &b);
        }
        uint64_t hollow = atomic_load(&pa_the_heap.hollow_bytes);
        if (hollow > atomic_load(&hollow_seen))
            atomic_store(&hollow_seen, hollow);
    }
    for (int k = 0; k < SLOTS; k++)
        if (mine[k].p)
            unmake(&seed, &mine[k]);
    return NULL;
}

/* Time flies, so that what one lap sees the next but one takes. */
static void *clock_hand(void *argument)
{
    for (uint64_t turn = 1; !atomic_load(&stop); turn++) {
        uint64_t now_ns = atomic_fetch_add(&pa_clock_set_ns, (uint64_t)300 * 1000 * 1000);
        if (turn % 32 == 0)
            pa_free_os_memory();
        else if (turn % 4 == 0)
            pa_idle_look(&pa_the_heap, NULL, now_ns);
        sched_yield();
    }
    return NULL;
}

static void fork_once(void)
{
    int status;
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        heap_must_be_whole();
        uint64_t seed = 7;
        block few[SLOTS];
        for (int k = 0; k < SLOTS; k++)
            make(&seed, &few[k]);
        heap_must_be_whole();
        for (int k = 0; k < SLOTS; k++)
            unmake(&seed, &few[k]);
        pa_free_os_memory();
        heap_must_be_whole();
        _exit(0);
    }
    REQUIRE(waitpid(child, &status, 0) == child && status == 0, "status %x", status);
}

int main(int argc, char **argv)
{
    pthread_t owners[MAX_THREADS], hand;
    rounds = argument(argc, argv, 1, 60);
    long threads = argument(argc, argv, 2, 3), forks = argument(argc, argv, 3, 1);
    REQUIRE(threads <= MAX_THREADS);
    atomic_store(&pa_yield_hook, hook);
    scenarios();
    atomic_store(&pa_clock_set_ns, (uint64_t)1 << 62);
    REQUIRE(pthread_create(&hand, NULL, clock_hand, NULL) == 0);
    for (int turn = 0; turn < 3; turn++) {
        for (long i = 0; i < threads; i++)
            REQUIRE(pthread_create(&owners[i], NULL, owner, (void *)(uintptr_t)(turn * 100 + i + 1)) == 0);
        for (int k = 0; k < 3 && forks; k++)
            fork_once();
        for (long i = 0; i < threads; i++)
            REQUIRE(pthread_join(owners[i], NULL) == 0);
    }
    atomic_store(&stop, true);
    REQUIRE(pthread_join(hand, NULL) == 0);
    for (int i = 0; i < HANDED; i++)
        pa_free(handed[i]);
    heap_must_be_empty();
    REQUIRE(atomic_load(&hollow_seen) > 0, "no page ever went");
    REQUIRE(atomic_load(&pa_the_heap.hollow_bytes) == 0);
    printf("hollow: %" PRIu64 " KiB at most\n", atomic_load(&hollow_seen) / 1024);
    return 0;
}
