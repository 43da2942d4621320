/* relay.c - threads that hand their blocks to a successor and exit (heap/leavings.h).
 *
 *     relay [replacements a thread] [generations] [chains] [seed]
 *
 * First by hand: what a thread left is had by the next thread that needs a span of the class, without the page heap and
 * without a lock of mcentral; a fork child finds it, too.  Then at random: chains of threads replace blocks of their
 * arrays, whose contents are checked, so that blocks are freed by threads that never saw their span.
 */
#include <sys/wait.h>

#include "base/options.h"
#include "stress.h"

enum { MOST_CHAINS = 16, LIVE = 1500, CLASSES = 6, EACH = 400 };

static const size_t class_bytes[CLASSES] = {32, 96, 256, 512, 1024, 2048};

static void *run_thread(void *(*body)(void *), void *argument)
{
    pthread_t id;
    void *result;
    REQUIRE(pthread_create(&id, NULL, body, argument) == 0 && pthread_join(id, &result) == 0);
    return result;
}

/* ---- By hand ---- */

static void *left[CLASSES][EACH];

static void *leave_every_other(void *unused)
{
    for (int k = 0; k < CLASSES; k++)
        for (int i = 0; i < EACH; i++)
            REQUIRE((left[k][i] = pa_malloc(class_bytes[k])) != NULL);
    for (int k = 0; k < CLASSES; k++)
        for (int i = 0; i < EACH; i += 2)
            pa_free(left[k][i]);
    return unused;
}

static uint64_t central_acquisitions(void)
{
    uint64_t sum = 0;
    for (unsigned k = 0; k < PA_SIZE_CLASSES; k++)
        sum += pa_racy_load(&pa_the_heap.central[PA_KIND_EXPLICIT][k].lock.acquisitions);
    return sum;
}

/* A block of each class, from what was left, for the lock's price once; they are freed again. */
static void *take_some(void *unused)
{
    uint64_t centrals = central_acquisitions(), visits = pa_the_heap.leavings.lock.acquisitions;
    uint64_t inuse_pages = atomic_load(&pa_the_heap.inuse_pages);
    void *got[CLASSES];
    for (int k = 0; k < CLASSES; k++)
        REQUIRE((got[k] = pa_malloc(class_bytes[k])) != NULL);
    REQUIRE(atomic_load(&pa_the_heap.inuse_pages) == inuse_pages, "there was room in what was left");
    REQUIRE(central_acquisitions() == centrals);
    uint64_t made = pa_the_heap.leavings.lock.acquisitions - visits;
    REQUIRE(made == 1, "%" PRIu64 " visits for %d classes", made, CLASSES);
    for (int k = 0; k < CLASSES; k++)
        pa_free(got[k]);
    return unused;
}

static void free_the_rest(void)
{
    for (int k = 0; k < CLASSES; k++)
        for (int i = 1; i < EACH; i += 2)
            pa_free(left[k][i]);
}

static void next_thread_has_it(void)
{
    run_thread(leave_every_other, NULL);
    REQUIRE(pa_the_heap.leavings.count >= CLASSES, "%u", pa_the_heap.leavings.count);
    heap_must_be_whole();
    run_thread(take_some, NULL);
    heap_must_be_whole();
    free_the_rest();
    heap_must_be_empty();
    REQUIRE(pa_the_heap.leavings.count == 0);
}

static void without_looks_it_is_listed_at_once(void)
{
    int64_t decay_ms = pa_the_options.decay_ms;
    pa_the_options.decay_ms = 0;
    run_thread(leave_every_other, NULL);
    REQUIRE(pa_the_heap.leavings.count == 0 && atomic_load(&pa_the_heap.listed_explicit) >= CLASSES);
    free_the_rest();
    heap_must_be_empty();
    pa_the_options.decay_ms = decay_ms;
}

static void child_of_fork_finds_it(void)
{
    run_thread(leave_every_other, NULL);
    REQUIRE(pa_the_heap.leavings.count >= CLASSES);
    fflush(stdout);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        REQUIRE(pa_the_heap.leavings.count == 0 && atomic_load(&pa_the_heap.listed_explicit) >= CLASSES);
        heap_must_be_whole();
        free_the_rest();
        heap_must_be_empty();
        _exit(0);
    }
    int status;
    REQUIRE(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    heap_must_be_whole(); /* the parent's is untouched */
    free_the_rest();
    heap_must_be_empty();
}

/* ---- At random ---- */

typedef struct block {
    unsigned char *p;
    size_t nbytes;
    uint32_t pattern;
} block;

typedef struct chain {
    pthread_t id;
    uint64_t seed;
    long replacements, generations;
    block blocks[LIVE];
} chain;

static chain chains[MOST_CHAINS];

static void drop(block *b)
{
    if (b->p)
        pattern_verify(b->p, b->nbytes, b->nbytes, b->pattern);
    pa_free(b->p);
    *b = (block){0};
}

static void *serve(void *argument)
{
    chain *c = argument;
    for (long i = 0; i < c->replacements; i++) {
        block *b = &c->blocks[random_below(&c->seed, LIVE)];
        drop(b);
        *b = (block){.nbytes = 8 + random_below(&c->seed, 1000), .pattern = (uint32_t)random_next(&c->seed)};
        REQUIRE((b->p = pa_malloc(b->nbytes)) != NULL);
        pattern_fill(b->p, b->nbytes, b->pattern);
    }
    return NULL;
}

static void *relay(void *argument)
{
    chain *c = argument;
    for (long g = 0; g < c->generations; g++)
        run_thread(serve, c);
    return NULL;
}

int main(int argc, char **argv)
{
    long replacements = argument(argc, argv, 1, 3000), generations = argument(argc, argv, 2, 8);
    long count = argument(argc, argv, 3, 4), seed = argument(argc, argv, 4, 1);
    REQUIRE(count >= 1 && count <= MOST_CHAINS);
    pa_free(pa_malloc(1));
    next_thread_has_it();
    without_looks_it_is_listed_at_once();
    child_of_fork_finds_it();
    pa_the_options.decay_ms = 5; /* many looks */
    for (long i = 0; i < count; i++) {
        chains[i] = (chain){
            .seed = (uint64_t)(seed + i * 1000), .replacements = replacements, .generations = generations};
        REQUIRE(pthread_create(&chains[i].id, NULL, relay, &chains[i]) == 0);
    }
    for (long i = 0; i < count; i++)
        REQUIRE(pthread_join(chains[i].id, NULL) == 0);
    heap_must_be_whole();
    for (long i = 0; i < count; i++)
        for (long k = 0; k < LIVE; k++)
            drop(&chains[i].blocks[k]);
    heap_must_be_empty();
    printf("relay: %ld chains of %ld threads\n", count, generations);
    return 0;
}
