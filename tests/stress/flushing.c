/* flushing.c - the handshake of heap/idle.h between a thread and who flushes it, one interleaving at a time.
 *
 *     flushing
 *
 * Threads are puppets (puppet.h).  In each scenario one is stopped where it uses what a flush takes, or the flush is
 * stopped half-way while the owner goes on; in the end all blocks are freed, and the heap is whole and empty.
 */
#include "base/options.h"
#include "heap/remote.h"
#include "puppet.h"

enum { LARGE_BYTES = 300 * 1024, SMALL_BYTES = 64, MANAGED_BYTES = 1024, BLOCKS = 4096 };
#define INTERVAL_MS ((uint64_t)1000 * 1000)

static puppet owner_puppet, flusher_puppet, other_puppet;
static void *blocks[BLOCKS];
static size_t block_count;

static void *do_malloc(puppet *p, void *nbytes)
{
    void *block = pa_malloc((size_t)(uintptr_t)nbytes);
    REQUIRE(block);
    memset(block, 0x5a, (size_t)(uintptr_t)nbytes);
    return block;
}

static void *do_free(puppet *p, void *block)
{
    pa_free(block);
    return NULL;
}

static void *do_push(puppet *p, void *block)
{
    pa_free(block);
    pa_mcache_flush_outbox(pa_current_mcache);
    return NULL;
}

static void *do_flush(puppet *p, void *unused)
{
    pa_idle_flush_all(&pa_the_heap, pa_current_mcache);
    return unused;
}

static void *do_free_os_memory(puppet *p, void *unused)
{
    pa_free_os_memory();
    return unused;
}

static void *do_make_managed(puppet *p, void *unused)
{
    pa_enter();
    for (int i = 0; i < 100; i++) /* more than a span of the class holds */
        REQUIRE(pa_new_bytes(MANAGED_BYTES) != NULL);
    pa_leave();
    return pa_current_mcache;
}

static void *cache_of(puppet *p, void *unused)
{
    return pa_current_mcache;
}

static uint32_t binned_pages(const pa_mcache *c)
{
    return (uint32_t)(c->bin_cap_pages - c->bin_room_pages);
}

static void require_bytes(const unsigned char *p, size_t nbytes)
{
    for (size_t i = 0; i < nbytes; i++)
        REQUIRE(p[i] == 0x5a, "byte %zu", i);
}

/* The owner has one large span in its bins. */
static pa_mcache *with_a_binned_span(puppet *owner)
{
    pa_mcache *c = run(owner, cache_of, NULL);
    run(owner, do_free, run(owner, do_malloc, (void *)LARGE_BYTES));
    c = run(owner, cache_of, NULL);
    REQUIRE(binned_pages(c) > 0 && c->closed == PA_CACHE_OPEN);
    return c;
}

static void flush_takes_bins(puppet *owner, puppet *flusher)
{
    pa_mcache *c = with_a_binned_span(owner);
    run(flusher, do_flush, NULL);
    REQUIRE(binned_pages(c) == 0 && c->closed == PA_CACHE_FLUSHED);
    void *block = run(owner, do_malloc, (void *)LARGE_BYTES);
    REQUIRE(c->closed == PA_CACHE_OPEN);
    run(owner, do_free, block);
    REQUIRE(binned_pages(c) > 0);
}

/* Stopped with its hand in the bins: the flush must not touch them, the next one does. */
static void flush_while_owner_takes(puppet *owner, puppet *flusher)
{
    pa_mcache *c = with_a_binned_span(owner);
    uint32_t before = binned_pages(c);
    run_to(owner, PA_YIELD_CACHE_ENTERED, do_malloc, (void *)LARGE_BYTES);
    run(flusher, do_flush, NULL);
    REQUIRE(binned_pages(c) == before && c->closed == PA_CACHE_CLOSED);
    let_go(owner);
    void *block = finish(owner);
    run(flusher, do_flush, NULL);
    require_bytes(block, LARGE_BYTES);
    REQUIRE(c->closed == PA_CACHE_FLUSHED && binned_pages(c) == 0);
    run(owner, do_free, block);
}

static void flush_while_owner_puts(puppet *owner, puppet *flusher)
{
    pa_mcache *c = with_a_binned_span(owner);
    void *block = run(owner, do_malloc, (void *)LARGE_BYTES);
    run_to(owner, PA_YIELD_CACHE_ENTERED, do_free, block);
    run(flusher, do_flush, NULL);
    REQUIRE(c->closed == PA_CACHE_CLOSED);
    let_go(owner);
    finish(owner);
    REQUIRE(binned_pages(c) > 0);
    run(flusher, do_flush, NULL);
    REQUIRE(binned_pages(c) == 0);
}

