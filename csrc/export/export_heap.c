/* export_heap.c - white-box constructors for sys/ and heap/.
 *
 * Test builds only.  Owns the objects it hands out: they come from the C library's malloc, so that
 * testing the heap
 * does not use it.  No lock; what needs one (off-heap memory, the page allocator's counters) takes the real one.
 * Sweeps over all offsets run here, because they are too many for calls from Python; the oracle is division.
 */
#include "export/export_heap.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/lock.h"
#include "heap/remote.h"
#include "heap/spanlist.h"
#include "heap/walk.h"
#include "sys/offheap.h"
#include "sys/vm.h"
#include "world/proc.h"

static void *zeroed(size_t nbytes, size_t align)
{
    void *p = NULL;
    PA_CHECK(posix_memalign(&p, align, nbytes) == 0);
    for (size_t i = 0; i < nbytes; i++)
        ((volatile char *)p)[i] = 0;
    return p;
}

/* ---- vm ---- */

size_t pa_xvm_page_size(void)
{
    return pa_vm_page_size_bytes();
}
void *pa_xvm_reserve(size_t nbytes, bool readable)
{
    return pa_vm_reserve(nbytes, readable);
}
bool pa_xvm_commit(uintptr_t addr, size_t nbytes)
{
    return pa_vm_commit((void *)addr, nbytes);
}
void *pa_xvm_map(size_t nbytes)
{
    return pa_vm_map(nbytes);
}
uintptr_t pa_xvm_map_heap(uintptr_t hint, size_t nbytes, size_t align)
{
    return pa_vm_map_heap(hint, nbytes, align);
}
void pa_xvm_unmap(uintptr_t addr, size_t nbytes)
{
    pa_vm_unmap((void *)addr, nbytes);
}
bool pa_xvm_release(uintptr_t addr, size_t nbytes)
{
    return pa_vm_release((void *)addr, nbytes);
}
uint64_t pa_xvm_heap_mmaps(void)
{
    return pa_vm_heap_mmaps();
}
void pa_xvm_inject_failure(long nth)
{
    pa_vm_inject_failure(nth);
}

/* ---- Off-heap ---- */

struct pa_xoffheap {
    pa_offheap offheap;
    pa_fixalloc fixed;
    pa_lock lock;           /* guards fixed */
};

pa_xoffheap *pa_xoffheap_new(size_t object_bytes, size_t align, bool by_page)
{
    pa_xoffheap *x = zeroed(sizeof *x, 64);
    x->offheap.lock.rank = PA_RANK_OFFHEAP;
    x->fixed.object_bytes = object_bytes;
    x->fixed.align = align;
    x->fixed.by_page = by_page;
    x->lock.rank = PA_RANK_MHEAP;
    return x;
}

void pa_xoffheap_delete(pa_xoffheap *x)
{
    free(x);
}
void *pa_xoffheap_alloc(pa_xoffheap *x, size_t nbytes, size_t align)
{
    return pa_offheap_alloc(&x->offheap, nbytes, align);
}
uint64_t pa_xoffheap_sys_bytes(const pa_xoffheap *x)
{
    return x->offheap.sys_bytes;
}
void *pa_xfixalloc_alloc(pa_xoffheap *x)
{
    return pa_fixalloc_alloc_locked(&x->fixed, &x->offheap);
}
void pa_xfixalloc_free(pa_xoffheap *x, void *object)
{
    pa_fixalloc_free_locked(&x->fixed, object);
}
size_t pa_xfixalloc_release(pa_xoffheap *x)
{
    return pa_fixalloc_release(&x->fixed, &x->lock, SIZE_MAX);
}
uint64_t pa_xfixalloc_inuse(const pa_xoffheap *x)
{
    return x->fixed.inuse_count;
}
uint64_t pa_xfixalloc_total(const pa_xoffheap *x)
{
    return x->fixed.total_count;
}

/* ---- Spans ---- */

static pa_span *real(const pa_xspan *s)
{
    return (pa_span *)(uintptr_t)s;
}

size_t pa_xspan_header_bytes(void)
{
    return sizeof(pa_span);
}

pa_xspan *pa_xspan_new(uintptr_t base, uint32_t npages)
{
    pa_span *s = zeroed(sizeof *s, _Alignof(pa_span));
    s->base = base;
    s->npages = npages;
    return (pa_xspan *)s;
}

void pa_xspan_delete(pa_xspan *s)
{
    free(s);
}

