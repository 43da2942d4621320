/* hollow.c - OS pages inside spans: out of use, to the OS, and back.
 *
 * Owns the masks `aside` and `hollow` of the spans that it is given, and pa_heap.hollow_bytes.  Locks: hollow.h;
 * mheap's for what a release counts.
 *
 * A page may go when the free blocks that touch it cover it.  They are found by one walk over the free list that adds
 * up bytes a page; blocks that are off the list already count as well, so that a page between two that are out
 * goes, too.  A second walk takes the blocks off.  Nothing of a block remains but the masks, so the free list's links,
 * which lie in the pages, may vanish with them.
 *
 * Invariants: aside and hollow are disjoint, and all of their pages lie in the span; no block on `free` or `remote`
 * touches one of them; carved == free + live + off the list (heap/check.c).
 *
 * With keep_head the owner may push blocks in front of the list while we work on what is behind its head: it writes
 * the link of its own block and `free`, never a link of a block in the list.  It stores `free` with release, so
 * whoever loads it with acquire sees every link behind.
 *
 * Where the kernel was told to use huge pages (heap/gcside.c) it would fill the holes again: there it is done only
 * where small blocks asked for them (PYALLOC_HUGE_PAGES), and the huge page is forbidden first.  Large managed heaps
 * and arrays keep theirs; a split one would cost their owners more than a page.
 * Idea: TCMalloc's subrelease of partly used huge pages, a level down; and Go's scavenged bit, for pages of a span.
 */
#include "heap/hollow.h"

#include "base/bits.h"
#include "base/options.h"
#include "base/poison.h"
#include "heap/gcside.h"
#include "heap/release.h"
#include "sys/vm.h"

enum { MASK_PAGES = 64, FETCH_MOST_BYTES = 512, FETCHED_A_MISS = 4 };
#define NONE UINT32_MAX

/* A span as elements and OS pages. */
typedef struct grid {
    uintptr_t base, first_page; /* of the span; start of the OS page that it begins in */
    size_t size, page_bytes;
    unsigned page_shift;
    uint32_t carved;            /* elements */
} grid;

static grid grid_of(const pa_span *s)
{
    size_t page_bytes = pa_vm_page_size_bytes(), size = pa_class_object_bytes[s->size_class];
    uintptr_t tail = pa_racy_load(&s->tail);
    return (grid){.base = s->base,
                  .first_page = pa_round_down(s->base, page_bytes),
                  .size = size,
                  .page_bytes = page_bytes,
                  .page_shift = pa_log2_floor(page_bytes),
                  .carved = (uint32_t)((tail - s->base) / size)};
}

static uintptr_t element_at(const grid *g, uint32_t i)
{
    return g->base + i * g->size;
}

static uint64_t bits(unsigned first, unsigned last)
{
    return pa_mask64(last + 1) & ~pa_mask64(first);
}

static uint64_t pages_of(const grid *g, uintptr_t block)
{
    uintptr_t from = block - g->first_page;
    return bits((unsigned)(from >> g->page_shift), (unsigned)((from + g->size - 1) >> g->page_shift));
}

/* The first carved element from `from` on that touches a page of mask; NONE. */
static uint32_t next_touching(const grid *g, uint64_t mask, uint32_t from)
{
    for (uint32_t i = from; i < g->carved;) {
        uint64_t own = pages_of(g, element_at(g, i));
        if (mask & own)
            return i;
        mask &= ~pa_mask64(pa_ctz64(own));
        if (mask == 0)
            return NONE;
        i = (uint32_t)((g->first_page + ((uintptr_t)pa_ctz64(mask) << g->page_shift) - g->base) / g->size);
    }
    return NONE;
}

bool pa_span_is_out(const pa_span *s, uintptr_t block)
{
    grid g = grid_of(s);
    return (s->aside | s->hollow) & pages_of(&g, block);
}

uint32_t pa_span_count_out(const pa_span *s)
{
    uint64_t out = s->aside | s->hollow;
    uint32_t n = 0;
    if (out == 0)
        return 0;
    grid g = grid_of(s);
    for (uint32_t i = next_touching(&g, out, 0); i != NONE; i = next_touching(&g, out, i + 1))
        n++;
    return n;
}

