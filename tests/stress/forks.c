/* forks.c - fork while other threads are in the middle of everything.
 *
 *     forks [forks] [threads] [seed]
 *
 * Worker threads churn: private blocks, blocks passed through shared slots, large ones, reallocs,
 * releases to the OS.
 * Main holds blocks of its own and forks again and again.  Every child checks that its heap is whole (all
 * invariants and no page lost), that the blocks of main kept their contents, frees them and those in the
 * slots, and
 * then finds that nothing is left but what the vanished threads held: their private blocks, at most
 * PRIVATE each, and
 * what they had in hand.  Their caches must have come back: no cached span, one thread, and memory for new blocks
 * without new arenas.  Some children fork again and some start a thread.  The parent goes on afterwards.
 */
#include "stress.h"

#include <sys/wait.h>

enum { PRIVATE = 50, IN_HAND = 4, SLOTS = 256, MINE = 300, MAX_THREADS = 16 };

static void *_Atomic slots[SLOTS];
static atomic_bool stop;
static atomic_long rounds;
static long threads;

static void *churn(void *argument)
{
    uint64_t random = (uintptr_t)argument;
    void *mine[PRIVATE] = {0};
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        size_t i = random_below(&random, PRIVATE);
        size_t nbytes = random_size(&random);
        switch (random_below(&random, 8)) {
        case 0: { /* large: the paths without a size class */
            void *p = pa_malloc(32 * PA_KIB + random_below(&random, PA_MIB));
            REQUIRE(p);
            if (random_below(&random, 4) == 0)
                p = pa_realloc(p, 40 * PA_KIB + random_below(&random, 6 * PA_MIB));
            pa_free(p);
            break;
        }
        case 1:
        case 2:
            pa_free(atomic_exchange_explicit(&slots[random_below(&random, SLOTS)], pa_malloc(nbytes),
                                             memory_order_acq_rel));
            break;
        case 3:
            pa_free(atomic_exchange_explicit(&slots[random_below(&random, SLOTS)], NULL, memory_order_acq_rel));
            break;
        case 4:
            mine[i] = pa_realloc(mine[i], nbytes + 1);
            REQUIRE(mine[i]);
            break;
        default:
            pa_free(mine[i]);
            mine[i] = pa_calloc(1, nbytes);
            REQUIRE(mine[i]);
        }
        if (random_below(&random, 5000) == 0)
            pa_free_os_memory();
        atomic_fetch_add_explicit(&rounds, 1, memory_order_relaxed);
    }
    for (size_t i = 0; i < PRIVATE; i++)
        pa_free(mine[i]);
    return NULL;
}

typedef struct block {
    unsigned char *p;
    size_t nbytes;
} block;

static block mine[MINE];

static void *allocate_and_free(void *argument)
{
    uint64_t random = (uintptr_t)argument;
    void *blocks[200];
    for (size_t i = 0; i < 200; i++) {
        size_t nbytes = random_size(&random);
        blocks[i] = pa_malloc(nbytes);
        REQUIRE(blocks[i]);
        pattern_fill(blocks[i], nbytes, (uint32_t)i);
    }
    for (size_t i = 0; i < 200; i++)
        pa_free(blocks[i]);
    return NULL;
}

static void child(long number)
{
    heap_must_be_whole();
    REQUIRE(stats_now().threads == 1, "%" PRIu64, stats_now().threads);
    allocate_and_free((void *)(uintptr_t)number);
    heap_must_be_whole();
    for (size_t i = 0; i < MINE; i++) {
        pattern_verify(mine[i].p, mine[i].nbytes, mine[i].nbytes, (uint32_t)i);
        pa_free(mine[i].p);
    }
    for (size_t i = 0; i < SLOTS; i++)
        pa_free(atomic_exchange(&slots[i], NULL));
    heap_must_be_whole();
    pa_free_os_memory();
    heap_must_be_whole();
    pa_mem_stats s = stats_now();
    REQUIRE(s.explicit_objects <= (uint64_t)threads * (PRIVATE + IN_HAND), "%" PRIu64 " objects",
            s.explicit_objects);
    REQUIRE(s.explicit_cached == 0, "%" PRIu64, s.explicit_cached);
    uint64_t arenas = s.arenas;
    allocate_and_free((void *)(uintptr_t)(number + 1));
    REQUIRE(stats_now().arenas == arenas);
    if (number % 16 == 0 && !STRESS_SANITIZED) { /* sanitizers lose their own threads over a fork */
        pthread_t id;
        REQUIRE(pthread_create(&id, NULL, allocate_and_free, (void *)(uintptr_t)number) == 0);
        REQUIRE(pthread_join(id, NULL) == 0);
    }
    if (number % 16 == 1) {
        pid_t grandchild = fork();
        REQUIRE(grandchild >= 0);
        if (grandchild == 0) {
            heap_must_be_whole();
            allocate_and_free((void *)(uintptr_t)number);
            _exit(0);
        }
        int status;
        REQUIRE(waitpid(grandchild, &status, 0) == grandchild && status == 0, "%d", status);
    }
    heap_must_be_whole();
    _exit(0);
}

int main(int argc, char **argv)
{
    long forks = argument(argc, argv, 1, 300);
    threads = argument(argc, argv, 2, 3);
    uint64_t random = (uint64_t)argument(argc, argv, 3, 1);
    pthread_t ids[MAX_THREADS];
    REQUIRE(threads >= 0 && threads <= MAX_THREADS);
    for (size_t i = 0; i < MINE; i++) {
        mine[i].nbytes = random_size(&random);
        mine[i].p = pa_malloc(mine[i].nbytes);
        REQUIRE(mine[i].p);
        pattern_fill(mine[i].p, mine[i].nbytes, (uint32_t)i);
    }
    for (long i = 0; i < threads; i++)
        REQUIRE(pthread_create(&ids[i], NULL, churn, (void *)(uintptr_t)(random_next(&random) | 1)) == 0);
    for (long n = 0; n < forks; n++) {
        long before = atomic_load(&rounds); /* let the workers get somewhere else */
        while (threads && atomic_load(&rounds) < before + 200)
            pa_free(pa_malloc(random_size(&random)));
        pid_t pid = fork();
        REQUIRE(pid >= 0, "%s", strerror(errno));
        if (pid == 0)
            child(n);
        int status;
        REQUIRE(waitpid(pid, &status, 0) == pid);
        REQUIRE(status == 0, "fork %ld: child ended with %#x", n, (unsigned)status);
    }
    atomic_store(&stop, true);
    for (long i = 0; i < threads; i++)
        REQUIRE(pthread_join(ids[i], NULL) == 0);
    for (size_t i = 0; i < MINE; i++) {
        pattern_verify(mine[i].p, mine[i].nbytes, mine[i].nbytes, (uint32_t)i);
        pa_free(mine[i].p);
    }
    for (size_t i = 0; i < SLOTS; i++)
        pa_free(atomic_exchange(&slots[i], NULL));
    heap_must_be_empty();
    printf("forks: %ld forks over %ld rounds of %ld threads\n", forks, atomic_load(&rounds), threads);
    return 0;
}
