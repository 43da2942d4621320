/* export_plant.c - corruptions of a live heap, one field at a time, and their repair.
 *
 * Test builds only.  Owns nothing that outlives a call; the calling thread must be alone in the heap, so no lock
 * is taken.  A check that cannot fail checks nothing: every invariant that heap/check.c names has a plant
 * here that
 * breaks that one and, as far as the order of its tests allows, no other.  Each plant is its own inverse
 * under `undo`.
 */
#include "export/export_plant.h"

#include <pthread.h>
#include <string.h>

#include "base/assert.h"
#include "heap/mcache.h"
#include "heap/remote.h"
#include "include/pyalloc.h"
#include "sys/vm.h"
#include "world/proc.h"

enum { SIZE_BYTES = 512, FULL_BYTES = 1024, LISTED_BYTES = 768, LARGE_BYTES = 200000, MAX_BLOCKS = 600 };

typedef struct scene {
    pa_mcache *cache;
    pa_span *current;   /* of the caller, with live and with free blocks */
    pa_span *partial;   /* of the caller */
    pa_span *abandoned; /* full */
    pa_span *listed;    /* left by a thread that exited */
    pa_span *cached, *large;
    void *blocks[MAX_BLOCKS];
    size_t count;
} scene;

static void *keep(scene *s, void *p)
{
    PA_CHECK(p && s->count < MAX_BLOCKS);
    return s->blocks[s->count++] = p;
}

/* Allocates until a span is full, and one block more, so that it is given up. */
static pa_span *fill_one_span(scene *s, size_t nbytes)
{
    pa_span *seen = NULL;
    for (size_t taken = 0;;) {
        pa_span *of = pa_span_of(keep(s, pa_malloc(nbytes)));
        taken = of == seen ? taken + 1 : 1;
        seen = of;
        if (taken == (of->limit - of->base) / pa_span_element_bytes(of))
            break;
    }
    keep(s, pa_malloc(nbytes));
    return seen;
}

static void *allocate_and_exit(void *argument)
{
    scene *s = argument;
    s->listed = pa_span_of(keep(s, pa_malloc(LISTED_BYTES)));
    return NULL;
}

static void build(scene *s)
{
    *s = (scene){0};
    pa_free_os_memory();
    s->partial = fill_one_span(s, SIZE_BYTES);
    for (size_t i = 0; i < s->count; i++) { /* one block of it comes back: claimed, then partial */
        if (pa_span_of(s->blocks[i]) == s->partial) {
            pa_free(s->blocks[i]);
            s->blocks[i] = s->blocks[--s->count];
            break;
        }
    }
    s->cache = pa_current_mcache;
    pa_mcache_flush_outbox(s->cache);
    s->current = s->cache->current[pa_class_of_size(SIZE_BYTES)];
    s->abandoned = fill_one_span(s, FULL_BYTES);
    s->large = pa_span_of(keep(s, pa_malloc(LARGE_BYTES)));
    void *p = pa_malloc(LARGE_BYTES);
    s->cached = pa_span_of(p);
    pa_free(p);
    pthread_t id;
    pa_the_heap.leavings.refused = true; /* its span is to be on mcentral's list */
    PA_CHECK(pthread_create(&id, NULL, allocate_and_exit, s) == 0 && pthread_join(id, NULL) == 0);
    pa_the_heap.leavings.refused = false;

    PA_CHECK(atomic_load(&s->partial->owner) == s->cache && s->partial != s->current);
    PA_CHECK(atomic_load(&s->current->owner) == s->cache && s->current->free);
    PA_CHECK(!atomic_load(&s->abandoned->owner) && !s->abandoned->listed);
    PA_CHECK(s->listed->listed && pa_span_state_racy(s->cached) == PA_SPAN_CACHED);
}

static void clear(scene *s)
{
    while (s->count)
        pa_free(s->blocks[--s->count]);
    pa_free_os_memory();
}

/* ---- Plants ---- */

static int sign(bool undo)
{
    return undo ? -1 : 1;
}

/* Swaps *field with a value kept here: called twice, it is as before. */
static void swap_pointer(void **field, void *value, bool undo)
{
    static void *saved;
    if (!undo) {
        saved = *field;
        *field = value;
    } else {
        *field = saved;
    }
}

static void limit_moved(scene *s, bool undo)
{
    s->current->limit += (uintptr_t)sign(undo) * SIZE_BYTES;
}

static void tail_behind_limit(scene *s, bool undo)
{
    s->partial->tail += (uintptr_t)sign(undo) * SIZE_BYTES; /* it was full: the tail was the limit */
}

