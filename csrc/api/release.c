/* release.c - public functions on memory and the OS: huge pages, how free pages go back, what was released so far.
 *
 * Owns nothing; heap/gcside.c, heap/release.c and gc/scavenge.c do.
 */
#include "gc/scavenge.h"
#include "heap/gcside.h"
#include "include/pyalloc.h"
#include "world/proc.h"

PA_EXPORT void pa_advise_huge_pages(const void *p, size_t nbytes)
{
    if (nbytes != 0 && pa_owns(p))
        pa_gcside_advise_explicit(&pa_the_heap, (uintptr_t)p, nbytes);
}

PA_EXPORT int pa_set_madvdontneed(int on)
{
    pa_heap *h = &pa_the_heap;
    if (on < 0)
        return pa_release_get_method(h) == PA_RELEASE_DONTNEED;
    return pa_release_set_method(h, on ? PA_RELEASE_DONTNEED : PA_RELEASE_LAZILY) == PA_RELEASE_DONTNEED;
}

PA_EXPORT void pa_read_scavenge_stats(pa_scavenge_stats *out)
{
    pa_heap *h = &pa_the_heap;
    const pa_release *r = &h->release;
    *out = (pa_scavenge_stats){.memory_limit = pa_limit_get(h)};
    if (!h->initialised)
        return;
    pa_lock_acquire(&h->lock);
    out->background_bytes = r->bytes[PA_RELEASE_BACKGROUND];
    out->tick_bytes = r->bytes[PA_RELEASE_TICK];
    out->limit_bytes = r->bytes[PA_RELEASE_LIMIT];
    out->asked_bytes = r->bytes[PA_RELEASE_ASKED];
    out->lazy_bytes = r->lazy_bytes;
    out->metadata_bytes = r->metadata_bytes;
    out->madvise_calls = r->calls;
    out->madvise_refusals = r->refusals;
    out->backed_bytes = pa_limit_backed_bytes_locked(h);
    out->over_limit_count = r->over_limit_count;
    out->over_limit = atomic_load_explicit(&r->over_limit, memory_order_relaxed);
    pa_lock_release(&h->lock);
    out->background_running = pa_scavenge_is_running();
    out->background_looks = pa_scavenge_looks();
    out->background_cpu_ns = pa_scavenge_cpu_ns();
}