pa_xspan_view pa_xspan_look(const pa_xspan *x)
{
    pa_span *s = real(x);
    return (pa_xspan_view){
        .base = s->base,
        .limit = s->limit,
        .tail = s->tail,
        .free = (uintptr_t)s->free,
        .remote = atomic_load(&s->remote),
        .owner = (uintptr_t)atomic_load(&s->owner),
        .magic = s->magic,
        .live = s->live,
        .npages = s->npages,
        .state = pa_span_state_racy(s),
        .free_idx = s->free_idx,
        .size_class = s->size_class,
        .kind = s->kind,
        .listed = s->listed,
        .needs_zero = s->needs_zero,
        .bin = s->bin,
    };
}

void pa_xspan_format_explicit(pa_xspan *s, unsigned size_class)
{
    pa_span_format_explicit(real(s), size_class);
}
void pa_xspan_format_large(pa_xspan *s)
{
    pa_span_format_large(real(s));
}
void pa_xspan_set_tail(pa_xspan *s, uintptr_t tail)
{
    real(s)->tail = tail;
}
void pa_xspan_set_live(pa_xspan *s, uint32_t live)
{
    real(s)->live = live;
}
bool pa_xspan_carve(pa_xspan *s)
{
    return pa_span_carve(real(s));
}

size_t pa_xspan_take_free(pa_xspan *s, uintptr_t *out, size_t capacity)
{
    size_t n = 0;
    for (uintptr_t b = (uintptr_t)real(s)->free; b; b = *(uintptr_t *)b, n++)
        if (n < capacity)
            out[n] = b;
    real(s)->free = NULL;
    return n;
}

bool pa_xspan_is_element(const pa_xspan *s, uintptr_t p)
{
    return pa_span_is_element(real(s), (void *)p);
}
bool pa_xspan_is_carved_element(const pa_xspan *s, uintptr_t p)
{
    return pa_span_is_carved_element(real(s), (void *)p);
}

size_t pa_xspan_first_wrong_offset(const pa_xspan *x)
{
    const pa_span *s = real(x);
    size_t nbytes = pa_span_bytes(s), size = pa_span_element_bytes(s), count = nbytes / size;
    for (size_t offset = 0; offset < nbytes; offset++) {
        void *p = (void *)(s->base + offset);
        bool starts = offset % size == 0 && offset / size < count;
        if (pa_span_is_element(s, p) != starts)
            return offset;
        if (pa_span_is_carved_element(s, p) != (starts && s->base + offset < s->tail))
            return offset;
    }
    return nbytes;
}

bool pa_xspan_push_remote(pa_xspan *s, uintptr_t first, uintptr_t last)
{
    return pa_span_push_remote(real(s), (void *)first, (void *)last);
}

uint32_t pa_xspan_collect_remote(pa_xspan *s)
{
    return pa_span_collect_remote(real(s));
}

bool pa_xspan_abandon(pa_xspan *s)
{
    return pa_span_abandon(real(s), atomic_load(&real(s)->owner));
}

void pa_xspan_set_bits(pa_xspan *s, uint64_t *alloc_bits, uint32_t nelems, uint32_t free_idx)
{
    pa_span *span = real(s);
    span->alloc_bits = alloc_bits;
    span->nelems = nelems;
    span->free_idx = free_idx;
    pa_span_set_window(span, span->base, span->base);
}

uint32_t pa_xspan_open_window(pa_xspan *s, uint32_t most, uint32_t *first)
{
    pa_span *span = real(s);
    if (!pa_span_open_window(span, most))
        return 0;
    *first = (uint32_t)(span->bump - span->base) / pa_class_object_bytes[span->size_class];
    return pa_span_window_slots(span);
}

void pa_xspan_hand_out(pa_xspan *s, uint32_t count)
{
    pa_span_hand_out(real(s), count * (size_t)pa_class_object_bytes[real(s)->size_class]);
}

void pa_xspan_close_window(pa_xspan *s)
{
    pa_span_close_window(real(s));
}

uint32_t pa_xspan_handed_out_count(const pa_xspan *s)
{
    return pa_span_handed_out_count(real(s));
}

/* ---- Lists and bins ---- */

static pa_spanlist *real_list(const pa_xspanlist *l)
{
    return (pa_spanlist *)(uintptr_t)l;
}

