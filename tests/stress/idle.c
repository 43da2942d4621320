/* idle.c - flushing sleeping threads (heap/idle.h): what goes back, and flushers against owners that are awake.
 *
 *     idle [rounds [threads [forks?]]]
 *
 * First, threads keep all that a thread can keep and fall asleep: bins, page stock, outbox, spans that others
 * emptied.  One flush must leave next to nothing of it in use, and the sleepers must find a whole heap when they
 * wake.  The same by looks of another thread's slow paths.  Then threads that allocate, free and hand blocks on,
 * against threads that flush them all the time; every block's bytes are checked.  Forks in between: the child
 * flushes, too.  At the end nothing is in use.
 */
#include "stress.h"

#include <sys/wait.h>

#include "base/options.h"
#include "sys/clock.h"

enum { SLEEPERS = 6, SMALL = 40000, SMALL_BYTES = 48, LARGE = 12, LARGE_BYTES = 200 * 1024, FOREIGN = 500 };

/* ---- Sleepers ---- */

typedef struct sleeper {
    pthread_t id;
    sem_t go, slept;
    void *small[SMALL], *foreign[FOREIGN];
} sleeper;

static sleeper sleepers[SLEEPERS];

static void wait_for(sem_t *s)
{
    while (sem_wait(s) != 0) {
    }
}

static void fill_and_free(void)
{
    void *large[LARGE];
    for (int i = 0; i < LARGE; i++)
        pattern_fill(large[i] = pa_malloc(LARGE_BYTES), LARGE_BYTES, (uint32_t)i);
    for (int i = 0; i < LARGE; i++) {
        pattern_verify(large[i], LARGE_BYTES, LARGE_BYTES, (uint32_t)i);
        pa_free(large[i]);
    }
}

/* Keeps: large spans in bins, a stock, foreign blocks in the outbox, spans with every other block free. */
static void *sleep_twice(void *argument)
{
    sleeper *s = argument;
    for (int round = 0; round < 2; round++) {
        fill_and_free();
        for (int i = 0; i < SMALL; i++)
            memset(s->small[i] = pa_malloc(SMALL_BYTES), round + 1, SMALL_BYTES);
        for (int i = 0; i < SMALL; i += 2)
            pa_free(s->small[i]);
        for (int i = 0; i < FOREIGN; i++)
            pa_free(s->foreign[i]);
        sem_post(&s->slept);
        wait_for(&s->go);
    }
    return NULL;
}

/* The main thread frees the other half; the spans stay with their sleeping owners. */
static void let_all_sleep(void)
{
    for (int t = 0; t < SLEEPERS; t++) {
        wait_for(&sleepers[t].slept);
        for (int i = 1; i < SMALL; i += 2)
            pa_free(sleepers[t].small[i]); /* the last of them wait in our outbox */
    }
}

static void make_foreign_blocks(void)
{
    for (int t = 0; t < SLEEPERS; t++)
        for (int i = 0; i < FOREIGN; i++)
            REQUIRE((sleepers[t].foreign[i] = pa_malloc(SMALL_BYTES)) != NULL);
}

static uint64_t inuse_bytes(void)
{
    return atomic_load(&pa_the_heap.inuse_pages) << PA_PAGE_SHIFT;
}

/* A current span or two a thread may stay; a bin of large spans is 2 MiB, the small spans another 2. */
static const uint64_t left_bytes = (SLEEPERS + 2) * 400 * 1024;

static void require_flushed(void)
{
    REQUIRE(inuse_bytes() <= left_bytes, "%" PRIu64 " KiB in use", inuse_bytes() / 1024);
    for (pa_mcache *c = atomic_load(&pa_the_heap.mcaches); c; c = c->next_cache) {
        if (c == pa_current_mcache)
            continue;
        REQUIRE(c->stock.cache.free == 0 && c->outbox_count == 0 && c->bin_room_pages == c->bin_cap_pages,
                "closed %u, outbox %u, bins %d of %d", c->closed, c->outbox_count, c->bin_room_pages, c->bin_cap_pages);
    }
    heap_must_be_whole();
}

static void look_until_flushed(void)
{
    pa_the_options.decay_ms = 1;
    atomic_store(&pa_the_heap.decay.next_ns, 0);
    atomic_store(&pa_the_heap.idle.next_ns, 0);
    uint64_t deadline_ns = pa_clock_now_ns() + 60 * (uint64_t)1000000000;
    while (inuse_bytes() > left_bytes) {
        REQUIRE(pa_clock_now_ns() < deadline_ns, "ticks do not flush: %" PRIu64 " KiB", inuse_bytes() / 1024);
        void *p = pa_malloc(9 * PA_MIB); /* a slow path */
        REQUIRE(p);
        pa_free(p);
    }
    pa_mcache_release_to_os(pa_current_mcache); /* ours: what the looks freed into mcentral and our bins */
}

