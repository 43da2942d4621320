/* mallocgc.c - managed allocation in three paths: tiny, small, large (Go: runtime/malloc.go, mallocgc).
 *
 * Owns nothing; works on the calling thread's P, inside.  Small: a pointer moves through the window of the P's span, a
 * row of free slots that counting trailing zeros in the span's allocCache found (heap/span.h); no lock and no atomic
 * operation.  Tiny (pointer-free, below 16 bytes): several objects share a 16-byte block.  Large: a span of its own
 * from mheap.
 *
 * A window is zeroed when it is opened; an object's pointer bits are written, and a release fence ends the function, so
 * that who gets the pointer sees all of it.  While marking, objects are allocated black: the slots of a window are
 * marked ahead (heap/managed.h), so that the fast paths are the same in and outside a cycle.  Every call looks at the
 * stop flag; misses pay sweep debt before and tell the pacer after.
 */
#include <errno.h>
#include <string.h>

#include "api/sample.h"
#include "base/poison.h"
#include "base/yield.h"
#include "gc/barrier.h"
#include "gc/gc.h"
#include "gc/type.h"
#include "heap/managed.h"
#include "include/pyalloc.h"

enum { ZERO_PIECE_BYTES = 256 * 1024, ZERO_AHEAD_BYTES = 2048, FRESH_BYTES = 4096 };

static void *out_of_memory(void)
{
    errno = ENOMEM;
    return NULL;
}

static void *would_block(void)
{
    errno = EAGAIN;
    return NULL;
}

/* ---- A slot of a class ---- */

static PA_COLD _Noreturn void abort_outside(void)
{
    pa_abort_pointer("managed call by the thread at", &pa_current_mcache,
                     "which is outside: call pa_enter first (pyalloc.h, managed objects)");
}

/* Marks for what is allocated, or starts a cycle when the heap reached the trigger. */
static void pay_and_trigger(pa_proc *p, uint64_t nbytes)
{
    pa_collector *gc = &pa_the_gc;
    uint64_t live = atomic_load_explicit(&pa_the_heap.managed_live_bytes, memory_order_relaxed);
    if (p->cache.gc->marking) {
        pa_assist_charge(p, nbytes);
    } else if (PA_LIKELY(live < atomic_load_explicit(&gc->trigger_bytes, memory_order_relaxed))) {
        return;
    } else if (!pa_gc_request()) { /* no thread to be had: this one collects */
        pa_world_leave(p);
        pa_gc_run_here();
        pa_world_enter(p);
    }
    if (PA_UNLIKELY(pa_assist_must_wait(nbytes)))
        pa_assist_wait(p, nbytes);
}

/* What pay_and_trigger does, for who may not wait: false when there is something to wait for. */
static bool try_pay_and_trigger(pa_proc *p, uint64_t nbytes)
{
    pa_collector *gc = &pa_the_gc;
    uint64_t live = atomic_load_explicit(&pa_the_heap.managed_live_bytes, memory_order_relaxed);
    if (pa_assist_must_wait(nbytes))
        return false;
    if (p->cache.gc->marking)
        return pa_assist_try_charge(p, nbytes);
    return live < atomic_load_explicit(&gc->trigger_bytes, memory_order_relaxed) || pa_gc_request();
}

/* Writes to the first and the last byte what is there; another thread may have the memory by now. */
static __attribute__((noinline, no_sanitize_address, no_sanitize_thread)) void touch(uintptr_t base, size_t nbytes)
{
    __atomic_fetch_or((unsigned char *)base, 0, __ATOMIC_RELAXED);
    __atomic_fetch_or((unsigned char *)(base + nbytes - 1), 0, __ATOMIC_RELAXED);
}

/* The first touch of a huge page takes a millisecond and more (2 MiB are found and zeroed): outside, so that no stop
 * waits for it. The span may be gone afterwards. */
static void touch_outside(pa_proc *p, const pa_span *s)
{
    uintptr_t base = s->base;
    size_t nbytes = pa_span_bytes(s);
    pa_world_leave(p);
    touch(base, nbytes);
    pa_world_enter(p);
}

/* Makes a span with a free slot current, not NULL; it may be gone again, since this polls. NULL: no memory; or, for who
 * may not wait, that there is something to wait for. */