static void free_list_interior(scene *s, bool undo)
{
    *(char **)s->current->free += sign(undo) * 8;
}

static void free_list_loops(scene *s, bool undo)
{
    swap_pointer((void **)s->current->free, s->current->free, undo);
}

static void free_list_leaves(scene *s, bool undo)
{
    swap_pointer((void **)s->current->free, s->blocks, undo);
}

static void remote_interior(scene *s, bool undo)
{
    atomic_store(&s->partial->remote, undo ? 0 : s->partial->base + 8);
}

/* The page of a free block is out, and the block is still there. */
static void out_and_listed(scene *s, bool undo)
{
    (void)undo;
    s->current->aside ^= (uint64_t)1 << (((uintptr_t)s->current->free - s->current->base) / pa_vm_page_size_bytes());
}

static void aside_and_hollow(scene *s, bool undo)
{
    (void)undo;
    s->current->aside ^= 1;
    s->current->hollow ^= 1;
}

static void out_not_carved(scene *s, bool undo)
{
    (void)undo;
    s->current->hollow ^= (uint64_t)1 << 63;
}

static void large_with_out(scene *s, bool undo)
{
    (void)undo;
    s->large->aside ^= 1;
}

static void hollow_bytes(scene *s, bool undo)
{
    (void)s;
    atomic_fetch_add(&pa_the_heap.hollow_bytes, (uint64_t)sign(undo) * PA_PAGE_BYTES);
}

static void live_too_high(scene *s, bool undo)
{
    s->partial->live += (uint32_t)sign(undo);
}
static void live_too_low(scene *s, bool undo)
{
    s->partial->live -= (uint32_t)sign(undo);
}
static void owned_and_unowned(scene *s, bool undo)
{
    atomic_store(&s->partial->remote, undo ? 0 : PA_REMOTE_UNOWNED);
}
static void owned_and_listed(scene *s, bool undo)
{
    s->partial->listed = !undo;
}

static void nobodys(scene *s, bool undo)
{
    atomic_store(&s->abandoned->remote, undo ? PA_REMOTE_UNOWNED : 0);
}

static void listed_and_abandoned(scene *s, bool undo)
{
    s->abandoned->listed = !undo;
}

static void abandoned_not_full(scene *s, bool undo)
{
    s->abandoned->tail -= (uintptr_t)sign(undo) * FULL_BYTES;
    s->abandoned->live -= (uint32_t)sign(undo);
}

static void sampled_among_others(scene *s, bool undo)
{
    atomic_store(&s->abandoned->sample, !undo);
}

static pa_span **entry_of(pa_span *s, size_t page)
{
    return &pa_space.table[((s->base - pa_space.base) >> PA_PAGE_SHIFT) + page];
}

static void page_lost_its_span(scene *s, bool undo)
{
    *entry_of(s->large, 3) = undo ? s->large : NULL;
}
static void page_of_another_span(scene *s, bool undo)
{
    *entry_of(s->large, 3) = undo ? s->large : s->current;
}
static void class_out_of_range(scene *s, bool undo)
{
    s->large->size_class = undo ? 0 : PA_SIZE_CLASSES;
}
static void large_live_twice(scene *s, bool undo)
{
    s->large->live += (uint32_t)sign(undo);
}
static void large_tail(scene *s, bool undo)
{
    s->large->tail -= (uintptr_t)sign(undo) * 16;
}
static void cached_of_a_class(scene *s, bool undo)
{
    s->cached->size_class = undo ? 0 : 5;
}
static void cached_owned(scene *s, bool undo)
{
    atomic_store(&s->cached->owner, undo ? NULL : s->cache);
}

static pa_mcentral *central_of(pa_span *s)
{
    return &pa_the_heap.central[PA_KIND_EXPLICIT][s->size_class];
}

static void listed_of_another_kind(scene *s, bool undo)
{
    s->listed->kind = undo ? PA_KIND_EXPLICIT : PA_KIND_SCAN;
}

static void listed_with_owner(scene *s, bool undo)
{
    atomic_store(&s->listed->owner, undo ? NULL : s->cache);
    s->listed->listed = undo;   /* else the walk over the spans sees it first */
}

static void list_links(scene *s, bool undo)
{
    swap_pointer((void **)&central_of(s->listed)->nonempty.last, s->large, undo);
}
static void list_count(scene *s, bool undo)
{
    central_of(s->listed)->nonempty_count += (uint32_t)sign(undo);
}

