/* gc_objects.c - managed objects from C: entering, stores, frames, handles, ranges, weak handles, cleanups.
 *
 * Owns nothing; the contract of every function is in include/pyalloc.h.  The fast halves of enter, leave and store
 * are a few instructions on the thread's P (world/stw.h, gc/barrier.h).
 */
#include <errno.h>
#include <string.h>

#include "base/yield.h"
#include "gc/barrier.h"
#include "gc/gc.h"
#include "heap/object.h"
#include "heap/special.h"
#include "include/pyalloc.h"

PA_INLINE pa_gcproc *self_inside(void)
{
    pa_gcproc *g = pa_current_mcache->gc;
    PA_ASSERT(pa_racy_load(&g->inside) == 1);
    return g;
}

/* ---- Inside and outside ---- */

static PA_NOINLINE pa_proc *attach(void)
{
    pa_gc_configure();
    pa_proc *p = pa_world_attach();
    if (!p)
        errno = ENOMEM;
    return p;
}

PA_EXPORT bool pa_enter(void)
{
    pa_proc *p = pa_world_self();
    if (PA_UNLIKELY(!pa_gcproc_is_real(p->cache.gc)) && !(p = attach()))
        return false;
    if (p->cache.gc->depth++ == 0)
        pa_world_enter(p);
    return true;
}

PA_EXPORT bool pa_try_enter(void)
{
    pa_proc *p = pa_world_self();
    if (PA_UNLIKELY(!pa_gcproc_is_real(p->cache.gc)) && !(p = attach()))
        return false;
    if (p->cache.gc->depth == 0 && !pa_world_try_inside(p)) {
        pa_world_leave(p);
        return false;
    }
    p->cache.gc->depth++;
    return true;
}

PA_EXPORT bool pa_enter_within(uint64_t timeout_ns)
{
    pa_proc *p = pa_world_self();
    if (PA_UNLIKELY(!pa_gcproc_is_real(p->cache.gc)) && !(p = attach()))
        return false;
    if (p->cache.gc->depth == 0 && !pa_world_enter_within(p, timeout_ns)) {
        errno = EAGAIN;
        return false;
    }
    p->cache.gc->depth++;
    return true;
}

PA_EXPORT bool pa_stop_is_wanted(void)
{
    (void)self_inside();
    return pa_world_is_wanted(pa_world_self());
}

PA_EXPORT void pa_leave(void)
{
    pa_proc *p = pa_world_self();
    if (PA_UNLIKELY(p->cache.gc->depth == 0))
        pa_abort_pointer("pa_leave by the thread at", &pa_current_mcache, "which is outside: a pa_enter is missing");
    if (--p->cache.gc->depth == 0)
        pa_world_leave(p);
}

PA_EXPORT bool pa_is_inside(void)
{
    return pa_current_mcache->gc->depth > 0;
}

PA_EXPORT void pa_safepoint(void)
{
    pa_proc *p = pa_world_self();
    if (PA_UNLIKELY(p->cache.gc->depth == 0))
        pa_abort_pointer("pa_safepoint by the thread at", &pa_current_mcache, "which is outside: call pa_enter first");
    pa_world_poll(p);
}

/* ---- Stores ---- */

/* May slot be written through the barrier: is it in a managed object, a handle or a barriered range? */
static bool is_slot(void **slot)
{
    pa_objref o;
    return (pa_object_resolve((uintptr_t)slot, &o) && o.kind == PA_KIND_SCAN) || pa_roots_has_slot((uintptr_t)slot);
}

PA_EXPORT void pa_store(void **slot, void *value)
{
    pa_gcproc *g = self_inside();
    PA_INVARIANT(is_slot(slot)); /* pa_store into what no root leads to */
    PA_YIELD(GC_STORE);
    if (g->marking)
        pa_barrier_store(g, __atomic_load_n(slot, __ATOMIC_RELAXED), value);
    __atomic_store_n(slot, value, __ATOMIC_RELEASE);
}

