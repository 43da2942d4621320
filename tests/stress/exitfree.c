/* exitfree.c - malloc and free where a thread, or the process, is already on its way out.
 *
 *     exitfree [rounds]
 *
 * Destructors of thread-specific data run in rounds, ours among them; whatever runs after it has no P any more and
 * is served by the orphan.  Here destructors allocate, free their own and the thread's earlier blocks,
 * and set their key
 * again, so that they run before and after ours.  Another thread frees an exiting thread's blocks at the
 * same time.
 * Handlers of atexit and functions marked destructor do the same at the very end; the last of them checks
 * the heap.
 */
#include "stress.h"

enum { BLOCKS = 200, KEEP_SETTING = 3 };

static pthread_key_t early_key, late_key; /* made before and after the first pa_malloc: on both sides of ours */
static atomic_long destructor_calls, orphan_calls;

typedef struct luggage {
    pthread_key_t *key;
    int left;
    size_t count;
    void *blocks[BLOCKS];
} luggage;

static size_t size_of(size_t i)
{
    return i % 7 == 0 ? 40 * PA_KIB + i : i * 37 % 3000;
}

static void destroy(void *argument)
{
    luggage *l = argument;
    atomic_fetch_add(&destructor_calls, 1);
    if (!pa_mcache_is_real(pa_current_mcache))
        atomic_fetch_add(&orphan_calls, 1);
    void *fresh[20];
    for (size_t i = 0; i < 20; i++) {
        fresh[i] = pa_calloc(1, size_of(i * 3));
        REQUIRE(fresh[i]);
        require_zero(fresh[i], size_of(i * 3));
        pattern_fill(fresh[i], size_of(i * 3), 4);
    }
    for (size_t i = 0; i < 20; i++) {
        pattern_verify(fresh[i], size_of(i * 3), size_of(i * 3), 4);
        fresh[i] = pa_realloc(fresh[i], size_of(i * 3) + 3000);
        REQUIRE(fresh[i]);
        pa_free(fresh[i]);
    }
    for (size_t n = l->count / 2 + 1; n && l->count; n--) { /* half of what is left of the thread's own */
        size_t i = --l->count;
        pattern_verify(l->blocks[i], size_of(i), size_of(i), (uint32_t)i);
        pa_free(l->blocks[i]);
    }
    pa_free_os_memory();
    if (l->left-- > 0) {
        REQUIRE(pthread_setspecific(*l->key, l) == 0);
        return;
    }
    while (l->count)
        pa_free(l->blocks[--l->count]);
    pa_free(l);
}

static luggage *pack(pthread_key_t *key)
{
    luggage *l = pa_malloc(sizeof *l);
    REQUIRE(l);
    *l = (luggage){.key = key, .left = KEEP_SETTING - 1, .count = BLOCKS};
    for (size_t i = 0; i < BLOCKS; i++) {
        l->blocks[i] = pa_malloc(size_of(i));
        REQUIRE(l->blocks[i]);
        pattern_fill(l->blocks[i], size_of(i), (uint32_t)i);
    }
    return l;
}

static void *leave_with_luggage(void *unused)
{
    REQUIRE(pthread_setspecific(early_key, pack(&early_key)) == 0);
    REQUIRE(pthread_setspecific(late_key, pack(&late_key)) == 0);
    return unused;
}

/* A thread whose only calls are frees, then whose only calls come after its destructor. */
static void *only_free(void *blocks)
{
    for (size_t i = 0; i < BLOCKS; i++)
        pa_free(((void **)blocks)[i]);
    return NULL;
}

static void *_Atomic shared[BLOCKS];
static sem_t shared_filled;

static void *exit_while_others_free(void *unused)
{
    for (size_t i = 0; i < BLOCKS; i++)
        atomic_store_explicit(&shared[i], pa_malloc(size_of(i)), memory_order_release);
    sem_post(&shared_filled);
    return unused; /* now its destructor and the frees of main race */
}

static void *block_of_atexit;

static void at_exit(void)
{
    void *p = pa_malloc(100), *q = pa_malloc(PA_MIB);
    REQUIRE(p && q);
    pa_free(p);
    pa_free(block_of_atexit);
    block_of_atexit = pa_realloc(q, 2 * PA_MIB);
    REQUIRE(block_of_atexit);
}

__attribute__((destructor)) static void after_atexit(void)
{
    if (!block_of_atexit)
        return;
    pa_free(block_of_atexit);
    void *p = pa_malloc(64);
    REQUIRE(p);
    pa_free(p);
    heap_must_be_empty();
    static const char line[] = "exitfree: the heap is empty at the very end\n";
    REQUIRE(write(STDOUT_FILENO, line, sizeof line - 1) == (ssize_t)sizeof line - 1);
}

int main(int argc, char **argv)
{
    long rounds = argument(argc, argv, 1, 200);
    REQUIRE(pthread_key_create(&early_key, destroy) == 0);
    block_of_atexit = pa_malloc(1000);
    REQUIRE(pthread_key_create(&late_key, destroy) == 0 && atexit(at_exit) == 0);
    REQUIRE(sem_init(&shared_filled, 0, 0) == 0);
    pthread_t ids[3];
    for (long n = 0; n < rounds; n++) {
        void *mine[BLOCKS];
        for (size_t i = 0; i < BLOCKS; i++)
            mine[i] = pa_malloc(size_of(i));
        REQUIRE(pthread_create(&ids[0], NULL, leave_with_luggage, NULL) == 0);
        REQUIRE(pthread_create(&ids[1], NULL, only_free, mine) == 0);
        REQUIRE(pthread_create(&ids[2], NULL, exit_while_others_free, NULL) == 0);
        sem_wait(&shared_filled);
        for (size_t i = 0; i < BLOCKS; i++)
            pa_free(atomic_exchange_explicit(&shared[i], NULL, memory_order_acq_rel));
        for (size_t i = 0; i < 3; i++)
            REQUIRE(pthread_join(ids[i], NULL) == 0);
    }
    pa_free(block_of_atexit);
    heap_must_be_empty();
    block_of_atexit = pa_malloc(1000);
    REQUIRE(atomic_load(&destructor_calls) == rounds * 2 * KEEP_SETTING, "%ld", atomic_load(&destructor_calls));
    REQUIRE(atomic_load(&orphan_calls) > rounds, "%ld calls without a P: the test misses its point",
            atomic_load(&orphan_calls));
    printf("exitfree: %ld rounds, %ld destructor calls, %ld without a P\n", rounds,
           atomic_load(&destructor_calls), atomic_load(&orphan_calls));
    fflush(stdout);
    return 0;
}