bool pa_span_holds_out(const pa_span *s)
{
    grid g = grid_of(s);
    unsigned first = s->base != g.first_page, end = (unsigned)((s->tail - g.first_page) >> g.page_shift);
    return ((s->aside | s->hollow) & ~(pa_mask64(end) & ~pa_mask64(first))) == 0;
}

size_t pa_span_hollow_bytes(const pa_span *s)
{
    return (size_t)pa_popcount64(s->hollow) << pa_log2_floor(pa_vm_page_size_bytes());
}

bool pa_span_is_page_hollow(const pa_span *s, uintptr_t at)
{
    grid g = grid_of(s);
    uintptr_t from = at - g.first_page;
    uint64_t own = bits((unsigned)(from >> g.page_shift), (unsigned)((from + PA_PAGE_BYTES - 1) >> g.page_shift));
    return (s->hollow & own) == own;
}

static void set_hollow(pa_heap *h, pa_span *s, uint64_t hollow)
{
    size_t before = pa_span_hollow_bytes(s);
    s->hollow = hollow;
    atomic_fetch_add_explicit(&h->hollow_bytes, pa_span_hollow_bytes(s) - before, memory_order_relaxed);
}

void pa_span_forget_out(pa_heap *h, pa_span *s)
{
    if (s->hollow)
        set_hollow(h, s, 0);
    s->aside = 0;
}

/* ---- Out ---- */

static void add_block(const grid *g, uintptr_t block, uint32_t *page_bytes)
{
    uintptr_t from = block - g->first_page, end = from + g->size;
    while (from < end) {
        uintptr_t page = from >> g->page_shift, next = (page + 1) << g->page_shift;
        page_bytes[page] += (uint32_t)((next < end ? next : end) - from);
        from = next;
    }
}

/* The free list goes through the span in any order: a cache miss a block, one after the other, unless the lines are on
 * their way before. Nothing is read of pages that went back. */
static void fetch(const pa_span *s, const grid *g)
{
    uintptr_t end = g->base + g->carved * g->size;
    for (uintptr_t page = g->first_page; page < end; page += g->page_bytes) {
        if (s->hollow >> ((page - g->first_page) >> g->page_shift) & 1)
            continue;
        uintptr_t from = page > g->base ? page : g->base, to = page + g->page_bytes < end ? page + g->page_bytes : end;
        for (; from < to; from += PA_CACHE_LINE_BYTES)
            __builtin_prefetch((const void *)from);
    }
}

/* Pages that free blocks cover, those that are out already among them. */
static uint64_t covered_pages(const grid *g, uint64_t out, uintptr_t first_free, uint32_t *blocks)
{
    uint32_t page_bytes[MASK_PAGES] = {0};
    uint64_t covered = 0;
    for (uintptr_t b = first_free; b; b = (uintptr_t)pa_link_get((void *)b), (*blocks)++)
        add_block(g, b, page_bytes);
    for (uint32_t i = out ? next_touching(g, out, 0) : NONE; i != NONE; i = next_touching(g, out, i + 1))
        add_block(g, element_at(g, i), page_bytes);
    for (unsigned page = 0; page < MASK_PAGES; page++)
        covered |= (uint64_t)(page_bytes[page] == g->page_bytes) << page;
    return covered;
}

/* Unlinks what touches mask behind a block that does not, or (NULL) from the list's head on. */
static void unlink_behind(pa_span *s, const grid *g, uint64_t mask, uintptr_t kept)
{
    uintptr_t next = kept ? (uintptr_t)pa_link_get((void *)kept) : (uintptr_t)s->free;
    while (next) {
        uintptr_t b = next;
        while (b && (mask & pages_of(g, b)))
            b = (uintptr_t)pa_link_get((void *)b);
        if (b != next && kept)
            pa_link_set((void *)kept, (void *)b);
        else if (b != next)
            pa_owner_set(&s->free, (void *)b);
        kept = b;
        next = b ? (uintptr_t)pa_link_get((void *)b) : 0;
    }
}