/* The flush is half-way: the owner's next use must wait for its end in the slow path. */
static void owner_comes_back_meanwhile(puppet *owner, puppet *flusher)
{
    pa_mcache *c = with_a_binned_span(owner);
    run_to(flusher, PA_YIELD_IDLE_CLOSED, do_flush, NULL);
    REQUIRE(c->closed == PA_CACHE_CLOSED);
    begin(owner, do_malloc, (void *)LARGE_BYTES);
    let_go(flusher);
    finish(flusher);
    void *block = finish(owner);
    REQUIRE(c->closed == PA_CACHE_OPEN && binned_pages(c) == 0);
    run(owner, do_free, block);
}

/* The owner puts a foreign block into its outbox: the slot is closed by the flush in between. */
static void flush_while_owner_posts(puppet *owner, puppet *flusher)
{
    void *first = pa_malloc(SMALL_BYTES), *second = pa_malloc(SMALL_BYTES);
    REQUIRE(pa_span_of(first) == pa_span_of(second));
    pa_span *s = pa_span_of(first);
    run(owner, do_free, first);
    pa_mcache *c = run(owner, cache_of, NULL);
    REQUIRE(c->outbox_count == 1 && pa_span_count_remote(s) == 0);
    run_to(owner, PA_YIELD_CACHE_ENTERED, do_free, second);
    run(flusher, do_flush, NULL);
    REQUIRE(c->outbox_count == 1 && pa_span_count_remote(s) == 0);
    let_go(owner);
    finish(owner);
    run(flusher, do_flush, NULL);
    REQUIRE(c->outbox_count == 0 && pa_span_count_remote(s) == 2);
}

/* All blocks of a span that the owner owns and that is not current; the first `mine` stay in the owner's hands. */
static pa_span *a_partial_span(puppet *owner)
{
    pa_span *s = NULL;
    block_count = 0;
    for (bool full = false; !full;) {
        void *p = run(owner, do_malloc, (void *)SMALL_BYTES);
        if (pa_span_of(p) != s) { /* began in the middle of one */
            for (size_t i = 0; i < block_count; i++)
                run(owner, do_free, blocks[i]);
            block_count = 0;
            s = pa_span_of(p);
        }
        REQUIRE(block_count < BLOCKS);
        blocks[block_count++] = p;
        full = block_count == (s->limit - s->base) / SMALL_BYTES;
    }
    void *next = run(owner, do_malloc, (void *)SMALL_BYTES); /* gives it up: full */
    REQUIRE(pa_span_of(next) != s && atomic_load(&s->owner) == NULL);
    run(owner, do_push, blocks[--block_count]); /* and claims it */
    REQUIRE(atomic_load(&s->owner) == run(owner, cache_of, NULL));
    run(owner, do_free, next);
    return s;
}

/* One block is half-way home by its owner's hand, all others by others': not wholly free yet. */
static void flush_while_owner_frees_the_last(puppet *owner, puppet *flusher)
{
    pa_span *s = a_partial_span(owner);
    void *last = blocks[--block_count];
    for (size_t i = 0; i < block_count; i++)
        run(&other_puppet, do_push, blocks[i]);
    REQUIRE(s->live == pa_span_count_remote(s) + 1);
    run_to(owner, PA_YIELD_FREE_PUSHED, do_free, last);
    run(flusher, do_flush, NULL);
    REQUIRE(pa_span_of(last) == s && s->live == pa_span_count_remote(s) + 1);
    let_go(owner);
    finish(owner);
    run(flusher, do_flush, NULL);
    REQUIRE(pa_span_of(last) != s, "the span is still there");
}

static void flush_takes_a_span_that_others_emptied(puppet *owner, puppet *flusher)
{
    pa_span *s = a_partial_span(owner);
    for (size_t i = 0; i < block_count - 1; i++)
        run(&other_puppet, do_push, blocks[i]);
    run(flusher, do_flush, NULL);
    REQUIRE(pa_span_of(blocks[0]) == s); /* one block is still out */
    run(&other_puppet, do_free, blocks[block_count - 1]); /* and now in another's outbox */
    run(flusher, do_flush, NULL);
    REQUIRE(pa_span_of(blocks[0]) != s);
}

/* The last blocks of a sleeper's span lie in the outbox of the thread that asks for memory back: one call is enough. */
static void own_outbox_goes_first(puppet *owner, puppet *flusher)
{
    pa_span *s = a_partial_span(owner);
    for (size_t i = 0; i < block_count; i++)
        run(flusher, do_free, blocks[i]);
    pa_mcache *c = run(flusher, cache_of, NULL);
    REQUIRE(pa_outbox_slot_of(c, s)->span == s && pa_span_of(blocks[0]) == s);
    run(flusher, do_free_os_memory, NULL);
    REQUIRE(pa_span_of(blocks[0]) != s);
}

static uint64_t now_ns = (uint64_t)1 << 62; /* later than any look by the real clock */

static bool look(void)
{
    return pa_idle_look(&pa_the_heap, NULL, now_ns += 2 * INTERVAL_MS * 1000000); /* always due */
}

