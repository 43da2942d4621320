/* onesided.c - threads that only allocate and threads that only free.
 *
 *     onesided [rounds] [seed]
 *
 * A thread that never allocates comes to no refill, so whatever is collected "at the next slow path" must
 * be collected
 * in its frees.  Two arrangements, each in bounded memory however long it runs:
 *   pipeline   the producer allocates, the consumer frees everything, and keeps next to nothing of it;
 *   split      of each span's blocks the consumer frees one, which makes it the span's owner, and then
 * the producer frees
 *              the others, which go home to a thread that never looks.
 * The hand-over is a ring of semaphores: both run at once, neither waits for luck.
 */
#include "stress.h"

enum { BATCH = 256, RING = 4, MOST_BYTES = 48 << 20 };

typedef struct batch {
    void *blocks[BATCH];
    size_t nbytes[BATCH];
} batch;

static batch ring[RING];
static sem_t full, empty;
static long rounds;
static uint64_t seed;
static size_t split_bytes; /* 0: pipeline */

static void wait_for(sem_t *s)
{
    while (sem_wait(s) != 0) {
    }
}

static void *produce(void *unused)
{
    uint64_t random = seed;
    for (long n = 0; n < rounds; n++) {
        wait_for(&empty);
        batch *b = &ring[n % RING];
        for (size_t i = 0; i < BATCH; i++) {
            b->nbytes[i] = split_bytes ? split_bytes : random_size(&random);
            b->blocks[i] = pa_malloc(b->nbytes[i]);
            REQUIRE(b->blocks[i]);
            pattern_fill(b->blocks[i], b->nbytes[i], (uint32_t)i);
        }
        sem_post(&full);
    }
    return unused;
}

static uint64_t most_inuse; /* of the consumer's samples */

/* This thread never asked for a span, so it need not keep any. */
static void require_little_kept(void)
{
    const pa_mcache *c = pa_current_mcache;
    int32_t kept = pa_mcache_is_real(c) ? c->bin_cap_pages - c->bin_room_pages : 0;
    REQUIRE(kept <= PA_BIN_CAP_UNASKED_PAGES, "%d pages in the bins", kept);
}

static void *consume(void *unused)
{
    for (long n = 0; n < rounds; n++) {
        wait_for(&full);
        batch *b = &ring[n % RING];
        for (size_t i = 0; i < BATCH; i++) {
            pattern_verify(b->blocks[i], b->nbytes[i], b->nbytes[i], (uint32_t)i);
            pa_free(b->blocks[i]);
        }
        sem_post(&empty);
        require_little_kept();
        if (n % 64 == 0) {
            uint64_t inuse = stats_now().heap_inuse;
            most_inuse = inuse > most_inuse ? inuse : most_inuse;
        }
    }
    return unused;
}

static void pipeline(void)
{
    pthread_t ids[2];
    split_bytes = 0;
    REQUIRE(pthread_create(&ids[0], NULL, produce, NULL) == 0 && pthread_create(&ids[1], NULL, consume, NULL) == 0);
    REQUIRE(pthread_join(ids[0], NULL) == 0 && pthread_join(ids[1], NULL) == 0);
}

static void *free_one_of_each_span(void *unused)
{
    for (long n = 0; n < rounds; n++) {
        wait_for(&full);
        batch *b = &ring[n % RING];
        pa_span *before = NULL;
        for (size_t i = 0; i < BATCH; i++) {
            pa_span *s = pa_span_of(b->blocks[i]);
            if (s != before) {
                pa_free(b->blocks[i]);
                b->blocks[i] = NULL;
            }
            before = s;
        }
        sem_post(&empty);
    }
    return unused;
}

static void *allocate_and_free_the_others(void *unused)
{
    for (long n = 0; n < rounds + RING; n++) {
        wait_for(&empty);
        batch *b = &ring[n % RING];
        for (size_t i = 0; i < BATCH; i++) {
            pa_free(b->blocks[i]); /* what the consumer left of the last time */
            b->blocks[i] = n < rounds ? pa_malloc(split_bytes) : NULL;
            REQUIRE(b->blocks[i] || n >= rounds);
        }
        if (n % 16 == 0) {
            uint64_t inuse = stats_now().heap_inuse;
            most_inuse = inuse > most_inuse ? inuse : most_inuse;
        }
        if (n < rounds)
            sem_post(&full);
    }
    return unused;
}

static void split(size_t nbytes)
{
    pthread_t ids[2];
    split_bytes = nbytes;
    memset(ring, 0, sizeof ring);
    REQUIRE(pthread_create(&ids[0], NULL, allocate_and_free_the_others, NULL) == 0);
    REQUIRE(pthread_create(&ids[1], NULL, free_one_of_each_span, NULL) == 0);
    REQUIRE(pthread_join(ids[0], NULL) == 0 && pthread_join(ids[1], NULL) == 0);
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {4096, 2048, 512};
    rounds = argument(argc, argv, 1, 300);
    seed = (uint64_t)argument(argc, argv, 2, 1);
    for (size_t i = 0; i <= sizeof sizes / sizeof *sizes; i++) {
        REQUIRE(sem_init(&full, 0, 0) == 0 && sem_init(&empty, 0, RING) == 0);
        most_inuse = 0;
        if (i == 0)
            pipeline();
        else
            split(sizes[i - 1]);
        REQUIRE(most_inuse > 0 && most_inuse <= MOST_BYTES,
                "arrangement %zu: %" PRIu64 " bytes in spans", i, most_inuse);
        heap_must_be_empty();
    }
    printf("onesided: %ld rounds\n", rounds);
    return 0;
}
