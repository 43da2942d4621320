/* release.c - free pages to the OS, and keeping below the memory limit.
 *
 * Owns pa_heap.release.  Pages are taken out of the page allocator under mheap's lock, so that nobody gets them,
 * and given back with the lock dropped; a refused piece goes back as it was.  Who releases keeps fork out by a
 * lock of its own (a slow-path lock or the decay lock), so that a child never misses pages that were on their way.
 *
 * Order: runs of 16 pages and more first, from the highest address down; then the short ones.  Long runs cost fewer
 * calls a byte, and the first fit, which fills the heap from below, wants the high ones last.
 *
 * Huge pages: where the heap was advised to use them (heap/gcside.c), a fault brings 2 MiB in at once, also pages that
 * the heap never handed out and counts as released.  So there, a run is released together with all free pages around it
 * in its huge page, and huge pages are forbidden first: the kernel must not fill the hole again (docs/decisions/015).
 * An idle heap gives back the ends of huge pages in use (decision 055).
 *
 * The limit: an allocation that makes the heap go over it releases as much elsewhere before it hands out pages.  A
 * limit below what is needed would make every allocation do that, so it is paced: half of a processor at most.
 */
#include "heap/release.h"

#include "base/bits.h"
#include "base/options.h"
#include "heap/gcside.h"
#include "heap/mheap.h"
#include "sys/clock.h"
#include "sys/trace.h"
#include "sys/vm.h"

enum { DENSE_PAGES = 16, REFUSALS = 4, TAIL_LEAST_PAGES = 16 /* also of the largest OS pages */ };
/* Released beyond what is over the limit, so that not every allocation has to. */
#define HEADROOM_BYTES PA_MIB
#define TAILS_INUSE_BYTES (32 * PA_MIB)
#define HEADERS_BYTES (512 * PA_KIB) /* given back at a time, some hundred calls */

/* ---- Method ---- */

pa_release_method pa_release_get_method(const pa_heap *h)
{
    uint32_t method = atomic_load_explicit(&h->release.method, memory_order_relaxed);
    if (method != PA_RELEASE_AS_OPTED)
        return (pa_release_method)method;
    return pa_the_options.madvdontneed ? PA_RELEASE_DONTNEED : PA_RELEASE_LAZILY;
}

pa_release_method pa_release_set_method(pa_heap *h, pa_release_method method)
{
    pa_release_method before = pa_release_get_method(h);
    atomic_store_explicit(&h->release.method, method, memory_order_relaxed);
    return before;
}

static void note_lazy_locked(pa_release *r, uintptr_t run, size_t nbytes)
{
    uintptr_t low = atomic_load_explicit(&r->lazy_low, memory_order_relaxed);
    uintptr_t high = atomic_load_explicit(&r->lazy_high, memory_order_relaxed);
    if (high == 0 || run < low)
        atomic_store_explicit(&r->lazy_low, run, memory_order_relaxed);
    if (run + nbytes > high)
        atomic_store_explicit(&r->lazy_high, run + nbytes, memory_order_relaxed);
    r->lazy_bytes += nbytes;
}

bool pa_release_reads_zero(const pa_heap *h, uintptr_t base, size_t nbytes)
{
    uintptr_t low = atomic_load_explicit(&h->release.lazy_low, memory_order_relaxed);
    uintptr_t high = atomic_load_explicit(&h->release.lazy_high, memory_order_relaxed);
    return base >= high || base + nbytes <= low;
}

/* ---- Releasing ---- */

/* Free pages on their way to the OS, out of the page allocator. */
typedef struct run {
    uintptr_t base;
    size_t npages, backed_pages; /* the others were counted as released before */
    uintptr_t found;             /* where, and how long, the run was before it was widened: all of it backed */
    size_t found_pages;
    size_t metadata_bytes;       /* of the page table, given back with it */
    bool huge;                   /* the kernel was told to use huge pages */
} run;

static size_t os_page_pages(void)
{
    size_t os_page = pa_vm_page_size_bytes();
    return os_page > PA_PAGE_BYTES ? os_page / PA_PAGE_BYTES : 1;
}

