/* protocol.c - the claim protocol of remote frees (heap/remote.h), one interleaving at a time.
 *
 *     protocol [name]
 *
 * Threads are puppets (puppet.h).  Each scenario ends with all blocks freed, all puppets gone, and a heap that is
 * whole and empty, which is the proof that no block was lost or counted twice.  Frees gather in a thread's outbox;
 * push() flushes it at once.
 */
#include "heap/remote.h"
#include "puppet.h"

enum { MAX_BLOCKS = 5000 };

/* ---- Steps ---- */

static void *do_malloc(puppet *p, void *nbytes)
{
    void *block = pa_malloc((size_t)(uintptr_t)nbytes);
    REQUIRE(block);
    return block;
}

static void *do_push(puppet *p, void *block)
{
    pa_free(block);
    pa_mcache_flush_outbox(pa_current_mcache);
    return NULL;
}

static void *do_free(puppet *p, void *block)
{
    pa_free(block);
    return NULL;
}

static void *do_trim(puppet *p, void *unused)
{
    pa_free_os_memory();
    return unused;
}

static void *who_am_i(puppet *p, void *unused)
{
    return pa_current_mcache;
}

typedef struct batch {
    size_t nbytes, count;
    pa_span *span;
    void *blocks[MAX_BLOCKS]; /* [0, count): all blocks of the span; others follow */
    size_t others;
} batch;

/* Allocates until one span's blocks are all taken: it is then full, and still current. */
static void *do_fill_span(puppet *p, void *argument)
{
    batch *b = argument;
    b->count = 0;
    b->span = NULL;
    for (;;) {
        void *block = pa_malloc(b->nbytes);
        REQUIRE(block && b->count < MAX_BLOCKS);
        if (pa_span_of(block) != b->span) {
            for (size_t i = 0; i < b->count; i++) /* began in the middle of a span: start again in this one */
                pa_free(b->blocks[i]);
            b->count = 0;
            b->span = pa_span_of(block);
        }
        b->blocks[b->count++] = block;
        pa_span *s = b->span;
        if (b->count == (s->limit - s->base) / pa_span_element_bytes(s))
            return NULL;
    }
}

static pa_mcache *owner_of(pa_span *s)
{
    return atomic_load(&s->owner);
}
static bool is_marked_unowned(pa_span *s)
{
    return atomic_load(&s->remote) & PA_REMOTE_UNOWNED;
}
static uintptr_t remote_head(pa_span *s)
{
    return atomic_load(&s->remote) & ~PA_REMOTE_UNOWNED;
}
static bool is_abandoned(pa_span *s)
{
    return !owner_of(s) && is_marked_unowned(s) && !s->listed;
}
static bool is_listed(pa_span *s)
{
    return !owner_of(s) && !is_marked_unowned(s) && s->listed;
}

static void free_rest(batch *b, size_t from)
{
    for (size_t i = from; i < b->count; i++)
        pa_free(b->blocks[i]);
}

static batch full;
static puppet a_puppet, b_puppet, c_puppet;

/* a owns a full span, full.span, current of its class. */
static puppet *owner_with_full_span(size_t nbytes)
{
    puppet *a = new_puppet(&a_puppet);
    full.nbytes = nbytes;
    run(a, do_fill_span, &full);
    REQUIRE(owner_of(full.span) == run(a, who_am_i, NULL) && full.count >= 1);
    return a;
}

/* The same, abandoned by the next malloc; returns that other block. */
static void *abandon_full(puppet *a)
{
    void *next = run(a, do_malloc, (void *)full.nbytes);
    REQUIRE(pa_span_of(next) != full.span && is_abandoned(full.span));
    return next;
}

/* ---- Free x abandon ---- */

static void free_in_the_middle_of_abandon(size_t nbytes)
{
    puppet *a = owner_with_full_span(nbytes), *b = new_puppet(&b_puppet);
    run_to(a, PA_YIELD_ABANDON_OWNER_CLEARED, do_malloc, (void *)nbytes); /* owner = 0, the CAS to come */
    REQUIRE(!owner_of(full.span) && !is_marked_unowned(full.span));
    run(b, do_push, full.blocks[0]); /* pushes, and must not claim: nobody marked the span */
    REQUIRE(!owner_of(full.span) && remote_head(full.span) == (uintptr_t)full.blocks[0]);
    let_go(a); /* its CAS fails: it takes the span back and has a block again */
    REQUIRE(finish(a) == full.blocks[0]);
    REQUIRE(owner_of(full.span) == run(a, who_am_i, NULL));
    dismiss(a);
    free_rest(&full, 0);
    dismiss(b);
}

