/* scavenge.c - the background thread against threads that allocate and free, and forks in between.
 *
 *     scavenge [rounds [threads [forks?]]]
 *
 * Meanwhile the method (MADV_FREE or not) and the memory limit change, and zeroed blocks must be zero.
 * Blocks of 40 KiB to 3 MiB come and go in phases, so that there is always something to give back; every block is
 * written and read.  Every so often the process forks: the child must find a whole heap, get a thread of
 * its own and see it work (0 as the third argument: no forks, since TSan allows no threads
 * in a child).  The decay interval is 1 ms.
 */
#include "stress.h"

#include <sys/wait.h>

#include "base/options.h"
#include "gc/scavenge.h"
#include "sys/clock.h"

enum { BLOCKS = 24, FORK_EVERY = 50, DEADLINE_S = 60 };

static long rounds, thread_count;

static void phase(uint64_t *seed)
{
    unsigned char *blocks[BLOCKS];
    size_t sizes[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) {
        sizes[i] = 40 * PA_KIB << random_next(seed) % 7;
        REQUIRE((blocks[i] = pa_malloc(sizes[i])) != NULL, "%zu bytes", sizes[i]);
        for (size_t k = 0; k < sizes[i]; k += 4096)
            blocks[i][k] = (unsigned char)i;
    }
    for (int i = 0; i < BLOCKS; i++) {
        for (size_t k = 0; k < sizes[i]; k += 4096)
            REQUIRE(blocks[i][k] == (unsigned char)i, "at %zu of %zu", k, sizes[i]);
        pa_free(blocks[i]);
    }
}

static void *work(void *argument)
{
    uint64_t seed = (uintptr_t)argument;
    for (long i = 0; i < rounds; i++)
        phase(&seed);
    return NULL;
}

/* Allocates and frees until the thread has looked a few times more. */
static void see_it_work(uint64_t *seed)
{
    uint64_t from = pa_scavenge_looks(), deadline_ns = pa_clock_now_ns() + DEADLINE_S * (uint64_t)1000000000;
    while (!pa_scavenge_is_running() || pa_scavenge_looks() < from + 3) {
        REQUIRE(pa_clock_now_ns() < deadline_ns, "the background thread does nothing");
        phase(seed);
    }
}

static void be_whole(void)
{
    char message[200];
    REQUIRE(pa_heap_check(message, sizeof message) == 0, "%s", message);
}

static void fork_once(uint64_t *seed)
{
    int status;
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        be_whole();
        REQUIRE(!pa_scavenge_is_running());
        phase(seed);
        see_it_work(seed);
        be_whole();
        _exit(0);
    }
    REQUIRE(waitpid(child, &status, 0) == child && status == 0, "status %x", status);
}

/* Every round another way to give pages back, and now and then a limit that is too low, or none. */
static void change_mind(long i)
{
    static const int64_t limits[] = {INT64_MAX, 40 * PA_MIB, INT64_MAX, 10 * PA_MIB};
    pa_set_madvdontneed(i % 3 == 0);
    if (i % 8 == 0)
        pa_set_memory_limit(limits[i / 8 % 4]);
    if (i % 16 == 5)
        pa_free_os_memory();
    pa_scavenge_stats stats;
    pa_read_scavenge_stats(&stats);
    uint64_t released = stats.background_bytes + stats.tick_bytes + stats.limit_bytes + stats.asked_bytes;
    REQUIRE(stats.lazy_bytes <= released);
    unsigned char *zeroed = pa_calloc(1, 2 * PA_MIB);
    REQUIRE(zeroed != NULL);
    for (size_t k = 0; k < 2 * PA_MIB; k += 512)
        REQUIRE(zeroed[k] == 0, "at %zu in round %ld", k, i);
    memset(zeroed, 0xEE, 2 * PA_MIB);
    pa_free(zeroed);
}

int main(int argc, char **argv)
{
    pthread_t ids[64];
    uint64_t seed = 5;
    rounds = argument(argc, argv, 1, 100);
    thread_count = argument(argc, argv, 2, 2);
    bool forks = argument(argc, argv, 3, 1);
    pa_the_options.decay_ms = 1;
    pa_scavenge_enable();
    for (long i = 0; i < thread_count; i++)
        REQUIRE(pthread_create(&ids[i], NULL, work, (void *)(uintptr_t)(i + 1)) == 0);
    for (long i = 0; i < rounds; i++) {
        phase(&seed);
        change_mind(i);
        if (forks && i % FORK_EVERY == 0)
            fork_once(&seed);
    }
    for (long i = 0; i < thread_count; i++)
        REQUIRE(pthread_join(ids[i], NULL) == 0);
    pa_set_memory_limit(INT64_MAX);
    see_it_work(&seed);
    be_whole();
    printf("scavenge: %" PRIu64 " looks\n", pa_scavenge_looks());
    return 0;
}