static pa_span *refill(pa_proc *p, unsigned kind, unsigned size_class)
{
    pa_gcproc *g = p->cache.gc;
    pa_heap *h = p->cache.heap;
    pa_span *full = g->alloc[kind - 1][size_class];
    if (full != PA_EMPTY_SPAN) {
        pa_gcproc_account(p, full); /* first: who counts what is not accounted yet looks at alloc */
        pa_owner_set(&g->alloc[kind - 1][size_class], PA_EMPTY_SPAN);
        if (PA_UNLIKELY(p->cache.managed_sampler != NULL))
            pa_sampling_settle(p->cache.managed_sampler, full, true);
        pa_managed_uncache_span(h, full);
    }
    uint64_t freed_bytes = 0, span_bytes = (uint64_t)pa_class_span_pages[size_class] << PA_PAGE_SHIFT;
    pa_sweep_pay(span_bytes);
    if (PA_LIKELY(!g->trying))
        pay_and_trigger(p, span_bytes);
    else if (!try_pay_and_trigger(p, span_bytes))
        return NULL;
    pa_mcache_enter_slow(&p->cache); /* the page stock is the P's */
    pa_span *s = pa_managed_cache_span(h, &p->cache.stock, kind, size_class, &freed_bytes);
    pa_lock_release(&p->cache.slow);
    if (s)
        __atomic_store_n(&g->alloc[kind - 1][size_class], s, __ATOMIC_RELEASE);
    if (s && g->marking && s->alloc_count == 0) {
        g->black_base = s->base;
        g->black_bytes = pa_span_bytes(s);
    }
    if (PA_UNLIKELY(pa_racy_load(&h->specials.news)))
        pa_gc_wake_for_cleanups();
    if (s && !s->needs_zero && !g->trying && pa_gcside_is_advised(s->base))
        touch_outside(p, s);
    pa_peak_tell(&h->peak);
    return s;
}

/* The OS refused memory: what is garbage may be enough. Once an allocation; false: no use. */
static PA_COLD bool collect_for_room(pa_proc *p)
{
    pa_world_leave(p);
    bool collected = pa_gc_run_for_room();
    pa_world_enter(p);
    return collected;
}

/* p's sampler, NULL while no heap profile was ever on in it. */
PA_INLINE pa_managed_sampler *sampler_of(pa_proc *p)
{
    return PA_UNLIKELY(pa_racy_load(&p->cache.sampling)) ? pa_sampling_managed(&p->cache) : p->cache.managed_sampler;
}

/* How many slots a window of about nbytes has. */
PA_INLINE unsigned slots_in(size_t nbytes, size_t slot_bytes)
{
    return slot_bytes < nbytes ? (unsigned)(nbytes / slot_bytes) : 1;
}

/* The next window of s, zeroed: then the fast paths need not ask whether it is. Where the memory is fresh, its first
 * and its last page are written to while marking, and small objects with pointers get no more than that: the barrier
 * reads a slot before the store, and a page that is read first faults twice, the second time with an interrupt to every
 * processor that may have seen it empty. A heap profile's next sample is the first slot of a window, which the caller
 * hands out. */
static PA_NOINLINE bool open_window(pa_proc *p, pa_span *s)
{
    size_t slot_bytes = pa_class_object_bytes[s->size_class];
    unsigned most = 64;
    bool read_first = p->cache.gc->marking && s->kind == PA_KIND_SCAN;
    if (s->needs_zero)
        most = slots_in(ZERO_AHEAD_BYTES, slot_bytes);
    else if (read_first)
        most = slots_in(FRESH_BYTES, slot_bytes);
    pa_managed_sampler *m = sampler_of(p);
    bool sampled = false;
    if (PA_UNLIKELY(m != NULL)) {
        pa_sampling_settle(m, s, false);
        if (pa_racy_load(&p->cache.sampling)) {
            unsigned room = pa_sampling_room(m, s);
            sampled = room == 0;
            most = sampled ? 1 : room < most ? room : most;
        }
    }
    if (!pa_gcproc_open_window(p->cache.gc, s, most))
        return false;
    if (s->needs_zero) {
        size_t nbytes = pa_span_window_slots(s) * slot_bytes;
        PA_UNPOISON(s->bump, nbytes);
        memset((void *)s->bump, 0, nbytes);
        PA_POISON(s->bump, nbytes);
    } else if (read_first) {
        touch(s->bump, pa_span_window_slots(s) * slot_bytes);
    }
    if (PA_UNLIKELY(sampled))
        pa_sample_object(p, m, s, (uint32_t)((s->bump - s->base) / slot_bytes));
    return true;
}