uint32_t pa_span_set_aside(pa_span *s, bool keep_head)
{
    uint32_t blocks = 0;
    grid g = grid_of(s);
    if (g.first_page + ((uintptr_t)MASK_PAGES << g.page_shift) < s->limit ||
        (!pa_the_options.huge_pages && pa_gcside_is_advised(s->base)))
        return 0;
    uintptr_t head = (uintptr_t)__atomic_load_n(&s->free, __ATOMIC_ACQUIRE);
    if (!head)
        return 0;
    uint64_t out = s->aside | s->hollow;
    bool fetched = g.size <= FETCH_MOST_BYTES && pa_racy_load(&s->live) <= g.carved / 2;
    if (fetched)
        fetch(s, &g);
    uint64_t found = covered_pages(&g, out, head, &blocks) & ~out;
    if (keep_head)
        found &= ~pages_of(&g, head);
    uint32_t misses = fetched ? blocks / FETCHED_A_MISS + 1 : blocks;
    if (found == 0)
        return misses;
    unlink_behind(s, &g, found, keep_head ? head : 0);
    s->aside |= found;
    return 2 * misses;
}

/* ---- Back ---- */

/* The pages are out no longer: links the blocks that touch none that is, in address order, in front of the list or,
 * with keep_head, behind its first block. */
static void put_back(pa_heap *h, pa_span *s, uint64_t pages, bool keep_head)
{
    grid g = grid_of(s);
    uint64_t out = (s->aside | s->hollow) & ~pages;
    void *first = NULL, *last = NULL;
    for (uint32_t i = next_touching(&g, pages, 0); i != NONE; i = next_touching(&g, pages, i + 1)) {
        void *b = (void *)element_at(&g, i);
        if (out & pages_of(&g, (uintptr_t)b))
            continue;
        if (last)
            pa_link_set(last, b);
        else
            first = b;
        last = b;
    }
    s->aside &= ~pages;
    if (s->hollow & pages)
        set_hollow(h, s, s->hollow & ~pages);
    if (!last)
        return;
    void *head = keep_head ? __atomic_load_n(&s->free, __ATOMIC_ACQUIRE) : NULL;
    pa_link_set(last, head ? pa_link_get(head) : s->free);
    if (head)
        pa_link_set(head, first);
    else
        pa_owner_set(&s->free, first);
}

bool pa_span_fill(pa_heap *h, pa_span *s)
{
    uint64_t from = s->aside ? s->aside : s->hollow;
    if (from == 0)
        return false;
    grid g = grid_of(s);
    uint32_t i = next_touching(&g, (uint64_t)1 << pa_ctz64(from), 0);
    PA_CHECK(i != NONE);
    put_back(h, s, (s->aside | s->hollow) & pages_of(&g, element_at(&g, i)), false);
    return true;
}

size_t pa_span_give_aside(pa_heap *h, pa_span *s, bool keep_head, pa_release_reason reason)
{
    grid g = grid_of(s);
    uint64_t given = 0, refused = 0;
    for (uint64_t left = s->aside; left;) {
        unsigned first = pa_ctz64(left);
        unsigned n = ~(left >> first) ? pa_ctz64(~(left >> first)) : MASK_PAGES;
        uint64_t run = bits(first, first + n - 1);
        uintptr_t at = g.first_page + ((uintptr_t)first << g.page_shift);
        left &= ~run;
        pa_gcside_forbid_huge(at, (size_t)n << g.page_shift);
        if (pa_release_inside(h, at, (size_t)n << g.page_shift, reason))
            given |= run;
        else
            refused |= run;
    }
    s->aside &= ~given;
    if (given)
        set_hollow(h, s, s->hollow | given);
    /* Without a head to link them behind they stay aside: `free` is its owner's to write (a span that was current till
     * then can have pages aside and no block on the list). */
    if (refused && (!keep_head || __atomic_load_n(&s->free, __ATOMIC_ACQUIRE)))
        put_back(h, s, refused, keep_head);
    return (size_t)pa_popcount64(given) << g.page_shift;
}