static void lists_count(scene *s, bool undo)
{
    (void)s;
    atomic_fetch_add(&pa_the_heap.listed_explicit, (uint32_t)sign(undo));
}

static void leavings_of_a_class(scene *s, bool undo)
{
    pa_the_heap.leavings.count_of[s->listed->size_class] += (uint32_t)sign(undo);
}

static void leavings_count(scene *s, bool undo)
{
    (void)s;
    pa_the_heap.leavings.count += (uint32_t)sign(undo);
}

/* The current span of a class also stands as current of another. */
static void current_of_another_class(scene *s, bool undo)
{
    swap_pointer((void **)&s->cache->current[PA_SIZE_CLASSES - 1], s->current, undo);
}

static void partial_is_current(scene *s, bool undo)
{
    pa_spanlist *l = &s->cache->partial[s->current->size_class];
    if (undo)
        pa_spanlist_remove(l, s->current);
    else
        pa_spanlist_push_back(l, s->current);
}

static void direct_entry(scene *s, bool undo)
{
    s->cache->direct[SIZE_BYTES / 8] = undo ? s->current : PA_EMPTY_SPAN;
}

static void bin_pages(scene *s, bool undo)
{
    s->cache->bin_room_pages += (int32_t)sign(undo);
}

static void binned_in_use(scene *s, bool undo)
{
    pa_span_set_state(s->cached, undo ? PA_SPAN_CACHED : PA_SPAN_MANUAL);
}

static void inuse_pages(scene *s, bool undo)
{
    atomic_fetch_add(&pa_the_heap.inuse_pages, (uint64_t)(int64_t)sign(undo));
}

static void lost_page(scene *s, bool undo)
{
    static uintptr_t page;
    size_t scavenged_pages;
    pa_lock_acquire(&pa_the_heap.lock);
    if (!undo)
        page = pa_pagealloc_alloc(&pa_the_heap.pages, 1, &scavenged_pages);
    else
        pa_pagealloc_free(&pa_the_heap.pages, page, 1);
    pa_lock_release(&pa_the_heap.lock);
}

static void page_counter(scene *s, bool undo)
{
    pa_the_heap.pages.free_pages += (uint64_t)(int64_t)sign(undo);
}

static const struct {
    const char *name;
    void (*plant)(scene *s, bool undo);
} plants[] = {
#define PLANT(name) {#name, name}
    PLANT(limit_moved),
    PLANT(tail_behind_limit),
    PLANT(free_list_interior),
    PLANT(free_list_loops),
    PLANT(free_list_leaves),
    PLANT(remote_interior),
    PLANT(out_and_listed),
    PLANT(aside_and_hollow),
    PLANT(out_not_carved),
    PLANT(large_with_out),
    PLANT(hollow_bytes),
    PLANT(live_too_high),
    PLANT(live_too_low),
    PLANT(owned_and_unowned),
    PLANT(owned_and_listed),
    PLANT(nobodys),
    PLANT(listed_and_abandoned),
    PLANT(abandoned_not_full),
    PLANT(sampled_among_others),
    PLANT(page_lost_its_span),
    PLANT(page_of_another_span),
    PLANT(class_out_of_range),
    PLANT(large_live_twice),
    PLANT(large_tail),
    PLANT(cached_of_a_class),
    PLANT(cached_owned),
    PLANT(listed_of_another_kind),
    PLANT(listed_with_owner),
    PLANT(list_links),
    PLANT(list_count),
    PLANT(lists_count),
    PLANT(leavings_of_a_class),
    PLANT(leavings_count),
    PLANT(current_of_another_class),
    PLANT(partial_is_current),
    PLANT(direct_entry),
    PLANT(bin_pages),
    PLANT(binned_in_use),
    PLANT(inuse_pages),
    PLANT(lost_page),
    PLANT(page_counter),
};

const char *pa_xplant_name(unsigned plant)
{
    return plant < sizeof plants / sizeof *plants ? plants[plant].name : NULL;
}

int pa_xplant(unsigned plant, char *message, size_t capacity)
{
    scene s;
    build(&s);
    char after[200];
    if (pa_heap_check(message, capacity) != 0)
        return -1;
    plants[plant].plant(&s, false);
    int broken = pa_heap_check(message, capacity);
    plants[plant].plant(&s, true);
    clear(&s);
    if (pa_heap_check(after, sizeof after) != 0) {
        strncpy(message, after, capacity - 1);
        return -1;
    }
    return broken;
}