static void abandon_in_the_middle_of_free(size_t nbytes)
{
    puppet *a = owner_with_full_span(nbytes), *b = new_puppet(&b_puppet);
    run_to(b, PA_YIELD_FREE_BEFORE_PUSH, do_push, full.blocks[0]); /* has read head 0: CAS 0 -> block to come */
    void *next = abandon_full(a);
    let_go(b); /* its CAS fails, the second claims */
    finish(b);
    if (full.count > 1)
        REQUIRE(owner_of(full.span) == run(b, who_am_i, NULL) && !remote_head(full.span));
    free_rest(&full, 1);
    pa_free(next);
    dismiss(a);
    dismiss(b);
}

/* ---- Two freers x claim ---- */

static void free_in_the_middle_of_claim(size_t nbytes)
{
    puppet *a = owner_with_full_span(nbytes), *b = new_puppet(&b_puppet), *c = new_puppet(&c_puppet);
    pa_free(abandon_full(a));
    run_to(b, PA_YIELD_FREE_AFTER_CLAIM, do_push, full.blocks[0]); /* bit cleared, owner not yet set */
    REQUIRE(!owner_of(full.span) && !is_marked_unowned(full.span));
    run(c, do_push, full.blocks[1]); /* may not claim again */
    REQUIRE(!owner_of(full.span));
    let_go(b);
    finish(b);
    REQUIRE(owner_of(full.span) == run(b, who_am_i, NULL));
    REQUIRE(!remote_head(full.span) && full.span->live == full.count - 2, "live %u of %zu", full.span->live,
            full.count);
    run(a, do_push, full.blocks[2]); /* the former owner is a stranger now */
    REQUIRE(remote_head(full.span) == (uintptr_t)full.blocks[2]);
    free_rest(&full, 3);
    dismiss(a);
    dismiss(b);
    dismiss(c);
}

static void two_freers_one_claim(size_t nbytes)
{
    puppet *a = owner_with_full_span(nbytes), *b = new_puppet(&b_puppet), *c = new_puppet(&c_puppet);
    pa_free(abandon_full(a));
    run_to(b, PA_YIELD_FREE_BEFORE_PUSH, do_push, full.blocks[0]);
    run_to(c, PA_YIELD_FREE_BEFORE_PUSH, do_push, full.blocks[1]); /* both have read "unowned" */
    let_go(c);
    finish(c);
    pa_mcache *winner = run(c, who_am_i, NULL);
    REQUIRE(owner_of(full.span) == winner && full.span->live == full.count - 1);
    let_go(b); /* must notice and only push */
    finish(b);
    REQUIRE(owner_of(full.span) == winner && remote_head(full.span) == (uintptr_t)full.blocks[0]);
    free_rest(&full, 2);
    dismiss(a);
    dismiss(b);
    dismiss(c);
}

static void claim_by_a_thread_that_exits(size_t nbytes)
{
    puppet *a = owner_with_full_span(nbytes), *b = new_puppet(&b_puppet), *c = new_puppet(&c_puppet);
    pa_free(abandon_full(a));
    run(b, do_free, full.blocks[0]); /* stays in b's outbox */
    REQUIRE(is_abandoned(full.span));
    exit_to(b, PA_YIELD_EXIT_BEFORE_RELEASE);
    run(c, do_push, full.blocks[1]); /* c claims first */
    REQUIRE(owner_of(full.span) == run(c, who_am_i, NULL));
    let_go(b); /* and b's outbox is pushed to an owned span */
    join(b);
    REQUIRE(remote_head(full.span) == (uintptr_t)full.blocks[0]);
    free_rest(&full, 2);
    dismiss(a);
    dismiss(c);
}

