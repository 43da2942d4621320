/* snapshots.c - statistics while threads allocate, free for each other, give memory back and collect.
 *
 *     snapshots [snapshots [threads]]
 *
 * Every snapshot must add up, and what only grows must not have shrunk. When the threads stand, all counts
 * must be those of the blocks and objects that the program knows to be alive. Prints the median cost of a
 * snapshot.
 */
#include <time.h>

#include "heap/walk.h"
#include "stress.h"

enum { SLOTS = 512, THREADS_MAX = 16, HANDLES = 300 };

static _Atomic uintptr_t slots[SLOTS];
static _Atomic bool stop;

typedef struct worker {
    uint64_t random, managed_made, managed_bytes;
    pa_handle *handles[HANDLES];
} worker;

static worker workers[THREADS_MAX];

static void put(_Atomic uintptr_t *slot, void *p)
{
    pa_free((void *)atomic_exchange_explicit(slot, (uintptr_t)p, memory_order_acq_rel));
}

static void make_garbage(worker *w)
{
    REQUIRE(pa_enter());
    for (int i = 0; i < 100; i++) {
        size_t nbytes = 16 + random_below(&w->random, random_below(&w->random, 200) ? 500 : 60000);
        void *p = pa_new_bytes(nbytes);
        REQUIRE(p);
        w->managed_made++;
        w->managed_bytes += pa_object_bytes(p);
        pa_handle **h = &w->handles[random_below(&w->random, HANDLES)];
        if (*h)
            pa_handle_set(*h, p);
        else
            REQUIRE((*h = pa_handle_new(p)) != NULL);
    }
    pa_leave();
}

static void *churn(void *argument)
{
    worker *w = argument;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        for (int i = 0; i < 200; i++) {
            void *p = random_below(&w->random, 3) ? pa_malloc(random_size(&w->random)) : NULL;
            put(&slots[random_below(&w->random, SLOTS)], p);
        }
        make_garbage(w);
        if (random_below(&w->random, 400) == 0)
            pa_free_os_memory();
    }
    return NULL;
}

static void must_add_up(const pa_mem_stats *s)
{
    REQUIRE(s->sys == s->heap_sys + s->mspan_sys + s->mcache_sys + s->gc_sys + s->other_sys);
    REQUIRE(s->heap_sys == s->heap_idle + s->heap_inuse && s->heap_sys == s->arenas << PA_ARENA_SHIFT);
    REQUIRE(s->heap_inuse == s->explicit_inuse + s->managed_inuse);
    REQUIRE(s->heap_released <= s->heap_idle && s->heap_alloc <= s->heap_inuse);
    REQUIRE(s->explicit_alloc + s->explicit_cached <= s->explicit_inuse);
    REQUIRE(s->mspan_inuse <= s->mspan_sys && s->mcache_inuse <= s->mcache_sys && s->other_sys < s->sys);
    REQUIRE(s->frees <= s->mallocs && s->heap_objects == s->explicit_objects + s->mallocs - s->frees,
            "%" PRIu64 " mallocs %" PRIu64 " frees %" PRIu64 " objects", s->mallocs, s->frees, s->heap_objects);
    REQUIRE(s->spans_freed <= s->spans_allocated);
}

