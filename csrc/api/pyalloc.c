/* pyalloc.c - public functions other than the malloc family: version, classes, release, checks.
 *
 * Owns nothing.
 */
#include "include/pyalloc.h"

#include <string.h>

#include "heap/check.h"
#include "world/proc.h"

PA_EXPORT int pa_abi_version(void)
{
    return PA_ABI_VERSION;
}

PA_EXPORT const char *pa_version(void)
{
    return "0.1.0";
}

PA_EXPORT int pa_size_class_count(void)
{
    return PA_SIZE_CLASSES;
}

PA_EXPORT bool pa_size_class(int size_class, pa_size_class_info *out)
{
    if (size_class < 1 || size_class >= PA_SIZE_CLASSES)
        return false;
    out->object_bytes = pa_class_object_bytes[size_class];
    out->span_bytes = (size_t)pa_class_span_pages[size_class] << PA_PAGE_SHIFT;
    out->objects = out->span_bytes / out->object_bytes;
    out->tail_waste_bytes = out->span_bytes % out->object_bytes;
    return true;
}

PA_EXPORT int pa_size_class_of(size_t nbytes)
{
    return nbytes <= PA_SMALL_MAX_BYTES ? (int)pa_class_of_size(nbytes) : 0;
}

static void *release_on(pa_mcache *c, void *released_bytes)
{
    *(size_t *)released_bytes = pa_mcache_release_to_os(c);
    return NULL;
}

PA_EXPORT size_t pa_free_os_memory(void)
{
    size_t released_bytes = 0;
    if (atomic_load_explicit(&pa_the_heap.managed_pages, memory_order_relaxed))
        pa_gc();
    pa_mcache *c = pa_proc_attach();
    atomic_fetch_add_explicit(&pa_the_heap.trim_generation, 1, memory_order_relaxed);
    if (pa_mcache_is_real(c))
        pa_mcache_flush_outbox(c); /* before any span is looked at: these blocks may be the last of theirs */
    size_t others_bytes = pa_idle_flush_all(&pa_the_heap, c);
    if (pa_mcache_is_real(c))
        release_on(c, &released_bytes);
    else
        pa_proc_with_orphan(release_on, &released_bytes);
    return others_bytes + released_bytes;
}

/* Pages that no span and no page cache holds are what the page allocator calls free. */
static const char *check_page_balance(pa_heap *h)
{
    uint64_t cached_pages = 0;
    for (pa_proc *p = __atomic_load_n(&pa_the_procs.all, __ATOMIC_ACQUIRE); p; p = p->next_all)
        cached_pages += pa_popcount64(p->cache.stock.cache.free);
    uint64_t taken = h->pages.grown_pages - h->pages.free_pages;
    return taken == atomic_load(&h->inuse_pages) + cached_pages ? NULL
                                                                : "mheap: pages were lost or counted twice";
}

static const char *find_broken(pa_heap *h)
{
    const char *broken = pa_heap_find_broken(h);
    for (pa_proc *p = __atomic_load_n(&pa_the_procs.all, __ATOMIC_ACQUIRE); p && !broken; p = p->next_all)
        broken = pa_mcache_find_broken(&p->cache);
    return broken ? broken : check_page_balance(h);
}

PA_EXPORT int pa_heap_check(char *message, size_t capacity)
{
    pa_heap *h = &pa_the_heap;
    bool made = h->initialised;
    if (made) /* pages on their way to the OS by our own thread are in no list */
        pa_lock_acquire(&h->decay.lock);
    const char *broken = find_broken(h);
    if (made)
        pa_lock_release(&h->decay.lock);
    if (message && capacity) {
        size_t n = broken ? strlen(broken) : 0;
        if (n >= capacity)
            n = capacity - 1;
        if (n)
            memcpy(message, broken, n);
        message[n] = '\0';
    }
    return broken != NULL;
}