static void emptied_by_the_claim(size_t nbytes)
{
    puppet *a = owner_with_full_span(nbytes), *b = new_puppet(&b_puppet), *c = new_puppet(&c_puppet);
    pa_free(abandon_full(a));
    run_to(b, PA_YIELD_FREE_AFTER_CLAIM, do_push, full.blocks[0]);
    for (size_t i = 1; i < full.count; i++)
        run(c, do_push, full.blocks[i]);
    let_go(b); /* finds all blocks home: the span is empty and nobody's */
    finish(b);
    REQUIRE(pa_span_state_racy(full.span) != PA_SPAN_MANUAL || pa_span_of(full.blocks[0]) != full.span);
    dismiss(a);
    dismiss(b);
    dismiss(c);
}

/* ---- Free x listing, free x pop ---- */

/* a's full span minus one block, a exits: the span is listed. */
static void list_full_less_one(size_t nbytes)
{
    puppet *a = owner_with_full_span(nbytes);
    run(a, do_free, full.blocks[0]);
    dismiss(a);
    REQUIRE(is_listed(full.span));
}

static void free_in_the_middle_of_listing(size_t nbytes)
{
    puppet *a = owner_with_full_span(nbytes), *b = new_puppet(&b_puppet);
    run(a, do_free, full.blocks[0]);
    exit_to(a, PA_YIELD_LIST_OWNER_CLEARED); /* owner = 0, not yet linked */
    REQUIRE(!owner_of(full.span) && !full.span->listed);
    run(b, do_push, full.blocks[1]); /* may not claim */
    REQUIRE(!owner_of(full.span));
    let_go(a);
    join(a);
    REQUIRE(is_listed(full.span) && remote_head(full.span) == (uintptr_t)full.blocks[1]);
    void *again = run(b, do_malloc, (void *)nbytes); /* unlinks it, collected */
    REQUIRE(owner_of(full.span) == run(b, who_am_i, NULL) && pa_span_of(again) == full.span &&
            !remote_head(full.span));
    pa_free(again);
    free_rest(&full, 2);
    dismiss(b);
}

static void listing_in_the_middle_of_free(size_t nbytes)
{
    puppet *a = owner_with_full_span(nbytes), *b = new_puppet(&b_puppet);
    run(a, do_free, full.blocks[0]);
    run_to(b, PA_YIELD_FREE_BEFORE_PUSH, do_push, full.blocks[1]); /* has read an owned span's head */
    dismiss(a);
    REQUIRE(is_listed(full.span));
    let_go(b);
    finish(b);
    REQUIRE(is_listed(full.span) && remote_head(full.span) == (uintptr_t)full.blocks[1]);
    free_rest(&full, 2);
    dismiss(b);
}

static void free_in_the_middle_of_pop(size_t nbytes)
{
    list_full_less_one(nbytes);
    puppet *b = new_puppet(&b_puppet), *c = new_puppet(&c_puppet);
    run_to(b, PA_YIELD_POP_UNLINKED, do_malloc, (void *)nbytes); /* off the list, remote not yet collected */
    REQUIRE(!owner_of(full.span) && !full.span->listed);
    run(c, do_push, full.blocks[1]);
    REQUIRE(!owner_of(full.span) && remote_head(full.span) == (uintptr_t)full.blocks[1]);
    let_go(b);
    void *got = finish(b);
    REQUIRE(pa_span_of(got) == full.span && owner_of(full.span) == run(b, who_am_i, NULL));
    REQUIRE(full.span->live == full.count - 2 + 2, "live %u of %zu", full.span->live,
            full.count); /* + got + bias */
    pa_free(got);
    free_rest(&full, 2);
    dismiss(b);
    dismiss(c);
}

static void pop_in_the_middle_of_free(size_t nbytes)
{
    list_full_less_one(nbytes);
    puppet *b = new_puppet(&b_puppet), *c = new_puppet(&c_puppet);
    run_to(c, PA_YIELD_FREE_BEFORE_PUSH, do_push, full.blocks[1]);
    void *got = run(b, do_malloc, (void *)nbytes);
    REQUIRE(pa_span_of(got) == full.span);
    void *more = run(b, do_malloc, (void *)nbytes); /* full again: b abandons it under c's CAS */
    REQUIRE(pa_span_of(more) != full.span && is_abandoned(full.span));
    let_go(c);
    finish(c);
    REQUIRE(owner_of(full.span) == run(c, who_am_i, NULL));
    pa_free(got);
    pa_free(more);
    free_rest(&full, 2);
    dismiss(b);
    dismiss(c);
}