static void sleepers_are_flushed(void)
{
    pa_the_options.decay_ms = 1000 * 1000; /* no looks for now */
    make_foreign_blocks();
    for (int t = 0; t < SLEEPERS; t++) {
        REQUIRE(sem_init(&sleepers[t].go, 0, 0) == 0 && sem_init(&sleepers[t].slept, 0, 0) == 0);
        REQUIRE(pthread_create(&sleepers[t].id, NULL, sleep_twice, &sleepers[t]) == 0);
    }
    let_all_sleep();
    REQUIRE(inuse_bytes() > 2 * left_bytes, "nothing is kept: %" PRIu64 " KiB", inuse_bytes() / 1024);
    pa_free_os_memory();
    require_flushed();
    make_foreign_blocks();
    for (int t = 0; t < SLEEPERS; t++)
        sem_post(&sleepers[t].go);
    let_all_sleep();
    REQUIRE(inuse_bytes() > 2 * left_bytes, "nothing is kept: %" PRIu64 " KiB", inuse_bytes() / 1024);
    look_until_flushed();
    require_flushed();
    for (int t = 0; t < SLEEPERS; t++) {
        sem_post(&sleepers[t].go);
        REQUIRE(pthread_join(sleepers[t].id, NULL) == 0);
    }
    heap_must_be_empty();
}

/* ---- Flushers against owners ---- */

enum { SLOTS = 64, MAX_THREADS = 16 };

typedef struct block {
    unsigned char *p;
    size_t nbytes;
} block;

static _Atomic(void *) handed[256]; /* blocks on their way to whoever frees them; the size is their first word */
static _Atomic bool stop;
static long rounds;

static void *owner(void *argument)
{
    uint64_t seed = (uintptr_t)argument;
    block mine[SLOTS] = {{0}};
    for (long i = 0; i < rounds; i++) {
        block *b = &mine[random_below(&seed, SLOTS)];
        if (b->p) {
            pattern_verify(b->p + 8, b->nbytes - 8, b->nbytes - 8, (uint32_t)b->nbytes);
            void *old = random_below(&seed, 2) ? atomic_exchange(&handed[random_below(&seed, 256)], b->p) : b->p;
            pa_free(old);
        }
        b->nbytes = random_size(&seed) + 8;
        REQUIRE((b->p = pa_malloc(b->nbytes)) != NULL);
        *(size_t *)b->p = b->nbytes;
        pattern_fill(b->p + 8, b->nbytes - 8, (uint32_t)b->nbytes);
    }
    for (int i = 0; i < SLOTS; i++)
        pa_free(mine[i].p);
    return NULL;
}

static void *flusher(void *argument)
{
    uint64_t now_ns = 1, turn = 0;
    while (!atomic_load(&stop)) {
        if (++turn % 64 == 0)
            pa_free_os_memory();
        else if (argument)
            pa_idle_flush_all(&pa_the_heap, NULL);
        else
            pa_idle_look(&pa_the_heap, NULL, now_ns += PA_GIB * 8); /* always due, for now_ns is made up */
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
        pa_idle_flush_all(&pa_the_heap, NULL);
        heap_must_be_whole();
        for (int i = 0; i < 200; i++)
            pa_free(memset(pa_malloc((size_t)i * 700), i, (size_t)i * 700));
        REQUIRE(pa_free_os_memory() > 0);
        heap_must_be_whole();
        _exit(0);
    }
    REQUIRE(waitpid(child, &status, 0) == child && status == 0, "status %x", status);
}

int main(int argc, char **argv)
{
    pthread_t owners[MAX_THREADS], flushers[2];
    rounds = argument(argc, argv, 1, 20000);
    long threads = argument(argc, argv, 2, 3), forks = argument(argc, argv, 3, 1);
    REQUIRE(threads <= MAX_THREADS);
    sleepers_are_flushed();
    for (uintptr_t i = 0; i < 2; i++)
        REQUIRE(pthread_create(&flushers[i], NULL, flusher, (void *)i) == 0);
    for (int turn = 0; turn < 3; turn++) {
        for (long i = 0; i < threads; i++)
            REQUIRE(pthread_create(&owners[i], NULL, owner, (void *)(uintptr_t)(turn * 100 + i + 1)) == 0);
        if (forks)
            fork_once();
        for (long i = 0; i < threads; i++)
            REQUIRE(pthread_join(owners[i], NULL) == 0);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++)
        REQUIRE(pthread_join(flushers[i], NULL) == 0);
    for (int i = 0; i < 256; i++)
        pa_free(handed[i]);
    heap_must_be_empty();
    printf("idle: %" PRIu64 " flushes\n", atomic_load(&pa_the_heap.idle.flushes));
    return 0;
}