static bool take_run(pa_heap *h, size_t min_pages, size_t max_pages, uintptr_t below, run *out)
{
    *out = (run){0};
    pa_lock_acquire(&h->lock);
    out->found = pa_pagealloc_find_dense(&h->pages, min_pages, max_pages, os_page_pages(), below, &out->found_pages);
    out->base = out->found;
    out->npages = out->backed_pages = out->found_pages;
    out->huge = out->base && pa_gcside_is_advised(out->base);
    if (out->huge)
        out->backed_pages += pa_pagealloc_widen(&h->pages, &out->base, &out->npages, os_page_pages(),
                                                PA_HUGE_PAGE_BYTES >> PA_PAGE_SHIFT);
    pa_lock_release(&h->lock);
    return out->base != 0;
}

static pa_vm_given give(run *r, bool lazily)
{
    size_t nbytes = r->npages << PA_PAGE_SHIFT;
    if (r->huge)
        pa_gcside_forbid_huge(r->base, nbytes);
    pa_gcside_release(r->base, r->npages);
    r->metadata_bytes = pa_space_release(r->base, r->npages);
    if (lazily)
        return pa_vm_release_lazily((void *)r->base, nbytes);
    return pa_vm_release((void *)r->base, nbytes) ? PA_VM_ZEROED : PA_VM_REFUSED;
}

/* A refused run goes back as it was; where backed pages lay in what was added to it, all of that counts as backed. */
static void put_back_refused_locked(pa_heap *h, const run *r)
{
    void (*put)(pa_pagealloc *, uintptr_t, size_t) =
        r->backed_pages > r->found_pages ? pa_pagealloc_free : pa_pagealloc_free_scavenged;
    size_t before = (r->found - r->base) >> PA_PAGE_SHIFT, after = r->npages - before - r->found_pages;
    pa_pagealloc_free(&h->pages, r->found, r->found_pages);
    if (before)
        put(&h->pages, r->base, before);
    if (after)
        put(&h->pages, r->found + (r->found_pages << PA_PAGE_SHIFT), after);
}

static void put_back(pa_heap *h, const run *r, pa_vm_given given, pa_release_reason reason)
{
    pa_release *all = &h->release;
    pa_lock_acquire(&h->lock);
    all->calls++;
    if (given == PA_VM_REFUSED) {
        all->refusals++;
        put_back_refused_locked(h, r);
    } else {
        if (given == PA_VM_LAZY)
            note_lazy_locked(all, r->base, r->npages << PA_PAGE_SHIFT);
        pa_pagealloc_free_scavenged(&h->pages, r->base, r->npages);
        all->bytes[reason] += r->backed_pages << PA_PAGE_SHIFT;
        h->released_bytes_total += r->backed_pages << PA_PAGE_SHIFT;
    }
    pa_lock_release(&h->lock);
}

bool pa_release_inside(pa_heap *h, uintptr_t base, size_t nbytes, pa_release_reason reason)
{
    pa_release *all = &h->release;
    pa_vm_given given = PA_VM_REFUSED;
    if (pa_release_get_method(h) == PA_RELEASE_LAZILY)
        given = pa_vm_release_lazily((void *)base, nbytes);
    else if (pa_vm_release((void *)base, nbytes))
        given = PA_VM_ZEROED;
    pa_lock_acquire(&h->lock);
    all->calls++;
    if (given == PA_VM_LAZY)
        note_lazy_locked(all, base, nbytes);
    if (given == PA_VM_REFUSED) {
        all->refusals++;
    } else {
        all->bytes[reason] += nbytes;
        h->released_bytes_total += nbytes;
    }
    pa_lock_release(&h->lock);
    return given != PA_VM_REFUSED;
}

/* One walk from the top down over runs of min_pages or more; a refused run is not tried again in it. */
static size_t release_from_top(pa_heap *h, size_t goal_bytes, size_t min_pages, pa_release_reason reason,
                               size_t *metadata_bytes)
{
    bool lazily = pa_release_get_method(h) == PA_RELEASE_LAZILY;
    size_t released_bytes = 0, align_pages = os_page_pages();
    uintptr_t below = UINTPTR_MAX;
    for (int refusals = 0; released_bytes < goal_bytes;) {
        size_t left_pages = pa_div_ceil(goal_bytes - released_bytes, PA_PAGE_BYTES);
        size_t max_pages = left_pages < PA_CHUNK_PAGES ? pa_round_up(left_pages, align_pages) : PA_CHUNK_PAGES;
        run r;
        if (!take_run(h, min_pages, max_pages, below, &r))
            break;
        pa_vm_given given = give(&r, lazily);
        *metadata_bytes += r.metadata_bytes;
        put_back(h, &r, given, reason);
        below = r.base;
        if (given != PA_VM_REFUSED)
            released_bytes += r.backed_pages << PA_PAGE_SHIFT;
        else if (++refusals == REFUSALS && reason != PA_RELEASE_ASKED)
            break; /* the memory is locked, perhaps: do not walk over all of it each time */
    }
    return released_bytes;
}

