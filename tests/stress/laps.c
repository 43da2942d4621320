/* laps.c - looks at sleepers (heap/idle.h) that need many to come round, by a clock of their own.
 *
 *     laps
 *
 * Spans that an exited thread left and others emptied go back by looks alone.  Sleepers with more to look at than one
 * look may: what lies behind it is reached all the same, in turn, and looks come to an end.  Nothing is called in
 * between but looks, so whatever goes back went back by them.
 */
#include "stress.h"

#include "base/options.h"

enum { SMALL_BYTES = 16, SMALL = 400 * 1000, LARGE_BYTES = 1024, LARGE = 500, SLEEPERS = 2, MOST_LOOKS = 40 };
enum { LEFT_BYTES = 64, LEFT = 300 * 1000, KEEP_EVERY = 1000 };
#define INTERVAL_MS ((uint64_t)1000 * 1000)

typedef struct sleeper {
    pthread_t id;
    sem_t asleep, go;
    void *small[SMALL], *large[LARGE];
} sleeper;

static sleeper sleepers[SLEEPERS];
static void *left[LEFT];

static void wait_for(sem_t *s)
{
    while (sem_wait(s) != 0) {
    }
}

static bool look(void)
{
    static uint64_t now_ns = (uint64_t)1 << 62; /* later than any look by the real clock */
    return pa_idle_look(&pa_the_heap, NULL, now_ns += 2 * INTERVAL_MS * 1000000); /* always due */
}

static uint64_t inuse_bytes(void)
{
    return atomic_load(&pa_the_heap.inuse_pages) << PA_PAGE_SHIFT;
}

static void *leave_spans(void *unused)
{
    for (int i = 0; i < LEFT; i++)
        REQUIRE((left[i] = pa_malloc(LEFT_BYTES)) != NULL);
    for (int i = 0; i < LEFT; i += 2)
        pa_free(left[i]);
    return unused;
}

/* together: it is kept for other threads first (heap/leavings.h), and listed by the second look. */
static void what_exited_threads_left_goes_back(bool together)
{
    pthread_t id;
    pa_the_heap.leavings.refused = !together;
    REQUIRE(pthread_create(&id, NULL, leave_spans, NULL) == 0 && pthread_join(id, NULL) == 0);
    for (int i = 1; i < LEFT; i += 2)
        pa_free(left[i]);
    REQUIRE((pa_the_heap.leavings.count > 0) == together);
    REQUIRE((atomic_load(&pa_the_heap.listed_explicit) > 0) != together);
    REQUIRE(inuse_bytes() > LEFT * LEFT_BYTES / 2);
    for (int looks = 0; !look(); looks++)
        REQUIRE(looks < MOST_LOOKS);
    REQUIRE(atomic_load(&pa_the_heap.listed_explicit) == 0 && pa_the_heap.leavings.count == 0);
    REQUIRE(inuse_bytes() < PA_MIB, "%" PRIu64 " KiB in use", inuse_bytes() / 1024);
}

/* The first block of each thousand stays: its span is not given back, and is looked at again and again. */
static void *keep_much_and_sleep(void *argument)
{
    sleeper *s = argument;
    for (int i = 0; i < SMALL; i++)
        REQUIRE((s->small[i] = pa_malloc(SMALL_BYTES)) != NULL);
    for (int i = 0; i < LARGE; i++)
        REQUIRE((s->large[i] = pa_malloc(LARGE_BYTES)) != NULL);
    for (int i = 1; i < SMALL; i += 4) /* makes it the owner of the spans that it had filled */
        pa_free(s->small[i]);
    for (int i = 1; i < LARGE; i += 4)
        pa_free(s->large[i]);
    pa_mcache_flush_outbox(pa_current_mcache);
    sem_post(&s->asleep);
    wait_for(&s->go);
    for (int i = 0; i < SMALL; i += KEEP_EVERY)
        pa_free(s->small[i]);
    return NULL;
}

static void put_to_sleep(sleeper *s)
{
    REQUIRE(sem_init(&s->asleep, 0, 0) == 0 && sem_init(&s->go, 0, 0) == 0);
    REQUIRE(pthread_create(&s->id, NULL, keep_much_and_sleep, s) == 0);
    wait_for(&s->asleep);
    for (int i = 0; i < SMALL; i++)
        if (i % 4 != 1 && i % KEEP_EVERY != 0)
            pa_free(s->small[i]);
    for (int i = 0; i < LARGE; i++)
        if (i % 4 != 1)
            pa_free(s->large[i]);
}