static PA_NOINLINE void shade_range(pa_gcproc *g, void **to, void *const *from, size_t count)
{
    for (size_t i = 0; i < count; i++)
        pa_barrier_store(g, __atomic_load_n(&to[i], __ATOMIC_RELAXED),
                         from ? __atomic_load_n(&from[i], __ATOMIC_RELAXED) : NULL);
}

PA_EXPORT void pa_store_range(void **to, void *const *from, size_t count)
{
    pa_gcproc *g = self_inside();
    PA_INVARIANT(count == 0 || (is_slot(to) && is_slot(to + count - 1)));
    if (PA_UNLIKELY(g->marking))
        shade_range(g, to, from, count);
    if (to < from || to >= from + count)
        for (size_t i = 0; i < count; i++)
            __atomic_store_n(&to[i], __atomic_load_n(&from[i], __ATOMIC_RELAXED), __ATOMIC_RELEASE);
    else
        for (size_t i = count; i-- > 0;)
            __atomic_store_n(&to[i], __atomic_load_n(&from[i], __ATOMIC_RELAXED), __ATOMIC_RELEASE);
}

PA_EXPORT void pa_clear_range(void **slots, size_t count)
{
    pa_gcproc *g = self_inside();
    if (PA_UNLIKELY(g->marking))
        shade_range(g, slots, NULL, count);
    for (size_t i = 0; i < count; i++)
        __atomic_store_n(&slots[i], NULL, __ATOMIC_RELEASE);
}

PA_EXPORT void *pa_load_unbarriered(void *const *slot)
{
    pa_gcproc *g = self_inside();
    void *value = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
    pa_objref o;
    if (PA_UNLIKELY(g->marking) && pa_object_resolve((uintptr_t)value, &o) && pa_object_is_allocated(&pa_the_heap, &o))
        pa_barrier_shade(g, value);
    return value;
}

/* ---- Looking at objects ---- */

static bool find(const void *p, pa_objref *o)
{
    return pa_object_resolve((uintptr_t)p, o) && pa_object_is_allocated(&pa_the_heap, o);
}

PA_EXPORT void *pa_find_object(const void *p)
{
    pa_objref o;
    return find(p, &o) ? (void *)o.base : NULL;
}

PA_EXPORT size_t pa_object_bytes(const void *obj)
{
    pa_objref o;
    return find(obj, &o) ? pa_object_slot_bytes(&o) : 0;
}

/* ---- Frames ---- */

PA_EXPORT void pa_frame_push(pa_frame *frame, void **slots, size_t count)
{
    pa_gcproc *g = self_inside();
    memset(slots, 0, count * sizeof *slots);
    *frame = (pa_frame){.up = g->frames, .slots = slots, .count = count};
    g->frames = frame;
}

PA_EXPORT void pa_frame_pop(pa_frame *frame)
{
    pa_gcproc *g = self_inside();
    PA_CHECK(g->frames == frame); /* frames are popped in reverse order */
    g->frames = frame->up;
}

/* ---- Handles ---- */

/* Handles whose owners could not enter when they freed them. */
static PA_NOINLINE void free_deferred(pa_proc *p)
{
    for (pa_handle *h = pa_roots_take_deferred(), *next; h; h = next) {
        next = h->next;
        pa_store((void **)&h->value, NULL);
        pa_roots_give_handle(p, h);
    }
}

PA_EXPORT pa_handle *pa_handle_new(void *obj)
{
    pa_proc *p = pa_world_self();
    (void)self_inside();
    if (PA_UNLIKELY(atomic_load_explicit(&pa_the_roots.deferred, memory_order_relaxed)))
        free_deferred(p);
    pa_handle *h = pa_roots_take_handle(p);
    if (PA_UNLIKELY(!h)) {
        errno = ENOMEM;
        return NULL;
    }
    pa_store((void **)&h->value, obj);
    return h;
}

PA_EXPORT void *pa_handle_get(const pa_handle *handle)
{
    return atomic_load_explicit(&((pa_handle *)(uintptr_t)handle)->value, memory_order_acquire);
}

PA_EXPORT void pa_handle_set(pa_handle *handle, void *obj)
{
    pa_store((void **)&handle->value, obj);
}