void pa_release_trace_memory_locked(const pa_heap *h)
{
    if (!pa_trace_is_on())
        return;
    uint64_t inuse_pages = atomic_load_explicit(&h->inuse_pages, memory_order_relaxed);
    uint64_t released_pages = h->pages.scavenged_pages, other_pages = inuse_pages + released_pages;
    uint64_t all_pages = h->arena_count << (PA_ARENA_SHIFT - PA_PAGE_SHIFT);
    uint64_t idle_pages = all_pages > other_pages ? all_pages - other_pages : 0;
    pa_trace_note(PA_TRACE_MEMORY, inuse_pages << PA_PAGE_SHIFT, idle_pages << PA_PAGE_SHIFT,
                  released_pages << PA_PAGE_SHIFT);
}

static void trace_release(pa_heap *h, uint64_t begin_ns, size_t heap_bytes, size_t metadata_bytes,
                          pa_release_reason reason)
{
    if (begin_ns == 0)
        return;
    pa_trace_end(PA_TRACE_RELEASE, begin_ns, heap_bytes, metadata_bytes, reason);
    pa_lock_acquire(&h->lock);
    pa_release_trace_memory_locked(h);
    pa_lock_release(&h->lock);
}

size_t pa_release_pages(pa_heap *h, size_t goal_bytes, pa_release_reason reason)
{
    uint64_t begin_ns = pa_trace_begin();
    size_t metadata_bytes = 0, heap_bytes = release_from_top(h, goal_bytes, DENSE_PAGES, reason, &metadata_bytes);
    if (heap_bytes < goal_bytes)
        heap_bytes += release_from_top(h, goal_bytes - heap_bytes, 1, reason, &metadata_bytes);
    trace_release(h, begin_ns, heap_bytes, metadata_bytes, reason);
    return heap_bytes;
}

size_t pa_release_headers(pa_heap *h)
{
    pa_lock_acquire(&h->lock);
    uint64_t inuse = h->span_headers.inuse_count, dead = h->span_headers.total_count - inuse;
    pa_lock_release(&h->lock);
    if (dead <= inuse || dead * sizeof(pa_span) < PA_DECAY_LEAST_BYTES)
        return 0;
    size_t nbytes = pa_fixalloc_release(&h->span_headers, &h->lock, HEADERS_BYTES);
    pa_lock_acquire(&h->lock);
    h->release.metadata_bytes += nbytes;
    pa_lock_release(&h->lock);
    return nbytes;
}

/* Of one huge page. False: there is none, or the OS refused it. */
static bool release_tail(pa_heap *h, uintptr_t base)
{
    uintptr_t addr;
    pa_lock_acquire(&h->lock);
    size_t npages =
        pa_pagealloc_take_tail(&h->pages, base, PA_HUGE_PAGE_BYTES >> PA_PAGE_SHIFT, TAIL_LEAST_PAGES, &addr);
    pa_lock_release(&h->lock);
    if (npages == 0)
        return false;
    pa_gcside_forbid_huge(addr, npages << PA_PAGE_SHIFT);
    bool released = pa_vm_release((void *)addr, npages << PA_PAGE_SHIFT);
    pa_lock_acquire(&h->lock);
    h->release.calls++;
    h->release.refusals += !released;
    pa_pagealloc_free_scavenged(&h->pages, addr, npages);
    pa_lock_release(&h->lock);
    return released;
}

void pa_release_tails(pa_heap *h)
{
    if (atomic_load_explicit(&h->inuse_pages, memory_order_relaxed) > TAILS_INUSE_BYTES >> PA_PAGE_SHIFT)
        return;
    for (pa_arena *a = __atomic_load_n(&h->arenas, __ATOMIC_ACQUIRE); a;
         a = __atomic_load_n(&a->next, __ATOMIC_ACQUIRE)) {
        pa_gcside *side = pa_gcside_is_advised(a->base) ? pa_gcside_of(a->base) : NULL;
        if (!side)
            continue;
        uint32_t left = ~atomic_load_explicit(&side->trimmed, memory_order_relaxed);
        for (; left; left &= left - 1)
            if (release_tail(h, a->base + pa_ctz64(left) * PA_HUGE_PAGE_BYTES))
                atomic_fetch_or_explicit(&side->trimmed, left & -left, memory_order_relaxed);
    }
}