static void must_have_grown(const pa_snapshot *early, const pa_snapshot *late)
{
    pa_metric_info info;
    pa_metric_value a, b;
    for (int i = 0; pa_metric(i, &info); i++) {
        REQUIRE(pa_metric_of(early, i, &a) && pa_metric_of(late, i, &b));
        if (!info.cumulative)
            continue;
        REQUIRE(a.count <= b.count && a.real <= b.real, "%s: %" PRIu64 " then %" PRIu64, info.name, a.count, b.count);
        for (size_t k = 0; k < a.buckets; k++)
            REQUIRE(a.counts[k] <= b.counts[k], "%s, bucket %zu", info.name, k);
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- The slow way ---- */

typedef struct recount {
    uint64_t explicit_pages, cached_pages, managed_pages, managed_objects, managed_bytes;
} recount;

static bool add(void *context, const pa_span_view *v)
{
    recount *r = context;
    *(v->state == PA_SPAN_MANUAL    ? &r->explicit_pages
      : v->state == PA_SPAN_CACHED  ? &r->cached_pages
                                    : &r->managed_pages) += v->npages;
    if (v->state == PA_SPAN_MANAGED) {
        r->managed_objects += v->live;
        size_t slot_bytes = v->size_class ? pa_class_object_bytes[v->size_class] : v->npages * PA_PAGE_BYTES;
        r->managed_bytes += v->live * slot_bytes;
    }
    return true;
}

static void must_be_exact(long threads)
{
    pa_snapshot s;
    recount r = {0};
    uint64_t blocks = 0, block_bytes = 0, made = 0, made_bytes = 0, class_mallocs = 0, class_frees = 0;
    pa_read_snapshot(&s);
    must_add_up(&s.mem);
    pa_heap_walk(&pa_the_heap, add, &r);
    for (int i = 0; i < SLOTS; i++) {
        void *p = (void *)atomic_load(&slots[i]);
        blocks += p != NULL;
        block_bytes += p ? pa_usable_size(p) : 0;
    }
    for (long i = 0; i < threads; i++) {
        made += workers[i].managed_made;
        made_bytes += workers[i].managed_bytes;
    }
    for (int c = 0; c < PA_SIZE_CLASSES; c++) {
        class_mallocs += s.classes[c].managed_mallocs;
        class_frees += s.classes[c].managed_frees;
    }
    REQUIRE(s.mem.explicit_objects == blocks, "%" PRIu64 " not %" PRIu64, s.mem.explicit_objects, blocks);
    REQUIRE(s.mem.explicit_alloc == block_bytes, "%" PRIu64 " not %" PRIu64, s.mem.explicit_alloc, block_bytes);
    REQUIRE(s.mem.mallocs == made && s.mem.total_alloc == made_bytes, "%" PRIu64 " not %" PRIu64 ", %" PRIu64
            " bytes not %" PRIu64, s.mem.mallocs, made, s.mem.total_alloc, made_bytes);
    REQUIRE(class_mallocs == made && class_frees == s.mem.frees);
    REQUIRE(s.mem.mallocs - s.mem.frees == r.managed_objects, "%" PRIu64 " not %" PRIu64,
            s.mem.mallocs - s.mem.frees, r.managed_objects);
    REQUIRE(s.mem.heap_alloc - s.mem.explicit_alloc == r.managed_bytes);
    REQUIRE(s.mem.managed_inuse == r.managed_pages << PA_PAGE_SHIFT);
    REQUIRE(s.mem.explicit_inuse == (r.explicit_pages + r.cached_pages) << PA_PAGE_SHIFT);
    REQUIRE(s.mem.explicit_cached == r.cached_pages << PA_PAGE_SHIFT);
}

/* A thread that frees and allocates after its P is gone: the orphan serves it, which is no off-heap memory. */
static pthread_key_t late_key;

static void late(void *round)
{
    pa_mem_stats before, after;
    if (round == (void *)1) { /* again, after the library's own destructor */
        REQUIRE(pthread_setspecific(late_key, (void *)2) == 0);
        return;
    }
    pa_read_mem_stats(&before);
    pa_free(pa_malloc(100));
    pa_read_mem_stats(&after);
    must_add_up(&after);
    REQUIRE(after.mcache_sys == before.mcache_sys && after.threads == before.threads);
}

static void *exit_late(void *argument)
{
    pa_free(pa_malloc(100));
    REQUIRE(pthread_setspecific(late_key, (void *)1) == 0);
    return argument;
}

static void use_orphan(void)
{
    pthread_t id;
    REQUIRE(pthread_key_create(&late_key, late) == 0);
    REQUIRE(pthread_create(&id, NULL, exit_late, NULL) == 0 && pthread_join(id, NULL) == 0);
}

int main(int argc, char **argv)
{
    static pa_snapshot early, late;
    static uint64_t ns[1000000];
    long count = argument(argc, argv, 1, 10000), threads = argument(argc, argv, 2, 4);
    pthread_t ids[THREADS_MAX];
    REQUIRE(count >= 2 && count <= 1000000 && threads >= 1 && threads <= THREADS_MAX);
    use_orphan();
    for (long i = 0; i < threads; i++) {
        workers[i].random = (uint64_t)i + 1;
        REQUIRE(pthread_create(&ids[i], NULL, churn, &workers[i]) == 0);
    }
    pa_read_snapshot(&early);
    for (long i = 0; i < count; i++) {
        uint64_t before_ns = now_ns();
        pa_read_snapshot(&late);
        ns[i] = now_ns() - before_ns;
        must_add_up(&late.mem);
        must_have_grown(&early, &late);
        early = late;
    }
    atomic_store(&stop, true);
    for (long i = 0; i < threads; i++)
        REQUIRE(pthread_join(ids[i], NULL) == 0);
    pa_gc(); /* and swept */
    must_be_exact(threads);
    qsort(ns, (size_t)count, sizeof *ns, compare);
    for (int i = 0; i < SLOTS; i++)
        put(&slots[i], NULL);
    heap_must_be_whole();
    printf("snapshots: %ld with %ld threads, median %" PRIu64 " ns, 99 %% %" PRIu64 " ns, %" PRIu64 " cycles\n", count,
           threads, ns[count / 2], ns[count * 99 / 100], late.gc.cycles);
    return 0;
}