PA_EXPORT void pa_handle_free(pa_handle *handle)
{
    if (!handle)
        return;
    if (PA_UNLIKELY(!pa_try_enter())) {
        pa_roots_defer_handle(handle);
        return;
    }
    pa_store((void **)&handle->value, NULL);
    pa_roots_give_handle(pa_world_self(), handle);
    pa_leave();
}

/* ---- Ranges ---- */

PA_EXPORT int pa_roots_add(void *base, size_t nbytes, int flags)
{
    if (!pa_enter())
        return ENOMEM;
    int result = pa_roots_add_range((uintptr_t)base, nbytes, flags);
    /* What the slots hold came from somewhere that may lose it before this range is looked at. */
    pa_gcproc *g = self_inside();
    if (result == 0 && g->marking && flags != PA_ROOTS_CONSERVATIVE)
        shade_range(g, base, base, nbytes / sizeof(void *));
    pa_leave();
    return result;
}

PA_EXPORT int pa_roots_remove(void *base)
{
    pa_root_range removed;
    if (!pa_enter())
        return ENOMEM;
    bool found = pa_roots_remove_range((uintptr_t)base, &removed);
    pa_gcproc *g = self_inside();
    if (found && g->marking && removed.flags != PA_ROOTS_CONSERVATIVE)
        shade_range(g, base, NULL, (removed.end - removed.base) / sizeof(void *));
    pa_leave();
    return found ? 0 : EINVAL;
}

/* ---- Weak handles and cleanups ---- */

PA_EXPORT pa_weak *pa_weak_new(void *obj)
{
    (void)self_inside();
    pa_objref o;
    if (!find(obj, &o)) {
        errno = EINVAL;
        return NULL;
    }
    pa_weak *w = pa_special_add_weak(&pa_the_heap, pa_span_of((void *)o.span_base), o.idx, obj);
    if (!w)
        errno = ENOMEM;
    return w;
}

PA_EXPORT void *pa_weak_get(pa_weak *weak)
{
    pa_gcproc *g = self_inside();
    void *obj = atomic_load_explicit(&weak->object, memory_order_acquire);
    PA_YIELD(GC_WEAK_GET);
    pa_objref o;
    if (!obj || !pa_object_resolve((uintptr_t)obj, &o))
        return NULL;
    if (g->marking) {
        pa_barrier_shade(g, obj);
        return obj;
    }
    /* Marking is over until we leave. Swept: the sweeper has cleared the slot if the object is dead. Not yet:
     * the mark decides, and the bits of the last marking stay where they are. */
    pa_span *s = pa_span_of((void *)o.span_base);
    uint32_t sweepgen = atomic_load_explicit(&pa_the_heap.sweepgen, memory_order_relaxed);
    if (s && __atomic_load_n(&s->sweepgen, __ATOMIC_ACQUIRE) == sweepgen)
        return atomic_load_explicit(&weak->object, memory_order_acquire);
    return pa_object_is_set(&o, pa_alloc_plane(sweepgen)) ? obj : NULL;
}

PA_EXPORT void pa_weak_free(pa_weak *weak)
{
    if (weak)
        pa_special_free_weak(&pa_the_heap, weak);
}

PA_EXPORT int pa_cleanup_add(void *obj, uint64_t id)
{
    (void)self_inside();
    pa_objref o;
    if (!find(obj, &o))
        return EINVAL;
    return pa_special_add_cleanup(&pa_the_heap, pa_span_of((void *)o.span_base), o.idx, id) ? 0 : ENOMEM;
}

PA_EXPORT size_t pa_cleanup_take(uint64_t *ids, size_t capacity)
{
    return pa_the_heap.initialised ? pa_special_take_cleanups(&pa_the_heap, ids, capacity) : 0;
}

PA_EXPORT void pa_cleanup_on_queued(void (*notify)(void *argument), void *argument)
{
    pa_lock_acquire(&pa_the_gc.lock);
    pa_the_gc.notify = notify;
    pa_the_gc.notify_argument = argument;
    pa_lock_release(&pa_the_gc.lock);
}