/* Statistics and fork take a sleeper's lock to count, and to keep it out: that does not make it awake. */
static void who_counts_wakes_nobody(puppet *owner, puppet *flusher)
{
    run(owner, do_free, pa_malloc(SMALL_BYTES)); /* something to count, in its outbox */
    pa_mcache *c = run(owner, cache_of, NULL);
    look();
    REQUIRE(c->closed == PA_CACHE_OPEN, "flushed while it may be awake");
    uint64_t before = c->slow.acquisitions;
    stats_now();
    REQUIRE(c->slow.acquisitions > before);
    look();
    REQUIRE(c->closed == PA_CACHE_FLUSHED && c->outbox_count == 0);
}

/* A thread that only makes managed objects keeps a page stock, which is flushed as any other. */
static void managed_stock_is_flushed(puppet *owner, puppet *flusher)
{
    pa_mcache *c = run(owner, do_make_managed, NULL);
    run(flusher, do_flush, NULL);
    REQUIRE(c->closed == PA_CACHE_FLUSHED && c->stock.cache.free == 0);
    run(owner, do_make_managed, NULL);
    REQUIRE(c->closed == PA_CACHE_OPEN && c->stock.cache.free != 0);
    look();
    look();
    REQUIRE(c->closed == PA_CACHE_FLUSHED && c->stock.cache.free == 0);
}

/* A look that delivered blocks says that there may be more, even if they were nobody's last. */
static void a_look_that_delivered_is_not_quiet(puppet *owner, puppet *flusher)
{
    a_partial_span(owner);
    run(&other_puppet, do_free, blocks[0]);
    REQUIRE(!look()); /* all may be awake */
    REQUIRE(!look());
    REQUIRE(look() && ((pa_mcache *)run(&other_puppet, cache_of, NULL))->outbox_count == 0);
    for (size_t i = 1; i < block_count; i++)
        run(owner, do_free, blocks[i]);
}

/* So does one that frees a span and had nothing to deliver. */
static void a_look_that_freed_is_not_quiet(puppet *owner, puppet *flusher)
{
    pa_span *s = a_partial_span(owner);
    for (size_t i = 0; i < block_count; i++)
        run(&other_puppet, do_push, blocks[i]);
    REQUIRE(!look() && pa_span_of(blocks[0]) == s); /* its owner may be awake */
    REQUIRE(!look() && pa_span_of(blocks[0]) != s);
    REQUIRE(look());
    run(owner, do_free, run(owner, do_malloc, (void *)LARGE_BYTES));
    REQUIRE(!look());
    look();
    REQUIRE(look()); /* bins bring nothing home */
}

/* A push of the outbox claims a span that nobody owns: it is listed, since the sleeper cannot own it. */
static void flush_claims(puppet *owner, puppet *flusher)
{
    block_count = 0;
    pa_span *s = NULL;
    while (!s || block_count < (s->limit - s->base) / SMALL_BYTES) {
        void *p = pa_malloc(SMALL_BYTES);
        if (pa_span_of(p) != s) {
            for (size_t i = 0; i < block_count; i++)
                pa_free(blocks[i]);
            block_count = 0;
            s = pa_span_of(p);
        }
        blocks[block_count++] = p;
    }
    void *next = pa_malloc(SMALL_BYTES);
    REQUIRE(atomic_load(&s->owner) == NULL);
    run(owner, do_free, blocks[0]); /* waits in the outbox */
    run(flusher, do_flush, NULL);
    REQUIRE(atomic_load(&s->owner) == NULL && s->listed);
    for (size_t i = 1; i < block_count; i++)
        pa_free(blocks[i]);
    pa_free(next);
}

static const struct {
    const char *name;
    void (*body)(puppet *owner, puppet *flusher);
} scenarios[] = {
#define S(name) {#name, name}
    S(flush_takes_bins),
    S(flush_while_owner_takes),
    S(flush_while_owner_puts),
    S(owner_comes_back_meanwhile),
    S(flush_while_owner_posts),
    S(flush_while_owner_frees_the_last),
    S(flush_takes_a_span_that_others_emptied),
    S(own_outbox_goes_first),
    S(who_counts_wakes_nobody),
    S(managed_stock_is_flushed),
    S(a_look_that_delivered_is_not_quiet),
    S(a_look_that_freed_is_not_quiet),
    S(flush_claims),
#undef S
};

int main(int argc, char **argv)
{
    pa_the_options.decay_ms = INTERVAL_MS; /* no looks but ours */
    atomic_store(&pa_yield_hook, hook);
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        puppet *owner = new_puppet(&owner_puppet), *flusher = new_puppet(&flusher_puppet);
        new_puppet(&other_puppet);
        pa_free(pa_malloc(1));
        scenarios[i].body(owner, flusher);
        dismiss(owner);
        dismiss(flusher);
        dismiss(&other_puppet);
        heap_must_be_empty();
    }
    printf("flushing: %zu interleavings\n", sizeof scenarios / sizeof *scenarios);
    return 0;
}
