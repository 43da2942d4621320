/* realloc.c - growing, shrinking and refusing, with contents.
 *
 *     realloc [rounds] [seed]
 *
 * Large blocks grow where they are when the pages behind them are free, and shrink where they are;
 * whatever moves keeps
 * the common prefix; a refused realloc leaves the old block as it was; size 0 frees.
 */
#include "stress.h"

#include "sys/vm.h"

static void grows_in_place(void)
{
    /* Nothing is allocated behind the block, so that doubling never has to move it. */
    size_t nbytes = PA_MIB;
    unsigned char *p = pa_malloc(nbytes);
    REQUIRE(p);
    pattern_fill(p, nbytes, 5);
    for (; nbytes < 32 * PA_MIB; nbytes *= 2) {
        unsigned char *q = pa_realloc(p, 2 * nbytes);
        REQUIRE(q == p, "moved at %zu bytes", nbytes);
        pattern_verify(p, nbytes, nbytes, 5);
        REQUIRE(pa_usable_size(p) >= 2 * nbytes && pa_owns(p + 2 * nbytes - 1));
        pattern_fill(p, 2 * nbytes, 5);
    }
    heap_must_be_whole();
    REQUIRE(pa_realloc(p, 40 * PA_KIB) == p); /* and shrinks, giving the pages back */
    pattern_verify(p, 32 * PA_MIB, 40 * PA_KIB, 5);
    REQUIRE(pa_usable_size(p) < 41 * PA_KIB && !pa_owns(p + PA_MIB));
    REQUIRE(stats_now().explicit_alloc < PA_MIB, "%" PRIu64, stats_now().explicit_alloc);
    heap_must_be_whole();
    pa_free(p);
}

static void moves_when_blocked(void)
{
    unsigned char *p = pa_malloc(64 * PA_KIB), *wall = pa_malloc(64 * PA_KIB);
    REQUIRE(p && wall);
    pattern_fill(p, 64 * PA_KIB, 7);
    pattern_fill(wall, 64 * PA_KIB, 8);
    unsigned char *q = pa_realloc(p, 9 * PA_MIB);
    REQUIRE(q && (q + 9 * PA_MIB <= wall || q >= wall + 64 * PA_KIB)); /* never over the neighbour */
    pattern_verify(q, 64 * PA_KIB, 64 * PA_KIB, 7);
    pattern_fill(q, 9 * PA_MIB, 9);
    pattern_verify(wall, 64 * PA_KIB, 64 * PA_KIB, 8);
    pa_free(q);
    pa_free(wall);
}

/* Blocks of which the next behind is taken: two copies are never resident together, and when the OS refuses memory,
 * or to take some back, the bytes are still all there. */
static void huge_ones_move_in_pieces(void)
{
    const size_t nbytes = 96 * PA_MIB;
    for (long nth = 0; nth < 30; nth = nth ? nth + 4 : 1) {
        unsigned char *p = pa_malloc(nbytes), *behind = pa_malloc(PA_MIB);
        REQUIRE(p && behind);
        for (size_t i = 0; i < nbytes; i += 4096)
            *(size_t *)(p + i) = i;
        pa_mem_stats before = stats_now();
        pa_vm_inject_failure(nth);
        unsigned char *q = pa_realloc(p, nbytes + 16 * PA_MIB);
        pa_vm_inject_failure(0);
        REQUIRE(q || (nth && errno == ENOMEM));
        unsigned char *now = q ? q : p;
        for (size_t i = 0; i < nbytes; i += 4096)
            REQUIRE(*(size_t *)(now + i) == i, "at %zu after failure %ld", i, nth);
        REQUIRE(q != p && pa_owns(p) == !q);
        pa_mem_stats after = stats_now();
        REQUIRE(nth || after.heap_sys - after.heap_released <= before.heap_sys - before.heap_released + 17 * PA_MIB,
                "the old block stayed resident");
        unsigned char *fresh = pa_calloc(1, nbytes); /* may be where it was: released pages must count as zero */
        REQUIRE(fresh);
        for (size_t i = 0; i < nbytes; i += 4096)
            REQUIRE(fresh[i] == 0, "at %zu", i);
        pa_free(fresh);
        pa_free(now);
        pa_free(behind);
        heap_must_be_empty();
    }
}

static void refusals_keep_the_block(void)
{
    static const size_t sizes[] = {1, 100, 5000, 32768, 40000, 3 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *p = pa_malloc(sizes[i]);
        REQUIRE(p);
        pattern_fill(p, sizes[i], 3);
        volatile size_t absurd[] = {SIZE_MAX, SIZE_MAX / 2, (size_t)1 << 46};
        for (size_t k = 0; k < 3; k++) {
            errno = 0;
            REQUIRE(pa_realloc(p, absurd[k]) == NULL && errno == ENOMEM);
            errno = 0;
            REQUIRE(pa_reallocarray(p, absurd[k], 2) == NULL && errno == ENOMEM);
        }
        pattern_verify(p, sizes[i], sizes[i], 3);
        heap_must_be_whole();
        REQUIRE(pa_realloc(p, 0) == NULL);
    }
    void *p = pa_realloc(NULL, 10);
    REQUIRE(p);
    pa_free(p);
    heap_must_be_empty();
}