/* The P's span of the class, with a slot in its window. Polls. NULL with errno. */
static PA_NOINLINE pa_span *span_with_slot(unsigned kind, unsigned size_class)
{
    pa_proc *p = pa_world_self();
    if (!pa_world_is_inside_checked(p))
        abort_outside();
    bool trying = p->cache.gc->trying;
    if (trying && pa_world_is_wanted(p)) {
        would_block();
        return NULL;
    }
    pa_world_poll(p);
    for (bool tried = false;;) {
        pa_span *s = p->cache.gc->alloc[kind - 1][size_class];
        if (s != PA_EMPTY_SPAN && (!pa_span_window_is_empty(s) || open_window(p, s)))
            return s;
        if (refill(p, kind, size_class))
            continue;
        if (trying)
            would_block();
        else if (tried)
            pa_gc_room_was_in_vain();
        if (trying || tried || !collect_for_room(p)) {
            if (!trying)
                out_of_memory();
            return NULL;
        }
        tried = true;
    }
}

/* The next slot of the window; the caller makes an object of it and hands it out. */
PA_INLINE uintptr_t take_slot(const pa_span *s, size_t slot_bytes)
{
    PA_YIELD(GC_SLOT_TAKEN);
    PA_UNPOISON(s->bump, slot_bytes);
    return s->bump;
}

PA_INLINE void *hand_out(pa_span *s, uintptr_t slot, size_t slot_bytes)
{
    pa_span_hand_out(s, slot_bytes);
    atomic_thread_fence(memory_order_release);
    return (void *)slot;
}

/* The whole of a small allocation when nothing is in the way: inside, nobody stops us, a slot in the window of a span
 * of the layout. NULL: take the slow road, which finds out what it is. */
PA_INLINE void *new_fast(const pa_gcproc *g, unsigned kind, unsigned size_class, size_t slot_bytes, uint32_t layout)
{
    pa_span *s = g->alloc[kind - 1][size_class];
    if (PA_UNLIKELY(!pa_gcproc_may_go_on(g) || pa_span_window_is_empty(s) || s->layout != layout))
        return NULL;
    uintptr_t slot = take_slot(s, slot_bytes);
    if (!slot)
        __builtin_unreachable(); /* so that callers need not look */
    return hand_out(s, slot, slot_bytes);
}

/* ---- Where the pointers are ---- */

/* element_bytes with the words of mask, count times. */
typedef struct layout {
    uint32_t number;            /* pa_layout, PA_LAYOUT_BITMAP when it has none */
    const uint64_t *mask;
    size_t element_bytes, count;
} layout;

/* The object's layout is not its span's: the span takes it up if it has none, else bits are written from now on. */
static PA_NOINLINE void write_layout(pa_span *s, uintptr_t object, size_t slot_bytes, const layout *l)
{
    if (s->layout == PA_LAYOUT_UNSET)
        pa_gcside_set_layout(s, l->number);
    if (s->layout == l->number && l->number != PA_LAYOUT_BITMAP)
        return;
    if (s->layout != PA_LAYOUT_BITMAP)
        pa_object_mix_layouts(s);
    pa_object_write_pointer_bits(object, slot_bytes, l->mask, l->element_bytes, l->count);
}

/* ---- Large ---- */

/* In pieces with polls between: a stop must not wait for gigabytes. */
static void zero_pages(pa_proc *p, uintptr_t base, size_t nbytes)
{
    for (size_t done = 0; done < nbytes; done += ZERO_PIECE_BYTES) {
        if (done)
            pa_world_poll(p);
        memset((void *)(base + done), 0, nbytes - done < ZERO_PIECE_BYTES ? nbytes - done : ZERO_PIECE_BYTES);
    }
}

