/* storm.c - thousands of short threads: what an exiting thread held must come back.
 *
 *     storm [threads] [at once] [seed]
 *
 * Each thread allocates blocks of all kinds, frees half of them and exits; main frees the other half,
 * some before and
 * some after the owner's exit.  After a tenth of the threads all figures must have reached their final value:
 * heap_sys to the byte, mcache_sys to what runs at once, RSS within 2 MiB - 200 bytes a thread - (plain builds;
 * sanitizers keep books of their own).
 */
#include "stress.h"

enum { BLOCKS = 40, MAX_AT_ONCE = 16 };

typedef struct visitor {
    pthread_t id;
    uint64_t random;
    void *_Atomic left[BLOCKS];
} visitor;

static void *visit(void *argument)
{
    visitor *v = argument;
    void *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) {
        size_t nbytes = random_size(&v->random);
        blocks[i] = pa_malloc(nbytes);
        REQUIRE(blocks[i]);
        memset(blocks[i], 0x5a, nbytes < 64 ? nbytes : 64);
    }
    for (int i = 0; i < BLOCKS; i++) {
        if (i % 2)
            pa_free(blocks[i]);
        else
            atomic_store_explicit(&v->left[i], blocks[i], memory_order_release);
    }
    return NULL;
}

static void free_left(visitor *v)
{
    for (int i = 0; i < BLOCKS; i++)
        pa_free(atomic_exchange_explicit(&v->left[i], NULL, memory_order_acq_rel));
}

static visitor visitors[MAX_AT_ONCE];

static void storm(long from, long to, long at_once, uint64_t seed)
{
    for (long n = from; n < to; n += at_once) {
        for (long i = 0; i < at_once; i++) {
            visitors[i].random =
                seed + (uint64_t)(n + i) % 97; /* the same mix again and again: no growth by chance */
            REQUIRE(pthread_create(&visitors[i].id, NULL, visit, &visitors[i]) == 0);
        }
        for (long i = 0; i < at_once; i += 2)
            free_left(&visitors[i]); /* whatever is there by now: the owner may be running */
        for (long i = 0; i < at_once; i++) {
            REQUIRE(pthread_join(visitors[i].id, NULL) == 0);
            free_left(&visitors[i]);
        }
    }
}

int main(int argc, char **argv)
{
    long total = argument(argc, argv, 1, 10000), at_once = argument(argc, argv, 2, 8);
    uint64_t seed = (uint64_t)argument(argc, argv, 3, 1);
    REQUIRE(at_once >= 1 && at_once <= MAX_AT_ONCE && total >= 10 * at_once);
    storm(0, total / 10, at_once, seed);
    heap_must_be_whole();
    pa_mem_stats early = stats_now();
    size_t early_rss = rss_bytes();
    storm(total / 10, total, at_once, seed);
    heap_must_be_whole();
    pa_mem_stats late = stats_now();
    size_t late_rss = rss_bytes();
    REQUIRE(late.heap_sys == early.heap_sys, "%" PRIu64 " %" PRIu64, early.heap_sys, late.heap_sys);
    REQUIRE(late.mcache_sys <= (uint64_t)(at_once + 2) * sizeof(pa_proc), "%" PRIu64, late.mcache_sys);
    REQUIRE(late.threads == 1, "%" PRIu64, late.threads);
    if (!STRESS_SANITIZED)
        REQUIRE(late_rss <= early_rss + 2 * PA_MIB, "%zu -> %zu", early_rss, late_rss);
    heap_must_be_empty();
    printf("storm: %ld threads, heap_sys %" PRIu64 " MiB, mcache_sys %" PRIu64 ", RSS %zu -> %zu KiB\n", total,
           late.heap_sys / PA_MIB, late.mcache_sys, early_rss / 1024, late_rss / 1024);
    return 0;
}