static void last_free_in_the_middle_of_pop(size_t nbytes)
{
    list_full_less_one(nbytes);
    puppet *b = new_puppet(&b_puppet), *c = new_puppet(&c_puppet);
    for (size_t i = 2; i < full.count; i++)
        run(c, do_push, full.blocks[i]);
    run_to(b, PA_YIELD_POP_UNLINKED, do_malloc, (void *)nbytes);
    if (full.count > 1)
        run(c, do_push, full.blocks[1]); /* the span is empty now: as good as any */
    let_go(b);
    void *got = finish(b);
    REQUIRE(pa_span_of(got) == full.span && full.span->live == 2, "live %u", full.span->live);
    pa_free(got);
    dismiss(b);
    dismiss(c);
}

/* ---- Free x thread exit ---- */

static void free_before_exit_releases(size_t nbytes)
{
    puppet *a = owner_with_full_span(nbytes), *b = new_puppet(&b_puppet);
    exit_to(a, PA_YIELD_EXIT_BEFORE_RELEASE);
    run(b, do_push, full.blocks[0]); /* to an owner that is about to go */
    REQUIRE(owner_of(full.span) && remote_head(full.span) == (uintptr_t)full.blocks[0]);
    let_go(a);
    join(a);
    REQUIRE(full.count == 1 || is_listed(full.span));
    free_rest(&full, 1);
    dismiss(b);
}

static void exit_in_the_middle_of_free(size_t nbytes)
{
    puppet *a = owner_with_full_span(nbytes), *b = new_puppet(&b_puppet);
    run_to(b, PA_YIELD_FREE_BEFORE_PUSH, do_push, full.blocks[0]);
    dismiss(a); /* the span was full: abandoned */
    REQUIRE(is_abandoned(full.span));
    let_go(b);
    finish(b);
    if (full.count > 1)
        REQUIRE(owner_of(full.span) == run(b, who_am_i, NULL));
    free_rest(&full, 1);
    dismiss(b);
}

static void free_while_exit_abandons(size_t nbytes)
{
    puppet *a = owner_with_full_span(nbytes), *b = new_puppet(&b_puppet);
    exit_to(a, PA_YIELD_ABANDON_OWNER_CLEARED);
    for (size_t i = 0; i < full.count; i++)
        run(b, do_push, full.blocks[i]); /* all of them: a takes back an empty span */
    let_go(a);
    join(a);
    REQUIRE(pa_span_of(full.blocks[0]) != full.span, "the exiting thread had to give it back");
    dismiss(b);
}

static void reuse_of_the_p_in_the_middle_of_free(size_t nbytes)
{
    puppet *a = owner_with_full_span(nbytes), *b = new_puppet(&b_puppet);
    pa_mcache *p = run(a, who_am_i, NULL);
    run_to(b, PA_YIELD_FREE_BEFORE_PUSH, do_push, full.blocks[0]);
    dismiss(a);
    puppet *c = new_puppet(&c_puppet); /* gets a's P: no span may take it for its owner */
    run(c, do_free, run(c, do_malloc, (void *)(uintptr_t)16));
    REQUIRE(run(c, who_am_i, NULL) == p && owner_of(full.span) != p);
    let_go(b);
    finish(b);
    run(c, do_free, full.blocks[1]);
    free_rest(&full, 2);
    dismiss(b);
    dismiss(c);
}

/* ---- Trim ---- */

static void trim_in_the_middle_of_free(size_t nbytes)
{
    puppet *a = owner_with_full_span(nbytes), *b = new_puppet(&b_puppet);
    for (size_t i = 1; i < full.count; i++)
        run(b, do_push, full.blocks[i]);
    run_to(b, PA_YIELD_FREE_BEFORE_PUSH, do_push, full.blocks[0]); /* the last live block */
    run(a, do_trim, NULL); /* collects all but that one: the span must stay */
    REQUIRE(pa_span_of(full.blocks[0]) == full.span && full.span->live == 2, "live %u", full.span->live);
    let_go(b);
    finish(b);
    run(a, do_trim, NULL);
    REQUIRE(pa_span_of(full.blocks[0]) != full.span, "the trim had to give it back");
    dismiss(a);
    dismiss(b);
}