static uint32_t partial_spans(const pa_mcache *c, size_t nbytes)
{
    uint32_t n = 0;
    for (pa_span *s = c->partial[pa_class_of_size(nbytes)].first; s; s = s->next)
        n++;
    return n;
}

static uint32_t partial_spans_of_all(size_t nbytes)
{
    uint32_t n = 0;
    for (pa_mcache *c = atomic_load(&pa_the_heap.mcaches); c; c = c->next_cache)
        n += c == pa_current_mcache ? 0 : partial_spans(c, nbytes);
    return n;
}

static void *keep_large_and_sleep(void *argument)
{
    sleeper *s = argument;
    for (int i = 0; i < LARGE; i++)
        REQUIRE((s->large[i] = pa_malloc(LARGE_BYTES)) != NULL);
    for (int i = 1; i < LARGE; i += 4)
        pa_free(s->large[i]);
    pa_mcache_flush_outbox(pa_current_mcache);
    sem_post(&s->asleep);
    wait_for(&s->go);
    return NULL;
}

/* A lap that stops half-way has passed by a thread that was awake: that it falls asleep before the lap's end does
 * not make it looked at. */
static void who_falls_asleep_behind_a_lap_is_not_forgotten(void)
{
    static sleeper late;
    REQUIRE(sem_init(&late.asleep, 0, 0) == 0 && sem_init(&late.go, 0, 0) == 0);
    REQUIRE(pthread_create(&late.id, NULL, keep_large_and_sleep, &late) == 0);
    wait_for(&late.asleep);
    pa_mcache *c = atomic_load(&pa_the_heap.mcaches); /* the newest, the first to be looked at */
    REQUIRE(partial_spans(c, LARGE_BYTES) >= 2);
    for (int i = 0; i < LARGE; i++)
        if (i % 4 != 1)
            pa_free(late.large[i]);
    pa_mcache_flush_outbox(pa_current_mcache); /* nothing is to be delivered */
    REQUIRE(!look() && atomic_load(&pa_the_heap.idle.lap) != 0 && c->closed == PA_CACHE_OPEN);
    for (int looks = 0; !look(); looks++)
        REQUIRE(looks < MOST_LOOKS, "looks do not come to an end");
    REQUIRE(c->closed == PA_CACHE_FLUSHED && partial_spans(c, LARGE_BYTES) == 0);
    sem_post(&late.go);
    REQUIRE(pthread_join(late.id, NULL) == 0);
}

static void looks_come_round(void)
{
    int looks = 0, paused = 0;
    for (int t = 0; t < SLEEPERS; t++)
        put_to_sleep(&sleepers[t]);
    REQUIRE(partial_spans_of_all(LARGE_BYTES) >= 2 * SLEEPERS);
    for (; !look(); looks++) {
        REQUIRE(looks < MOST_LOOKS, "looks do not come to an end");
        paused += atomic_load(&pa_the_heap.idle.lap) != 0;
    }
    REQUIRE(paused > SLEEPERS, "%d of %d looks stopped half-way: there is too little to look at", paused, looks);
    REQUIRE(partial_spans_of_all(SMALL_BYTES) > 0);
    REQUIRE(partial_spans_of_all(LARGE_BYTES) == 0, "%u left", partial_spans_of_all(LARGE_BYTES));
    who_falls_asleep_behind_a_lap_is_not_forgotten();
    for (int t = 0; t < SLEEPERS; t++) {
        sem_post(&sleepers[t].go);
        REQUIRE(pthread_join(sleepers[t].id, NULL) == 0);
    }
}

int main(void)
{
    pa_the_options.decay_ms = INTERVAL_MS; /* no looks but ours */
    what_exited_threads_left_goes_back(false);
    heap_must_be_empty();
    what_exited_threads_left_goes_back(true);
    heap_must_be_empty();
    looks_come_round();
    heap_must_be_empty();
    printf("laps: %u\n", atomic_load(&pa_the_heap.idle.laps));
    return 0;
}