static PA_NOINLINE void *new_large(unsigned kind, size_t nbytes, const layout *l)
{
    pa_proc *p = pa_world_self();
    if (!pa_world_is_inside_checked(p))
        abort_outside();
    if (nbytes > PA_MANAGED_MAX_PAGES << PA_PAGE_SHIFT) /* before anything is paid for it */
        return out_of_memory();
    size_t span_bytes = pa_round_up(nbytes, PA_PAGE_BYTES);
    bool trying = p->cache.gc->trying;
    if (trying && (pa_world_is_wanted(p) || span_bytes > ZERO_PIECE_BYTES))
        return would_block();
    pa_world_poll(p);
    pa_sweep_pay(span_bytes);
    if (!trying)
        pay_and_trigger(p, span_bytes);
    else if (!try_pay_and_trigger(p, span_bytes))
        return would_block();
    pa_span *s = pa_managed_take_large(p->cache.heap, nbytes);
    if (!s && trying)
        return would_block();
    if (!s && collect_for_room(p)) {
        s = pa_managed_take_large(p->cache.heap, nbytes);
        if (!s)
            pa_gc_room_was_in_vain();
    }
    if (s)
        PA_UNPOISON(s->base, pa_span_bytes(s));
    if (s && s->needs_zero)
        zero_pages(p, s->base, span_bytes);
    if (!s || !pa_managed_make_large(p->cache.heap, s, kind))
        return out_of_memory();
    if (kind == PA_KIND_SCAN)
        write_layout(s, s->base, span_bytes, l);
    pa_gcproc_account_large(p, span_bytes);
    pa_peak_tell(&p->cache.heap->peak);
    pa_span_set_window(s, s->limit, s->limit);
    if (PA_UNLIKELY(pa_racy_load(&p->cache.sampling))) {
        pa_managed_sampler *m = pa_sampling_managed(&p->cache);
        if (m)
            pa_sample_object(p, m, s, 0);
    }
    if (PA_UNLIKELY(p->cache.gc->marking))
        pa_barrier_mark_new(s->base);
    atomic_thread_fence(memory_order_release);
    return (void *)s->base;
}

/* ---- Small ---- */

/* No layout to write: pointer-free and conservative objects. */
static PA_NOINLINE void *new_plain_slow(unsigned kind, unsigned size_class)
{
    pa_span *s = span_with_slot(kind, size_class);
    size_t slot_bytes = pa_class_object_bytes[size_class];
    return PA_LIKELY(s != NULL) ? hand_out(s, take_slot(s, slot_bytes), slot_bytes) : NULL;
}

PA_INLINE void *new_plain(unsigned kind, size_t nbytes)
{
    unsigned size_class = pa_class_of_size(nbytes);
    void *object = new_fast(pa_current_mcache->gc, kind, size_class, pa_class_object_bytes[size_class],
                            PA_LAYOUT_UNSET);
    return PA_LIKELY(object != NULL) ? object : new_plain_slow(kind, size_class);
}

static PA_NOINLINE void *new_laid_out(size_t nbytes, const layout *l)
{
    if (nbytes > PA_SMALL_MAX_BYTES)
        return new_large(PA_KIND_SCAN, nbytes, l);
    unsigned size_class = pa_class_of_size(nbytes);
    pa_span *s = span_with_slot(PA_KIND_SCAN, size_class);
    if (PA_UNLIKELY(!s))
        return NULL;
    size_t slot_bytes = pa_class_object_bytes[size_class];
    uintptr_t slot = take_slot(s, slot_bytes);
    write_layout(s, slot, slot_bytes, l);
    return hand_out(s, slot, slot_bytes);
}

PA_EXPORT void *pa_new(const pa_type *type)
{
    if (PA_LIKELY(type->layout != PA_LAYOUT_BITMAP)) {
        void *object =
            new_fast(pa_current_mcache->gc, PA_KIND_SCAN, type->size_class, type->slot_bytes, type->layout);
        if (PA_LIKELY(object != NULL))
            return object;
    }
    return pa_new_array(type, 1);
}

PA_EXPORT void *pa_new_array(const pa_type *type, size_t count)
{
    size_t nbytes;
    if (__builtin_mul_overflow(type->nbytes, count, &nbytes))
        return out_of_memory();
    if (type->kind == PA_KIND_NOSCAN)
        return pa_new_bytes(nbytes);
    layout l = {count == 1 ? type->layout : PA_LAYOUT_BITMAP, type->mask, type->nbytes, count};
    return new_laid_out(nbytes ? nbytes : 8, &l);
}

PA_EXPORT void *pa_new_pointers(size_t count)
{
    static const uint64_t all = 1;
    size_t nbytes;
    if (__builtin_mul_overflow(sizeof(void *), count, &nbytes))
        return out_of_memory();
    if (PA_LIKELY(nbytes - 1 < PA_SMALL_MAX_BYTES)) {
        unsigned size_class = pa_class_of_size(nbytes);
        void *object = new_fast(pa_current_mcache->gc, PA_KIND_SCAN, size_class, pa_class_object_bytes[size_class],
                                PA_LAYOUT_ALL);
        if (PA_LIKELY(object != NULL))
            return object;
    }
    layout l = {PA_LAYOUT_ALL, &all, sizeof(void *), count};
    return new_laid_out(nbytes ? nbytes : 8, &l);
}

