/* pyalloc.c - public functions other than the malloc family: version, classes, release, checks.
 *
 * Owns nothing; installs the fork handlers when the library is loaded.
 */
#include "include/pyalloc.h"

#include <string.h>

#include "heap/check.h"
#include "heap/mcentral.h"
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

PA_EXPORT size_t pa_free_os_memory(void)
{
    pa_heap *h = &pa_the_heap;
    pa_mcache *c = pa_proc_attach();
    if (!h->initialised)
        return 0;
    atomic_fetch_add_explicit(&h->trim_generation, 1, memory_order_relaxed);
    if (pa_mcache_is_real(c))
        pa_mcache_trim(c);
    pa_mcentral_collect_all(h);
    return pa_mheap_release(h, SIZE_MAX);
}

PA_EXPORT int pa_heap_check(char *message, size_t capacity)
{
    const char *broken = pa_heap_find_broken(&pa_the_heap);
    for (pa_proc *p = __atomic_load_n(&pa_the_procs.all, __ATOMIC_ACQUIRE); p && !broken; p = p->next_all)
        broken = pa_mcache_find_broken(&p->cache);
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

__attribute__((constructor)) static void on_load(void)
{
    pa_fork_install();
}
