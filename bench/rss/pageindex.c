/* pageindex.c - threads take and give back runs of 1 to 8 pages: from a treap, the radix bitmap, or
 * per-thread page caches.
 *
 *     pageindex WHICH THREADS PAIRS LAYOUT     WHICH: treap, radix, cached; LAYOUT: fresh, fragmented
 *
 * Addresses are fake: only metadata is touched. A gigabyte is empty, or three quarters of it are filled with
 * runs of 1 to 16 pages of which a random half is given back first. A pair gives back one of a thread's runs
 * and takes another; one mutex guards the whole index, as in Go. The page caches are those of csrc/pages: 64
 * pages at a time under the lock, then none for small runs; runs go back under the lock in all three. A byte
 * a page finds runs that overlap. Prints one JSON object.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "observe.h"
#include "pages/pagealloc.h"
#include "pages/pagecache.h"
#include "treap.h"

enum { PAGES = 1 << 17, RUNS_A_THREAD = 64, THREADS_MAX = 16, LONGEST = 8 };
static const uintptr_t window_base = (uintptr_t)0xc0 << 32;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t acquisitions;
static int use_treap, use_cache;
static treap tree;
static pa_pagealloc radix;
static _Atomic unsigned char taken[PAGES];

typedef struct run {
    size_t first, npages;
} run;

typedef struct worker {
    pthread_t thread;
    uint64_t random, pairs;
    run runs[RUNS_A_THREAD];
    pa_pagecache cache;
} worker;

static void *map(void *context, size_t nbytes)
{
    void *p = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static bool commit(void *context, void *addr, size_t nbytes)
{
    return true;
}

static const pa_page_hooks hooks = {.reserve = map, .commit = commit};

static size_t page_of(uintptr_t addr)
{
    return addr ? (addr - window_base) >> PA_PAGE_SHIFT : SIZE_MAX;
}

static size_t take_locked(size_t npages)
{
    size_t scavenged;
    acquisitions++;
    return use_treap ? treap_alloc(&tree, npages) : page_of(pa_pagealloc_alloc(&radix, npages, &scavenged));
}

static size_t take_cached(worker *w, size_t npages)
{
    size_t scavenged;
    uintptr_t addr = pa_pagecache_alloc(&w->cache, npages, &scavenged);
    if (addr)
        return page_of(addr);
    pthread_mutex_lock(&lock);
    if (w->cache.free == 0) {
        acquisitions++;
        w->cache = pa_pagealloc_alloc_to_cache(&radix);
        addr = pa_pagecache_alloc(&w->cache, npages, &scavenged);
    }
    size_t first = addr ? page_of(addr) : take_locked(npages);
    pthread_mutex_unlock(&lock);
    return first;
}

static run take(worker *w, size_t npages)
{
    size_t first;
    if (use_cache) {
        first = take_cached(w, npages);
    } else {
        pthread_mutex_lock(&lock);
        first = take_locked(npages);
        pthread_mutex_unlock(&lock);
    }
    if (first == SIZE_MAX || first + npages > PAGES)
        give_up("pageindex: out of pages");
    for (size_t i = first; i < first + npages; i++)
        if (atomic_exchange_explicit(&taken[i], 1, memory_order_relaxed))
            give_up("pageindex: runs overlap");
    return (run){first, npages};
}

static void give(run r)
{
    for (size_t i = r.first; i < r.first + r.npages; i++)
        atomic_store_explicit(&taken[i], 0, memory_order_relaxed);
    pthread_mutex_lock(&lock);
    acquisitions++;
    if (use_treap)
        treap_free(&tree, r.first, r.npages);
    else
        pa_pagealloc_free(&radix, window_base + (r.first << PA_PAGE_SHIFT), r.npages);
    pthread_mutex_unlock(&lock);
}

static void *work(void *argument)
{
    worker *w = argument;
    for (uint64_t i = 0; i < w->pairs; i++) {
        run *r = &w->runs[next_random(&w->random) % RUNS_A_THREAD];
        if (r->npages)
            give(*r);
        *r = take(w, 1 + (size_t)(next_random(&w->random) % LONGEST));
    }
    return NULL;
}

/* Three quarters in runs of 1 to 16 pages, a random half of which is given back. */
static void fragment(worker *w)
{
    static run all[PAGES];
    size_t count = 0, used = 0;
    int cache = use_cache;
    use_cache = 0;
    while (used < PAGES / 4 * 3) {
        size_t npages = 1 + (size_t)(next_random(&w->random) % 16);
        all[count++] = take(w, npages);
        used += npages;
    }
    for (size_t i = 0; i < count; i++)
        if (next_random(&w->random) & 1)
            give(all[i]);
    use_cache = cache;
}

int main(int argc, char **argv)
{
    static worker workers[THREADS_MAX], first;
    int threads = argc == 5 ? atoi(argv[2]) : 0;
    if (threads < 1 || threads > THREADS_MAX)
        return 2;
    use_treap = strcmp(argv[1], "treap") == 0;
    use_cache = strcmp(argv[1], "cached") == 0;
    if (use_treap) {
        tree.at = map(NULL, (PAGES + 2) * sizeof *tree.at);
        treap_insert(&tree, 0, PAGES);
    } else if (!pa_pagealloc_init(&radix, window_base, 47, &hooks) ||
               !pa_pagealloc_grow(&radix, window_base, (size_t)PAGES << PA_PAGE_SHIFT)) {
        give_up("pagealloc");
    }
    first.random = 11;
    if (strcmp(argv[4], "fragmented") == 0)
        fragment(&first);
    uint64_t pairs = (uint64_t)atoll(argv[3]) / (uint64_t)threads, before = acquisitions, from_ns = now_ns(),
             from_cpu_ns = cpu_ns();
    for (int i = 0; i < threads; i++) {
        workers[i].random = (uint64_t)i;
        workers[i].pairs = pairs;
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
            give_up("pthread_create");
    }
    for (int i = 0; i < threads; i++)
        pthread_join(workers[i].thread, NULL);
    uint64_t ns = now_ns() - from_ns, spent_ns = cpu_ns() - from_cpu_ns, done = pairs * (uint64_t)threads;
    size_t highest = 0;
    for (size_t i = 0; i < PAGES; i++)
        if (taken[i])
            highest = i;
    printf("{\"pairs\": %llu, \"ns\": %.2f, \"cpu_ns\": %.2f, \"locks\": %.4f, \"highest_mib\": %.1f}\n",
           (unsigned long long)done, (double)ns / (double)done, (double)spent_ns / (double)done,
           (double)(acquisitions - before) / (double)done, (double)highest / 128);
    return 0;
}