static void collect_all_in_the_middle_of_free(size_t nbytes)
{
    list_full_less_one(nbytes);
    puppet *b = new_puppet(&b_puppet);
    for (size_t i = 2; i < full.count; i++)
        run(b, do_push, full.blocks[i]);
    run_to(b, PA_YIELD_FREE_BEFORE_PUSH, do_push, full.blocks[1]);
    pa_free_os_memory();
    REQUIRE(pa_span_of(full.blocks[1]) == full.span && is_listed(full.span));
    let_go(b);
    finish(b);
    pa_free_os_memory();
    REQUIRE(pa_span_of(full.blocks[1]) != full.span);
    dismiss(b);
}

/* ---- The outbox ---- */

static void the_span_becomes_mine_while_blocks_wait(size_t nbytes)
{
    puppet *a = owner_with_full_span(nbytes), *b = new_puppet(&b_puppet), *c = new_puppet(&c_puppet);
    run(b, do_free, full.blocks[0]); /* waits in b's outbox, also as far as a knows */
    REQUIRE(!remote_head(full.span) && full.span->live == full.count + 1);
    run(c, do_push, full.blocks[1]);
    dismiss(a); /* lists it */
    REQUIRE(is_listed(full.span));
    void *got = run(b, do_malloc, (void *)nbytes); /* b takes it from the list: its outbox is for itself now */
    REQUIRE(pa_span_of(got) == full.span && owner_of(full.span) == run(b, who_am_i, NULL));
    run(b, do_free, got);
    run(b, do_push, full.blocks[2]);
    REQUIRE(full.span->live == full.count - 3 + 1, "live %u of %zu", full.span->live, full.count); /* bias */
    free_rest(&full, 3);
    dismiss(b);
    dismiss(c);
}

static const struct {
    const char *name;
    void (*body)(size_t nbytes);
    size_t least_blocks;
} scenarios[] = {
#define SCENARIO(name, blocks) {#name, name, blocks}
    SCENARIO(free_in_the_middle_of_abandon, 1),
    SCENARIO(abandon_in_the_middle_of_free, 1),
    SCENARIO(free_in_the_middle_of_claim, 4),
    SCENARIO(two_freers_one_claim, 2),
    SCENARIO(claim_by_a_thread_that_exits, 3),
    SCENARIO(emptied_by_the_claim, 1),
    SCENARIO(free_in_the_middle_of_listing, 3),
    SCENARIO(listing_in_the_middle_of_free, 3),
    SCENARIO(free_in_the_middle_of_pop, 3),
    SCENARIO(pop_in_the_middle_of_free, 3),
    SCENARIO(last_free_in_the_middle_of_pop, 2),
    SCENARIO(free_before_exit_releases, 1),
    SCENARIO(exit_in_the_middle_of_free, 1),
    SCENARIO(free_while_exit_abandons, 1),
    SCENARIO(reuse_of_the_p_in_the_middle_of_free, 2),
    SCENARIO(trim_in_the_middle_of_free, 2),
    SCENARIO(collect_all_in_the_middle_of_free, 2),
    SCENARIO(the_span_becomes_mine_while_blocks_wait, 4),
};

/* Every scenario for every size; what exited threads leave is listed at once, or kept together first. */
static unsigned run_all(const char *only, bool together)
{
    static const size_t sizes[] = {48, 1024, 1792, 8192}; /* many, few and one block a span */
    unsigned count = 0;
    pa_the_heap.leavings.refused = !together;
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        if (only && strcmp(only, scenarios[i].name) != 0)
            continue;
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
            unsigned size_class = (unsigned)pa_size_class_of(sizes[k]);
            if (pa_class_shapes[size_class].objects < scenarios[i].least_blocks)
                continue;
            alarm(60); /* a puppet that never comes to its point is a failure, not a hang */
            fprintf(stderr, getenv("PROTOCOL_VERBOSE") ? "%s %zu\n" : "", scenarios[i].name, sizes[k]);
            scenarios[i].body(sizes[k]);
            heap_must_be_empty();
            count++;
        }
    }
    return count;
}

int main(int argc, char **argv)
{
    const char *only = argc > 1 ? argv[1] : NULL;
    atomic_store(&pa_yield_hook, hook);
    unsigned count = run_all(only, false) + run_all(only, true);
    REQUIRE(count > 0, "no such scenario");
    printf("protocol: %u interleavings\n", count);
    return 0;
}
