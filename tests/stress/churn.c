/* churn.c - threads allocate, check, pass on and free blocks as fast as they can.
 *
 *     churn [ops a thread] [threads] [seed]
 *
 * Blocks travel through shared slots by atomic exchange, so about (threads - 1) / threads of all frees are by a
 * thread that did not allocate.  A block describes itself: size and seed in its first 8 bytes; blocks too small
 * for that carry their size in the unused top bits of the pointer in the slot.  Everything that was
 * promised is checked: alignment, zeroes of calloc, usable size, contents at free and across realloc.  At
 * the end all
 * is freed, and the heap must be whole and empty.
 */
#include "stress.h"

enum { SLOTS = 4096, HEADER_BYTES = 8, TAG_SHIFT = 48 };

static _Atomic uintptr_t slots[SLOTS];
static long ops;
static uint64_t base_seed;

typedef struct header {
    uint32_t nbytes, seed;
} header;

/* Fills a fresh block and returns the word that goes into a slot. */
static uintptr_t wrap(void *p, size_t nbytes, uint32_t seed)
{
    REQUIRE(((uintptr_t)p >> TAG_SHIFT) == 0);
    REQUIRE(pa_usable_size(p) >= nbytes, "%zu", nbytes);
    if (nbytes < HEADER_BYTES) {
        pattern_fill(p, nbytes, (uint32_t)nbytes);
        return (uintptr_t)p | (uintptr_t)(nbytes + 1) << TAG_SHIFT;
    }
    *(header *)p = (header){(uint32_t)nbytes, seed};
    pattern_fill((char *)p + HEADER_BYTES, nbytes - HEADER_BYTES, seed);
    return (uintptr_t)p;
}

/* The block behind a word, its contents verified; *nbytes, *seed as they were given to wrap. */
static void *unwrap(uintptr_t word, size_t *nbytes, uint32_t *seed)
{
    void *p = (void *)(word & (((uintptr_t)1 << TAG_SHIFT) - 1));
    if (word >> TAG_SHIFT) {
        *nbytes = (word >> TAG_SHIFT) - 1;
        *seed = (uint32_t)*nbytes;
        pattern_verify(p, *nbytes, *nbytes, *seed);
    } else {
        header h = *(header *)p;
        *nbytes = h.nbytes;
        *seed = h.seed;
        pattern_verify((char *)p + HEADER_BYTES, *nbytes - HEADER_BYTES, *nbytes - HEADER_BYTES, *seed);
    }
    return p;
}

static uintptr_t allocate(uint64_t *random)
{
    size_t nbytes = random_size(random);
    uint32_t seed = (uint32_t)random_next(random);
    void *p;
    size_t kind = random_below(random, 16);
    if (kind < 10) {
        p = pa_malloc(nbytes);
        REQUIRE((uintptr_t)p % (nbytes <= 8 ? 8 : 16) == 0, "%p", p);
    } else if (kind < 13) {
        size_t count = 1 + random_below(random, 4);
        p = pa_calloc(count, nbytes / count);
        nbytes = nbytes / count * count;
        REQUIRE(p);
        require_zero(p, nbytes);
    } else {
        size_t align = (size_t)1 << random_below(random, kind == 15 ? 16 : 9);
        p = pa_memalign(align, nbytes);
        REQUIRE((uintptr_t)p % align == 0, "%p %zu", p, align);
    }
    REQUIRE(p, "%zu bytes", nbytes);
    return wrap(p, nbytes, seed);
}

static void release(uintptr_t word)
{
    if (!word)
        return;
    size_t nbytes;
    uint32_t seed;
    void *p = unwrap(word, &nbytes, &seed);
    if (nbytes % 3)
        pa_free(p);
    else
        pa_free_sized(p, nbytes);
}

static uintptr_t reallocate(uintptr_t word, uint64_t *random)
{
    size_t nbytes, wanted = random_size(random) + 1;
    uint32_t seed;
    void *p = unwrap(word, &nbytes, &seed);
    p = pa_realloc(p, wanted);
    REQUIRE(p);
    size_t head = word >> TAG_SHIFT ? 0 : HEADER_BYTES, kept = wanted < nbytes ? wanted : nbytes;
    if (kept > head)
        pattern_verify((char *)p + head, nbytes - head, kept - head, seed);
    return wrap(p, wanted, seed + 1);
}

static void *work(void *number)
{
    uint64_t random = base_seed * 1000 + (uintptr_t)number;
    uintptr_t mine[64] = {0};
    for (long i = 0; i < ops; i++) {
        _Atomic uintptr_t *slot = &slots[random_below(&random, SLOTS)];
        size_t kind = random_below(&random, 1000);
        if (kind < 450) {
            release(atomic_exchange_explicit(slot, allocate(&random), memory_order_acq_rel));
        } else if (kind < 700) {
            release(atomic_exchange_explicit(slot, 0, memory_order_acq_rel));
        } else if (kind < 850) {
            uintptr_t *own = &mine[random_below(&random, 64)];
            release(*own);
            *own = allocate(&random);
        } else if (kind < 998) {
            uintptr_t word = atomic_exchange_explicit(slot, 0, memory_order_acq_rel);
            if (word)
                release(atomic_exchange_explicit(slot, reallocate(word, &random), memory_order_acq_rel));
        } else if (kind < 999) {
            pa_free(NULL);
            REQUIRE(!pa_owns(&random));
            if (random_below(&random, 20) == 0)
                pa_free_os_memory();
        } else if (random_below(&random, 4) == 0) {
            pa_mem_stats s = stats_now();
            REQUIRE(s.heap_idle + s.heap_inuse == s.heap_sys && s.heap_alloc <= s.heap_inuse);
        }
    }
    for (size_t i = 0; i < 64; i++)
        if (i % 2)
            release(mine[i]);
        else /* left for others, also after this thread is gone */
            release(atomic_exchange_explicit(&slots[i * 7], mine[i], memory_order_acq_rel));
    return NULL;
}

int main(int argc, char **argv)
{
    ops = argument(argc, argv, 1, 100000);
    long threads = argument(argc, argv, 2, 4);
    base_seed = (uint64_t)argument(argc, argv, 3, 1);
    pthread_t ids[64];
    REQUIRE(threads >= 1 && threads <= 64);
    for (long i = 0; i < threads; i++)
        REQUIRE(pthread_create(&ids[i], NULL, work, (void *)(uintptr_t)i) == 0);
    for (long i = 0; i < threads; i++)
        REQUIRE(pthread_join(ids[i], NULL) == 0);
    heap_must_be_whole();
    pa_free_os_memory(); /* collects what others freed */
    uint64_t left = 0, live = stats_now().explicit_objects;
    for (size_t i = 0; i < SLOTS; i++)
        left += atomic_load(&slots[i]) != 0;
    REQUIRE(live == left, "%" PRIu64 " objects, %" PRIu64 " in slots", live, left);
    for (size_t i = 0; i < SLOTS; i++)
        release(atomic_exchange(&slots[i], 0));
    heap_must_be_empty();
    printf("churn: %ld threads x %ld ops, seed %" PRIu64 ", %" PRIu64 " blocks at the end\n", threads, ops,
           base_seed, left);
    return 0;
}