size_t pa_release_all(pa_heap *h)
{
    uint64_t begin_ns = pa_trace_begin();
    size_t metadata_bytes = 0, heap_bytes = release_from_top(h, SIZE_MAX, 1, PA_RELEASE_ASKED, &metadata_bytes);
    pa_release_tails(h);
    metadata_bytes += pa_fixalloc_release(&h->span_headers, &h->lock, SIZE_MAX);
    metadata_bytes += pa_fixalloc_release(&h->specials.records, &h->specials.lock, SIZE_MAX);
    metadata_bytes += pa_fixalloc_release(&h->specials.weaks, &h->specials.lock, SIZE_MAX);
    pa_lock_acquire(&h->lock);
    h->release.metadata_bytes += metadata_bytes;
    pa_lock_release(&h->lock);
    trace_release(h, begin_ns, heap_bytes, metadata_bytes, PA_RELEASE_ASKED);
    return heap_bytes + metadata_bytes;
}

/* ---- The limit ---- */

void pa_limit_set(pa_heap *h, uint64_t nbytes)
{
    atomic_store_explicit(&h->release.limit_bytes, nbytes == UINT64_MAX ? 0 : nbytes ? nbytes : 1,
                          memory_order_relaxed);
}

uint64_t pa_limit_get(const pa_heap *h)
{
    uint64_t limit = atomic_load_explicit(&h->release.limit_bytes, memory_order_relaxed);
    return limit ? limit : UINT64_MAX;
}

uint64_t pa_limit_backed_bytes_locked(const pa_heap *h)
{
    return ((h->pages.grown_pages - h->pages.scavenged_pages) << PA_PAGE_SHIFT) + h->pages.metadata_bytes +
           h->side_bytes + pa_racy_load(&h->offheap.sys_bytes) -
           atomic_load_explicit(&h->hollow_bytes, memory_order_relaxed);
}

uint64_t pa_limit_above_goal_locked(const pa_heap *h)
{
    uint64_t limit = pa_limit_get(h), backed = pa_limit_backed_bytes_locked(h);
    uint64_t goal = limit / 100 * PA_LIMIT_GOAL_PERCENT;
    return limit != UINT64_MAX && backed > goal ? backed - goal : 0;
}

uint64_t pa_limit_over_slow_locked(pa_heap *h)
{
    pa_heap_notice_idle_locked(h);
    uint64_t limit = pa_limit_get(h), backed = pa_limit_backed_bytes_locked(h);
    if (backed > limit)
        return backed - limit;
    atomic_store_explicit(&h->release.over_limit, false, memory_order_relaxed);
    return 0;
}

/* Still over it after a release: the program needs more than its limit. */
static void settle_locked(pa_heap *h)
{
    pa_release *r = &h->release;
    bool over = pa_limit_backed_bytes_locked(h) > pa_limit_get(h);
    if (over && !atomic_load_explicit(&r->over_limit, memory_order_relaxed)) {
        r->over_limit_count++;
        pa_trace_note(PA_TRACE_OVER_LIMIT, pa_limit_get(h), pa_limit_backed_bytes_locked(h), 0);
    }
    atomic_store_explicit(&r->over_limit, over, memory_order_relaxed);
}

void pa_limit_obey(pa_heap *h, uint64_t over_bytes)
{
    pa_release *r = &h->release;
    uint64_t now_ns = pa_clock_now_ns();
    pa_lock_acquire(&h->lock);
    uint64_t free_backed = (h->pages.free_pages - h->pages.scavenged_pages) << PA_PAGE_SHIFT;
    uint64_t wanted = over_bytes + HEADROOM_BYTES < free_backed ? over_bytes + HEADROOM_BYTES : free_backed;
    uint64_t nbytes = wanted ? pa_pace_bytes(&r->pace, now_ns, PA_LIMIT_CPU_PERCENT, wanted) : 0;
    if (nbytes == 0)
        settle_locked(h);
    pa_lock_release(&h->lock);
    if (nbytes == 0)
        return;
    uint64_t from_ns = pa_clock_thread_cpu_ns();
    uint64_t released_bytes = pa_release_pages(h, nbytes, PA_RELEASE_LIMIT);
    uint64_t work_ns = pa_clock_thread_cpu_ns() - from_ns;
    pa_lock_acquire(&h->lock);
    pa_pace_spent(&r->pace, now_ns, work_ns, released_bytes);
    settle_locked(h);
    pa_lock_release(&h->lock);
}