static void small_in_place(void)
{
    unsigned char *p = pa_malloc(1000);
    REQUIRE(p);
    size_t usable = pa_usable_size(p);
    REQUIRE(pa_realloc(p, usable) == p && pa_realloc(p, usable / 2) == p);
    unsigned char *q = pa_realloc(p, 8);
    REQUIRE(q && pa_usable_size(q) == 8); /* a small rest does not pin a large block */
    pa_free(q);
}

static void random_walk(long rounds, uint64_t seed)
{
    struct {
        unsigned char *p;
        size_t nbytes;
        uint32_t seed;
    } blocks[64] = {0};
    for (long i = 0; i < rounds; i++) {
        size_t k = random_below(&seed, 64),
               nbytes = random_below(&seed, 20) ? random_size(&seed) + 1 : 1 + random_below(&seed, 5 * PA_MIB);
        unsigned char *q = pa_realloc(blocks[k].p, nbytes);
        REQUIRE(q);
        if (blocks[k].p)
            pattern_verify(q, blocks[k].nbytes, nbytes < blocks[k].nbytes ? nbytes : blocks[k].nbytes,
                           blocks[k].seed);
        blocks[k].p = q;
        blocks[k].nbytes = nbytes;
        blocks[k].seed = (uint32_t)i;
        pattern_fill(q, nbytes, (uint32_t)i);
    }
    heap_must_be_whole();
    for (size_t k = 0; k < 64; k++)
        pa_free(blocks[k].p);
    heap_must_be_empty();
}

/* Growth by an eighth, several blocks in one another's way: copies grow with the logarithm of the size, and the room
 * that a block has is a quarter, and what rounding adds. */
static void small_steps_seldom_move(void)
{
    enum { BLOCKS = 4, MOST_MOVES = 36 }; /* 256 B to 512 KiB by quarters: log(2048) / log(1.25) = 34 */
    unsigned char *p[BLOCKS] = {0};
    size_t nbytes = 256;
    int moves[BLOCKS] = {0};
    for (int k = 0; k < BLOCKS; k++) {
        REQUIRE((p[k] = pa_malloc(nbytes)) != NULL);
        pattern_fill(p[k], nbytes, (uint32_t)k);
    }
    for (size_t next; nbytes < 512 * PA_KIB; nbytes = next) {
        next = nbytes + nbytes / 8;
        for (int k = 0; k < BLOCKS; k++) {
            unsigned char *q = pa_realloc(p[k], next);
            REQUIRE(q);
            moves[k] += q != p[k];
            p[k] = q;
            pattern_verify(q, nbytes, nbytes, (uint32_t)k);
            pattern_fill(q, next, (uint32_t)k);
            REQUIRE(pa_usable_size(q) <= pa_good_size(next + next / 4), "%zu for %zu", pa_usable_size(q), next);
        }
    }
    for (int k = 0; k < BLOCKS; k++) {
        REQUIRE(moves[k] <= MOST_MOVES, "%d", moves[k]);
        pa_free(p[k]);
    }
    unsigned char *exact = pa_malloc(300), *more = pa_realloc(exact, 1000); /* by more than a quarter: as asked */
    REQUIRE(more && pa_usable_size(more) == pa_good_size(1000));
    pa_free(more);
    heap_must_be_empty();
}

/* The heap is full but for a hole that holds the size and not a quarter more: that is no reason to refuse. */
static void without_room_the_size_alone(void)
{
    enum { WAS = 700 * 1024, WANTED = 730 * 1024, HOLE = 768 * 1024, FILL = 64 * 1024, MOST = 2048 };
    static void *fill[MOST];
    unsigned char *p = pa_malloc(WAS), *wall = pa_malloc(FILL), *hole = pa_malloc(HOLE), *other = pa_malloc(FILL);
    REQUIRE(p && wall && hole && other);
    pattern_fill(p, WAS, 4);
    pa_vm_inject_failure(1); /* no more arenas */
    int n = 0;
    for (size_t nbytes = 32 * PA_MIB; nbytes >= PA_PAGE_BYTES; nbytes /= 2) /* few: headers need memory, too */
        while ((fill[n] = pa_malloc(nbytes)) != NULL)
            REQUIRE(++n < MOST);
    pa_free(hole);
    errno = 0;
    unsigned char *q = pa_realloc(p, WANTED);
    REQUIRE(q && q != p && errno == 0, "%d", errno);
    REQUIRE(pa_usable_size(q) < WAS + WAS / 4, "%zu", pa_usable_size(q));
    pattern_verify(q, WAS, WAS, 4);
    pa_vm_inject_failure(0);
    while (n)
        pa_free(fill[--n]);
    pa_free(q);
    pa_free(wall);
    pa_free(other);
    heap_must_be_empty();
}

int main(int argc, char **argv)
{
    long rounds = argument(argc, argv, 1, 20000);
    grows_in_place();
    moves_when_blocked();
    huge_ones_move_in_pieces();
    refusals_keep_the_block();
    small_in_place();
    small_steps_seldom_move();
    without_room_the_size_alone();
    random_walk(rounds, (uint64_t)argument(argc, argv, 2, 1));
    heap_must_be_empty();
    printf("realloc: %ld rounds\n", rounds);
    return 0;
}