pa_xspanlist *pa_xspanlist_new(void)
{
    return (pa_xspanlist *)zeroed(sizeof(pa_spanlist), 16);
}
void pa_xspanlist_delete(pa_xspanlist *l)
{
    free(l);
}
void pa_xspanlist_push_back(pa_xspanlist *l, pa_xspan *s)
{
    pa_spanlist_push_back(real_list(l), real(s));
}
void pa_xspanlist_remove(pa_xspanlist *l, pa_xspan *s)
{
    pa_spanlist_remove(real_list(l), real(s));
}
pa_xspan *pa_xspanlist_pop_front(pa_xspanlist *l)
{
    return (pa_xspan *)pa_spanlist_pop_front(real_list(l));
}

size_t pa_xspanlist_spans(const pa_xspanlist *x, pa_xspan **out, size_t capacity)
{
    const pa_spanlist *l = real_list(x);
    size_t n = 0;
    const pa_span *before = NULL;
    for (pa_span *s = l->first; s; before = s, s = s->next) {
        if (s->prev != before || n == capacity)
            return 0;
        out[n++] = (pa_xspan *)s;
    }
    return l->last == before ? n : 0;
}

unsigned pa_xbin_of(size_t npages)
{
    return pa_bin_of(npages);
}
unsigned pa_xbin_count(void)
{
    return PA_BIN_COUNT;
}
size_t pa_xbin_max_pages(void)
{
    return PA_BIN_MAX_PAGES;
}

/* ---- The heap ---- */

size_t pa_xheap_arenas(uintptr_t *out, size_t capacity)
{
    size_t n = 0;
    for (pa_arena *a = __atomic_load_n(&pa_the_heap.arenas, __ATOMIC_ACQUIRE); a; a = a->next, n++)
        if (n < capacity)
            out[n] = a->base;
    return n;
}

unsigned pa_xheap_window_bits(void)
{
    return pa_space.window_bits;
}
pa_xspan *pa_xheap_span_of(uintptr_t addr)
{
    return (pa_xspan *)pa_span_of((void *)addr);
}

int64_t pa_xheap_lost_pages(void)
{
    uint64_t known_pages = atomic_load(&pa_the_heap.inuse_pages);
    for (pa_proc *p = pa_the_procs.all; p; p = p->next_all)
        known_pages += pa_popcount64(p->cache.stock.cache.free);
    pa_lock_acquire(&pa_the_heap.lock);
    uint64_t taken_pages = pa_the_heap.pages.grown_pages - pa_the_heap.pages.free_pages;
    pa_lock_release(&pa_the_heap.lock);
    return (int64_t)(taken_pages - known_pages);
}

typedef struct walked {
    pa_xwalk sum;
    uintptr_t end; /* of the last span */
} walked;

static bool add(void *context, const pa_span_view *v)
{
    walked *w = context;
    w->sum.spans++;
    w->sum.ascending &= v->base >= w->end;
    w->end = v->base + (v->npages << PA_PAGE_SHIFT);
    *(v->state == PA_SPAN_CACHED ? &w->sum.cached_pages : &w->sum.manual_pages) += v->npages;
    if (v->state == PA_SPAN_MANUAL) {
        w->sum.live += v->live;
        w->sum.bytes_live +=
            v->live * (v->size_class ? pa_class_object_bytes[v->size_class] : v->npages << PA_PAGE_SHIFT);
    }
    return true;
}

pa_xwalk pa_xheap_walk(void)
{
    walked w = {.sum.ascending = true};
    pa_heap_walk(&pa_the_heap, add, &w);
    return w.sum;
}

uint64_t pa_xprocs_count(void)
{
    return pa_racy_load(&pa_the_procs.count);
}
uint64_t pa_xprocs_attached(void)
{
    return pa_racy_load(&pa_the_procs.attached_count);
}
size_t pa_xproc_bytes(void)
{
    return sizeof(pa_proc);
}

uintptr_t pa_xproc_current(void)
{
    return pa_mcache_is_real(pa_current_mcache) ? (uintptr_t)pa_current_mcache : 0;
}

/* ---- Locks ---- */

enum { MAX_TEST_LOCKS = 16 };

void pa_xlocks_take(const unsigned *ranks, size_t count, bool up)
{
    static pa_lock locks[MAX_TEST_LOCKS];
    PA_CHECK(count <= MAX_TEST_LOCKS);
    for (size_t i = 0; i < count; i++) {
        pa_lock *l = &locks[up ? i : count - 1 - i];
        l->rank = ranks[i];
        pa_lock_acquire(l);
    }
    for (size_t i = 0; i < count; i++)
        pa_lock_release(&locks[up ? i : count - 1 - i]);
}

unsigned pa_xlock_rank_count(void)
{
    return PA_RANK_LEAF;
}