PA_EXPORT void *pa_new_conservative(size_t nbytes)
{
    if (nbytes > PA_SMALL_MAX_BYTES)
        return new_large(PA_KIND_CONSERVATIVE, nbytes, NULL);
    return new_plain(PA_KIND_CONSERVATIVE, nbytes < 8 ? 8 : nbytes);
}

/* ---- Pointer-free ---- */

/* Where nbytes, less than PA_TINY_BYTES, go in the current block: aligned as their size is (8, 4, 2 or 1). Beyond the
 * block when they do not fit. */
PA_INLINE size_t tiny_offset(const pa_gcproc *g, size_t nbytes)
{
    size_t align = nbytes & -nbytes;
    return (g->tiny_offset + align - 1) & -align;
}

/* A fresh block with its first object; the block with more room is kept for the next ones. */
PA_INLINE void *begin_tiny_block(pa_gcproc *g, void *block, size_t nbytes)
{
    if (nbytes < g->tiny_offset) {
        g->tiny = (uintptr_t)block;
        g->tiny_offset = (uint32_t)nbytes;
    }
    return block;
}

static PA_NOINLINE void *new_tiny_slow(size_t nbytes)
{
    void *block = new_plain_slow(PA_KIND_NOSCAN, PA_TINY_CLASS);
    return block ? begin_tiny_block(pa_current_mcache->gc, block, nbytes) : NULL;
}

/* The block is marked like any other when it is new; the one that is in use when marking begins is shaded then. */
PA_INLINE void *new_tiny(size_t nbytes)
{
    pa_gcproc *g = pa_current_mcache->gc;
    nbytes += nbytes == 0;
    size_t offset = tiny_offset(g, nbytes);
    if (PA_LIKELY(offset + nbytes <= PA_TINY_BYTES && pa_gcproc_may_go_on(g))) {
        g->tiny_offset = (uint32_t)(offset + nbytes);
        return (void *)(g->tiny + offset);
    }
    void *block = new_fast(g, PA_KIND_NOSCAN, PA_TINY_CLASS, PA_TINY_BYTES, PA_LAYOUT_UNSET);
    return PA_LIKELY(block != NULL) ? begin_tiny_block(g, block, nbytes) : new_tiny_slow(nbytes);
}

PA_EXPORT void *pa_new_bytes(size_t nbytes)
{
    if (nbytes < PA_TINY_BYTES)
        return new_tiny(nbytes);
    if (PA_UNLIKELY(nbytes > PA_SMALL_MAX_BYTES))
        return new_large(PA_KIND_NOSCAN, nbytes, NULL);
    return new_plain(PA_KIND_NOSCAN, nbytes);
}

/* ---- For who may not wait ---- */

/* The slow road with the P's flag set, which the functions above look at where they would wait. */
static pa_gcproc *begin_trying(void)
{
    if (!pa_world_is_inside_checked(pa_world_self()))
        abort_outside();
    pa_gcproc *g = pa_current_mcache->gc;
    g->trying = true;
    return g;
}

static void *end_trying(pa_gcproc *g, void *object)
{
    g->trying = false;
    return object;
}

PA_EXPORT void *pa_try_new(const pa_type *type)
{
    if (PA_LIKELY(type->layout != PA_LAYOUT_BITMAP)) {
        void *object =
            new_fast(pa_current_mcache->gc, PA_KIND_SCAN, type->size_class, type->slot_bytes, type->layout);
        if (PA_LIKELY(object != NULL))
            return object;
    }
    pa_gcproc *g = begin_trying();
    return end_trying(g, pa_new_array(type, 1));
}

PA_EXPORT void *pa_try_new_pointers(size_t count)
{
    pa_gcproc *g = begin_trying();
    return end_trying(g, pa_new_pointers(count));
}

PA_EXPORT void *pa_try_new_bytes(size_t nbytes)
{
    pa_gcproc *g = begin_trying();
    return end_trying(g, pa_new_bytes(nbytes));
}

PA_EXPORT void pa_settle(void)
{
    pa_proc *p = pa_world_self();
    if (!pa_world_is_inside_checked(p))
        abort_outside();
    pa_world_poll(p);
    pa_assist_settle(p);
}
