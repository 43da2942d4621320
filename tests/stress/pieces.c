/* pieces.c - a thread's empty spans, cut and joined where they lie (heap/pieces.h, heap/bins.h).
 *
 *     pieces [operations] [threads] [seed]
 *
 * First by hand, one thread: neighbours that it freed serve a larger block, a large one several smaller, and none of it
 * takes the page heap's lock.  Then sizes of 64 KiB to 1 MiB at random, contents checked, in several threads, some
 * blocks freed by another; and how often one thread alone needs that lock, which is a figure of the design.
 */
#include "base/options.h"
#include "stress.h"

enum { PARTS = 8, PART_BYTES = 128 * 1024, LIVE = 2, MOST_THREADS = 16, WARM_UP = 2000, LEAST = 64 * 1024,
       MOST = 1024 * 1024 };

static uint64_t lock_taken(void)
{
    return pa_racy_load(&pa_the_heap.lock.acquisitions);
}

/* ---- By hand ---- */

static void cut_and_joined(void)
{
    unsigned char *part[PARTS], *whole;
    for (int i = 0; i < PARTS; i++)
        REQUIRE((part[i] = pa_malloc(PART_BYTES)) != NULL);
    for (int i = 1; i < PARTS; i++)
        REQUIRE(part[i] == part[i - 1] + PART_BYTES, "fresh blocks lie in a row");
    for (int i = PARTS; i-- > 0;)
        pa_free(part[(i * 3) % PARTS]); /* any order */
    uint64_t spans = stats_now().spans_allocated, before = lock_taken();
    REQUIRE((whole = pa_malloc(PARTS * PART_BYTES)) == part[0]);
    REQUIRE(lock_taken() == before, "%" PRIu64 " times", lock_taken() - before);
    REQUIRE(pa_usable_size(whole) == PARTS * PART_BYTES);
    pattern_fill(whole, PARTS * PART_BYTES, 1);
    heap_must_be_whole();
    pattern_verify(whole, PARTS * PART_BYTES, PARTS * PART_BYTES, 1);
    pa_free(whole);
    for (int i = 0; i < PARTS; i++) {
        REQUIRE((part[i] = pa_malloc(PART_BYTES)) == whole + (size_t)i * PART_BYTES);
        pattern_fill(part[i], PART_BYTES, (uint32_t)i);
    }
    heap_must_be_whole();
    for (int i = 0; i < PARTS; i++) {
        pattern_verify(part[i], PART_BYTES, PART_BYTES, (uint32_t)i);
        pa_free(part[i]);
    }
    pa_mem_stats s = stats_now();
    REQUIRE(s.spans_allocated == spans + PARTS - 1, "each cut is a span, %" PRIu64, s.spans_allocated - spans);
    before = lock_taken();
    pa_free(pa_malloc(PARTS * PART_BYTES));
    pa_free(pa_malloc(PART_BYTES));
    pa_free(pa_malloc(3 * PART_BYTES));
    REQUIRE(lock_taken() == before, "%" PRIu64 " times", lock_taken() - before);
    heap_must_be_empty();
}

/* A class's run comes from a large block's pages, too. */
static void small_runs_from_large(void)
{
    pa_free(pa_malloc(PARTS * PART_BYTES));
    uint64_t before = lock_taken();
    void *p[200];
    for (int i = 0; i < 200; i++)
        REQUIRE((p[i] = pa_malloc(3000)) != NULL);
    REQUIRE(lock_taken() - before <= 1, "%" PRIu64, lock_taken() - before); /* one, for headers */
    for (int i = 0; i < 200; i++)
        pa_free(p[i]);
    heap_must_be_empty();
}

/* ---- At random ---- */

typedef struct job {
    pthread_t id;
    uint64_t seed;
    long operations;
} job;

typedef struct large {
    unsigned char *p;
    size_t nbytes;
} large;

static job jobs[MOST_THREADS];
static _Atomic(unsigned char *) handed; /* its length is in its first word */

static void fill(large *b, uint64_t *seed)
{
    b->nbytes = LEAST + random_below(seed, MOST - LEAST + 1);
    REQUIRE((b->p = pa_malloc(b->nbytes)) != NULL);
    pattern_fill(b->p, b->nbytes, (uint32_t)b->nbytes);
}

static void drop(large *b)
{
    if (b->p)
        pattern_verify(b->p, b->nbytes, b->nbytes, (uint32_t)b->nbytes);
    pa_free(b->p);
    *b = (large){0};
}

static void hand_over(large *b)
{
    memcpy(b->p, &b->nbytes, sizeof b->nbytes);
    unsigned char *other = atomic_exchange(&handed, b->p);
    *b = (large){0};
    if (other) {
        size_t nbytes;
        memcpy(&nbytes, other, sizeof nbytes);
        REQUIRE(nbytes >= LEAST && nbytes <= MOST && pa_usable_size(other) >= nbytes);
        pa_free(other);
    }
}

static void *churn(void *argument)
{
    job *j = argument;
    large blocks[LIVE] = {{0}};
    void *small[64] = {0};
    for (long i = 0; i < j->operations; i++) {
        large *b = &blocks[i % LIVE];
        drop(b);
        fill(b, &j->seed);
        void **s = &small[random_below(&j->seed, 64)];
        pa_free(*s);
        REQUIRE((*s = pa_malloc(random_below(&j->seed, 20000))) != NULL);
        if (i % 50 == 49)
            hand_over(b);
    }
    for (int i = 0; i < LIVE; i++)
        drop(&blocks[i]);
    for (int i = 0; i < 64; i++)
        pa_free(small[i]);
    return NULL;
}

/* The lock's price of this working set, once it is warm. */
static void one_thread_seldom_needs_the_heap(long operations, uint64_t seed)
{
    int64_t decay_ms = pa_the_options.decay_ms;
    large blocks[LIVE] = {{0}};
    uint64_t before = 0;
    pa_the_options.decay_ms = 0; /* looks depend on time */
    for (long i = 0; i < WARM_UP + operations; i++) {
        if (i == WARM_UP)
            before = lock_taken();
        drop(&blocks[i % LIVE]);
        fill(&blocks[i % LIVE], &seed);
    }
    uint64_t taken = lock_taken() - before;
    REQUIRE(taken * 200 <= (uint64_t)operations, "%" PRIu64 " of %ld operations took the lock", taken, operations);
    for (int i = 0; i < LIVE; i++)
        drop(&blocks[i]);
    pa_the_options.decay_ms = decay_ms;
    heap_must_be_empty();
}

int main(int argc, char **argv)
{
    long operations = argument(argc, argv, 1, 3000), count = argument(argc, argv, 2, 3);
    uint64_t seed = (uint64_t)argument(argc, argv, 3, 1);
    REQUIRE(count >= 1 && count <= MOST_THREADS);
    pa_free(pa_malloc(1));
    heap_must_be_empty();
    cut_and_joined();
    small_runs_from_large();
    one_thread_seldom_needs_the_heap(operations, seed);
    for (long i = 0; i < count; i++) {
        jobs[i] = (job){.seed = seed + (uint64_t)i, .operations = operations};
        REQUIRE(pthread_create(&jobs[i].id, NULL, churn, &jobs[i]) == 0);
    }
    for (long i = 0; i < count; i++)
        REQUIRE(pthread_join(jobs[i].id, NULL) == 0);
    pa_free(atomic_exchange(&handed, NULL));
    heap_must_be_empty();
    printf("pieces: %ld operations in %ld threads\n", operations, count);
    return 0;
}
