/* profile.c - managed objects in the heap profile: counted by windows, and seen to die by the sweeper.
 *
 *     profile sums [mode=0..4]                     estimates are unbiased, tiny, small and large; what dies is not live
 *     profile storm [seconds=1] [threads=3]        threads allocate while cycles run and profiles start and stop
 */
#include "gc_test.h"

#include "heap/profile.h"

enum { SITES_MAX = 1 << 16, KEPT = 256, DRAWS = 60, OBJECTS = 3000 };

static pa_profile_site sites[SITES_MAX];
static atomic_bool stop_working;

static uint64_t sum_of(bool live)
{
    uint64_t sum = 0;
    size_t n = pa_profile_copy_sites(sites, SITES_MAX);
    for (size_t i = 0; i < n; i++)
        sum += sites[i].alloc_bytes - (live ? sites[i].free_bytes : 0);
    return sum;
}

static pa_profile_stats profile_now(void)
{
    pa_profile_stats s;
    pa_read_profile_stats(&s);
    return s;
}

static void *make(size_t i, size_t nbytes)
{
    switch (i % 3) {
    case 0: return must(pa_new_bytes(nbytes));
    case 1: return must(pa_new_pointers((nbytes + 7) / 8));
    default: return must(pa_new_conservative(nbytes));
    }
}

/* Three times the objects are allocated, the last third with every second one held. */
static void sums_of(size_t nbytes, size_t rate, size_t count)
{
    double mean = 0, truth = 0, live = 0, live_truth = 0;
    void **held = must(pa_malloc(count * sizeof *held));
    for (uint64_t seed = 1; seed <= DRAWS; seed++) {
        REQUIRE(pa_profile_start(rate, seed * 31) == 0);
        truth = live_truth = 0;
        memset(held, 0, count * sizeof *held);
        pa_frame frame;
        enter();
        pa_frame_push(&frame, held, count);
        for (size_t i = 0; i < 3 * count; i++) {
            void *p = make(i, nbytes);
            truth += (double)pa_object_bytes(p);
            if (i >= 2 * count && i % 2) {
                held[i - 2 * count] = p;
                live_truth += (double)pa_object_bytes(p);
            }
        }
        pa_leave();
        pa_gc();
        pa_gc();
        mean += (double)sum_of(false) / DRAWS;
        live += (double)sum_of(true) / DRAWS;
        enter();
        pa_frame_pop(&frame);
        pa_leave();
        pa_gc();
        pa_gc();
        REQUIRE(sum_of(true) == 0 && profile_now().live == 0, "%" PRIu64 " live after all died", profile_now().live);
        REQUIRE(pa_profile_stop() && profile_now().lost == 0);
    }
    double size = truth / (3 * (double)count);
    double weight = (double)pa_poisson_weight((uint64_t)size, rate) / PA_WEIGHT_ONE;
    double error = truth * size * (weight - 1) / DRAWS, live_error = live_truth * size * (weight - 1) / DRAWS;
    REQUIRE((mean - truth) * (mean - truth) <= 16 * error + 1, "%zu bytes: mean %.0f, truth %.0f, error %.3g squared",
            nbytes, mean, truth, error);
    REQUIRE((live - live_truth) * (live - live_truth) <= 16 * live_error + 1,
            "%zu bytes: live %.0f, truth %.0f, error %.3g squared", nbytes, live, live_truth, live_error);
    pa_free(held);
}

static void *work(void *argument)
{
    uint64_t random = (uintptr_t)argument + 1;
    void *slots[KEPT] = {NULL};
    pa_frame frame;
    enter();
    pa_frame_push(&frame, slots, KEPT);
    while (!atomic_load_explicit(&stop_working, memory_order_relaxed)) {
        size_t nbytes = random_below(&random, 20) ? 8 + random_below(&random, 400) : 8 + random_below(&random, 90000);
        store_plainly(&slots[random_below(&random, KEPT)], make(random_next(&random), nbytes));
        if (random_below(&random, 1000) == 0) {
            pa_leave();
            pa_free(must(pa_malloc(5000)));
            enter();
        }
    }
    pa_frame_pop(&frame);
    pa_leave();
    return NULL;
}

static void *collect(void *unused)
{
    while (!atomic_load_explicit(&stop_working, memory_order_relaxed))
        pa_gc();
    return unused;
}

static void storm(double seconds, long threads)
{
    static const size_t rates[] = {1, 500, 10000, 512 * 1024};
    pthread_t ids[16], collector = start(collect, NULL);
    REQUIRE(threads > 0 && threads <= 16);
    for (long i = 0; i < threads; i++)
        ids[i] = start(work, (void *)(uintptr_t)(i * 1000));
    double end = seconds_now() + seconds;
    for (size_t i = 0; seconds_now() < end; i++) {
        REQUIRE(pa_profile_start(rates[i % 4], 0) == 0);
        for (double until = seconds_now() + 0.01; seconds_now() < until;)
            sched_yield();
        REQUIRE(pa_profile_stop());
        if (i % 2)
            pa_profile_discard();
    }
    atomic_store(&stop_working, true);
    for (long i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    pthread_join(collector, NULL);
    pa_gc();
    pa_gc();
    char broken[200];
    REQUIRE(pa_heap_check(broken, sizeof broken) == 0, "%s", broken);
    REQUIRE(profile_now().live == 0, "%" PRIu64 " sampled objects are left", profile_now().live);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "sums") == 0) {
        set_mode((int)option(argc, argv, "mode", PA_GC_CONCURRENT));
        sums_of(16, 256, OBJECTS);
        sums_of(100, 1000, OBJECTS);
        sums_of(2000, 10000, OBJECTS / 10);
        sums_of(50000, 200000, OBJECTS / 40);
    } else if (strcmp(what, "storm") == 0) {
        storm((double)option(argc, argv, "seconds", 1), option(argc, argv, "threads", 3));
    } else {
        REQUIRE(false, "sums or storm");
    }
    printf("%s ok\n", what);
    return 0;
}
