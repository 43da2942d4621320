/* malloc.c - the explicit allocation family: the fast paths, and the way down from a miss.
 *
 * Owns nothing.  A malloc up to 1 KiB is a thread-local load, a table load and a pop; a free is a page
 * table load, "is it my span?", a check that the pointer starts a block, and a push.  Everything else is
 * out of line.  Callers without a P come through the same misses (world/proc.h).
 *
 * Free accepts exactly live blocks of ours.  What cannot be one - foreign and interior pointers, blocks
 * that were visibly freed before - ends the process with one line (PA_CHECK's policy: never go on with
 * a heap that somebody corrupts).
 */
#include <errno.h>
#include <string.h>

#include "api/sample.h"
#include "base/bits.h"
#include "base/poison.h"
#include "heap/mcache.h"
#include "heap/remote.h"
#include "include/pyalloc.h"
#include "sys/vm.h"
#include "world/roots.h"

enum { CALLOC_LAZY_BYTES = 4096 }; /* elements from here on are left untouched when their pages are fresh */

/* realloc of a block of these sizes that must move: it gets at least a quarter of room. */
enum { ROOM_PART = 4, ROOM_LEAST_BYTES = 512, ROOM_MOST_BYTES = 1 << 20 };

/* realloc of so large a block that must move: in pieces (no bin would keep the old one anyway). */
enum { MOVE_LEAST_BYTES = 8 << 20, MOVE_PIECE_BYTES = 4 << 20 };

static void *out_of_memory(void)
{
    errno = ENOMEM;
    return NULL;
}

/* ---- Malloc ---- */

PA_INLINE void *pop(pa_span *s)
{
    void *p = s->free;
    if (PA_LIKELY(p != NULL)) {
        pa_owner_set(&s->free, pa_link_get(p));
        pa_owner_add(&s->live, 1);
        PA_UNPOISON(p, pa_span_element_bytes(s));
    }
    return p;
}

typedef struct request {
    size_t nbytes;
    size_t align;
    unsigned size_class;
} request;

static void *alloc_class_on(pa_mcache *c, void *argument)
{
    unsigned size_class = ((request *)argument)->size_class;
    void *p = pop(c->current[size_class]);
    if (p)
        return p;
    pa_span *s = pa_mcache_refill(c, size_class);
    return s ? pop(s) : NULL;
}

/* c is the calling thread's, perhaps a constant one. */
static PA_NOINLINE void *malloc_class_slow(pa_mcache *c, unsigned size_class)
{
    void *p;
    if (PA_UNLIKELY(!pa_mcache_is_real(c))) {
        c = pa_proc_attach();
        if (pa_owner_get(&c->sampling) && pa_sampling_count(c, pa_class_object_bytes[size_class]) &&
            (p = pa_sample_block(c, size_class)) != NULL)
            return p; /* a thread's first block counts, too */
    }
    request r = {.size_class = size_class};
    p = pa_mcache_is_real(c) ? alloc_class_on(c, &r) : pa_proc_with_orphan(alloc_class_on, &r);
    return p ? p : out_of_memory();
}

static void *alloc_pages_on(pa_mcache *c, void *argument)
{
    request *r = argument;
    size_t npages = pa_div_ceil(r->nbytes, PA_PAGE_BYTES);
    return pa_mcache_alloc_large(c, npages, r->align > PA_PAGE_BYTES ? r->align >> PA_PAGE_SHIFT : 1);
}

/* A large span; NULL without touching errno. */
static PA_NOINLINE pa_span *alloc_large_slow(size_t nbytes, size_t align)
{
    if (nbytes > PTRDIFF_MAX || align > PTRDIFF_MAX)
        return NULL;
    pa_mcache *c = pa_proc_attach();
    request r = {.nbytes = nbytes, .align = align};
    pa_span *s = pa_mcache_is_real(c) ? alloc_pages_on(c, &r) : pa_proc_with_orphan(alloc_pages_on, &r);
    if (!s)
        return NULL;
    PA_UNPOISON(s->base, pa_span_bytes(s));
    if (PA_UNLIKELY(pa_racy_load(&c->sampling)))
        pa_sample_large(c, s);
    return s;
}

/* The same, from the bins only; NULL when they have none. A constant mcache's are empty. */
PA_INLINE pa_span *alloc_large_fast(pa_mcache *c, size_t nbytes)
{
    if (PA_UNLIKELY(nbytes > pa_owner_get(&c->binned_max_bytes)))
        return NULL;
    pa_span *s = pa_mcache_bin_take(c, (nbytes + PA_PAGE_BYTES - 1) >> PA_PAGE_SHIFT);
    if (PA_LIKELY(s != NULL))
        PA_UNPOISON(s->base, pa_span_bytes(s));
    return s;
}

/* A counted block, which may be due for a sample. */
static PA_NOINLINE void *malloc_due(pa_mcache *c, unsigned size_class)
{
    void *p = pa_sample_block(c, size_class);
    return p || (p = pop(c->current[size_class])) ? p : malloc_class_slow(c, size_class);
}

/* A miss of a small or medium block; the second also while there is a heap profile, which counts it here. */
static PA_NOINLINE void *malloc_class_miss(pa_mcache *c, unsigned size_class)
{
    if (PA_LIKELY(!pa_owner_get(&c->sampling)))
        return malloc_class_slow(c, size_class);
    if (PA_UNLIKELY(pa_sampling_count(c, pa_class_object_bytes[size_class])))
        return malloc_due(c, size_class);
    void *p = pop(c->current[size_class]);
    return PA_LIKELY(p != NULL) ? p : malloc_class_slow(c, size_class);
}

static PA_NOINLINE void *malloc_large_slow(size_t nbytes)
{
    if (nbytes <= PA_SMALL_MAX_BYTES) /* what malloc_medium sends here */
        return malloc_class_miss(pa_current_mcache, pa_class_of_size(nbytes));
    pa_span *s = alloc_large_slow(nbytes, 1);
    return s ? (void *)s->base : out_of_memory();
}

static PA_NOINLINE void *malloc_large(size_t nbytes, pa_mcache *c)
{
    pa_span *s = alloc_large_fast(c, nbytes);
    return PA_LIKELY(s != NULL) ? (void *)s->base : malloc_large_slow(nbytes);
}

/* A miss of a small block, or any of them while there is a heap profile (heap/sampling.h): the table has no span then,
 * and the class's has blocks. Every instruction here counts, so what the fast path has got already is passed on. */
static PA_NOINLINE void *malloc_small_slow(pa_mcache *c, size_t step)
{
    unsigned size_class = pa_size_to_class8[step];
    pa_span *s = c->current[size_class];
    if (PA_UNLIKELY(s->free == NULL))
        return malloc_class_miss(c, size_class);
    if (PA_UNLIKELY(pa_sampling_count(c, pa_class_object_bytes[size_class])))
        return malloc_due(c, size_class);
    return pop(s);
}

static PA_NOINLINE void *malloc_medium(size_t nbytes)
{
    pa_mcache *c = pa_current_mcache;
    if (PA_UNLIKELY(nbytes > pa_owner_get(&c->medium_max_bytes)))
        return malloc_large(nbytes, c);
    unsigned size_class = pa_class_of_size(nbytes);
    void *p = pop(c->current[size_class]);
    return PA_LIKELY(p != NULL) ? p : malloc_class_slow(c, size_class);
}

PA_INLINE void *malloc_inline(size_t nbytes)
{
    if (PA_UNLIKELY(nbytes > PA_SMALL_MAX_STEP8_BYTES))
        return malloc_medium(nbytes);
    pa_mcache *c = pa_current_mcache;
    size_t step = (nbytes + 7) >> 3;
    void *p = pop(pa_owner_get(&c->direct[step]));
    return PA_LIKELY(p != NULL) ? p : malloc_small_slow(c, step);
}

PA_EXPORT void *pa_malloc(size_t nbytes)
{
    return malloc_inline(nbytes);
}

/* ---- Free ---- */

static _Noreturn PA_COLD void bad_pointer(const char *call, const pa_span *s, const void *p)
{
    uint32_t state = s ? pa_span_state_racy(s) : PA_SPAN_DEAD;
    if (!s)
        pa_abort_pointer(call, p,
                         "not allocated by pyalloc, or already given back (foreign pointer or double free)");
    if (state == PA_SPAN_CACHED || state == PA_SPAN_DEAD)
        pa_abort_pointer(call, p, "already freed (double free)");
    if (state == PA_SPAN_MANAGED)
        pa_abort_pointer(call, p, "a managed object, which only the collector frees");
    if ((uintptr_t)p >= pa_racy_load(&s->tail))
        pa_abort_pointer(call, p, "points behind the blocks that were handed out (foreign pointer)");
    if (!pa_span_is_carved_element(s, p))
        pa_abort_pointer(call, p, "points inside a block, not at its start (interior pointer)");
    pa_abort_pointer(call, p, "already freed (double free)");
}

PA_INLINE void push(pa_mcache *c, pa_span *s, void *p)
{
    pa_link_set(p, s->free);
    PA_POISON(p, pa_span_element_bytes(s));
    pa_owner_set_release(&s->free, p); /* heap/hollow.c: who sees p as the head sees its link */
    PA_YIELD(FREE_PUSHED);
    /* heap/idle.c: who sees this sees the push, and that we are done with s. Unless it is 0 now, that thread may take
     * the span and set `live`, so it is not read again. */
    if (PA_UNLIKELY(pa_owner_add_release(&s->live, -1) == 0))
        pa_mcache_span_emptied(c, s);
}

static void *free_on(pa_mcache *c, void *p)
{
    pa_span *s = pa_span_of(p);
    if (s->size_class == 0)
        pa_mcache_free_large_slow(c, s);
    else
        pa_mcache_free_remote_slow(c, s, p);
    return NULL;
}

static PA_NOINLINE void free_elsewhere_slow(void *p)
{
    pa_mcache *c = pa_proc_attach();
    if (pa_mcache_is_real(c))
        free_on(c, p);
    else
        pa_proc_with_orphan(free_on, p);
}

/* In a span with pins: ends the process when p's block holds a registered root range, which the collector would
 * go on reading. */
static void refuse_pinned(const char *call, const pa_span *s, const void *p)
{
    if (!pa_racy_load(&s->pins) || pa_span_state_racy(s) != PA_SPAN_MANUAL || !pa_span_is_block(s, p))
        bad_pointer(call, s, p);
    if (pa_roots_has_range_in((uintptr_t)p, pa_span_element_bytes(s)))
        pa_abort_pointer(call, p, "holds a registered root range: call pa_roots_remove first");
}

static void free_elsewhere(pa_mcache *c, pa_span *s, void *p);

/* A block that failed a fast path's test: no block, one of a span with pins, or a sampled one. */
static PA_COLD void free_odd(pa_mcache *c, pa_span *s, void *p)
{
    if (pa_span_state_racy(s) == PA_SPAN_MANUAL && pa_span_is_block(s, p) && pa_sample_freed(s)) {
        free_elsewhere(c, s, p);
        return;
    }
    refuse_pinned("free of", s, p);
    if (atomic_load_explicit(&s->owner, memory_order_relaxed) != c) {
        if (!pa_mcache_try_free_remote(c, s, p))
            free_elsewhere_slow(p);
        return;
    }
    if (p == s->free)
        bad_pointer("free of", s, p);
    push(c, s, p);
}

/* p is in s, which is not ours or large. The constant mcaches fail both tries. */
static PA_NOINLINE void free_elsewhere(pa_mcache *c, pa_span *s, void *p)
{
    if (PA_UNLIKELY(pa_span_state_racy(s) != PA_SPAN_MANUAL || !pa_span_is_element(s, p))) {
        free_odd(c, s, p);
        return;
    }
    if (PA_UNLIKELY(
            !(s->size_class == 0 ? pa_mcache_try_free_large(c, s) : pa_mcache_try_free_remote(c, s, p))))
        free_elsewhere_slow(p);
}

static PA_NOINLINE void free_unusual(pa_mcache *c, pa_span *s, void *p)
{
    if (!p)
        return;
    if (!s || atomic_load_explicit(&s->owner, memory_order_relaxed) == c)
        bad_pointer("free of", s, p);
    free_elsewhere(c, s, p);
}

PA_INLINE void free_in_span(pa_mcache *c, pa_span *s, void *p)
{
    if (PA_UNLIKELY(atomic_load_explicit(&s->owner, memory_order_relaxed) != c)) {
        free_elsewhere(c, s, p);
        return;
    }
    if (PA_UNLIKELY(!pa_span_is_carved_element(s, p) || p == s->free)) {
        free_odd(c, s, p);
        return;
    }
    push(c, s, p);
}

PA_INLINE void free_inline(void *p)
{
    pa_span *s = pa_span_of(p);
    pa_mcache *c = pa_current_mcache;
    if (PA_UNLIKELY(!s))
        free_unusual(c, s, p);
    else
        free_in_span(c, s, p);
}

PA_EXPORT void pa_free(void *p)
{
    free_inline(p);
}

PA_EXPORT void pa_free_or(void *p, void (*foreign)(void *p))
{
    pa_span *s = pa_span_of(p);
    if (PA_UNLIKELY(!s))
        foreign(p);
    else
        free_in_span(pa_current_mcache, s, p);
}

PA_EXPORT void pa_free_sized(void *p, size_t nbytes)
{
    PA_ASSERT(!p || nbytes <= pa_usable_size(p));
    (void)nbytes;
    free_inline(p);
}

PA_EXPORT void pa_free_aligned_sized(void *p, size_t align, size_t nbytes)
{
    PA_ASSERT(!p || (nbytes <= pa_usable_size(p) && (uintptr_t)p % align == 0));
    (void)align;
    (void)nbytes;
    free_inline(p);
}

/* ---- Calloc ---- */

static void *calloc_large(size_t nbytes)
{
    pa_span *s = alloc_large_fast(pa_current_mcache, nbytes);
    if (!s && !(s = alloc_large_slow(nbytes, 1)))
        return out_of_memory();
    return s->needs_zero ? memset((void *)s->base, 0, nbytes) : (void *)s->base;
}

/* An element of a page or more whose pages nobody ever wrote: take it off the tail, leave it untouched. */
static void *calloc_from_fresh_tail(unsigned size_class)
{
    pa_span *s = pa_current_mcache->current[size_class];
    if (s->free || s->needs_zero || s->tail >= s->limit)
        return NULL;
    if (PA_UNLIKELY(pa_racy_load(&pa_current_mcache->sampling)) &&
        pa_sampling_count(pa_current_mcache, pa_class_object_bytes[size_class]))
        return NULL; /* due for a sample: the next count passes, too */
    void *p = (void *)s->tail;
    pa_owner_add(&s->tail, pa_class_object_bytes[size_class]);
    pa_owner_add(&s->live, 1);
    PA_UNPOISON(p, pa_class_object_bytes[size_class]);
    return p;
}

PA_EXPORT void *pa_calloc(size_t count, size_t nbytes)
{
    size_t total;
    if (__builtin_mul_overflow(count, nbytes, &total))
        return out_of_memory();
    if (total > PA_SMALL_MAX_BYTES)
        return calloc_large(total);
    void *p = NULL;
    if (total >= CALLOC_LAZY_BYTES && (p = calloc_from_fresh_tail(pa_class_of_size(total))) != NULL)
        return p;
    p = malloc_inline(total);
    return p ? memset(p, 0, total) : NULL;
}

/* ---- Aligned ---- */

static void *memalign_checked(size_t align, size_t nbytes)
{
    if (align <= 8 || (align == 16 && nbytes > 8))
        return malloc_inline(nbytes);
    if (nbytes <= PA_SMALL_MAX_BYTES && align <= PA_PAGE_BYTES) {
        /* Spans start on a page: an element size that align divides aligns every element. */
        for (unsigned k = pa_class_of_size(nbytes > align ? nbytes : align); k < PA_SIZE_CLASSES; k++)
            if (pa_class_object_bytes[k] % align == 0)
                return malloc_inline(pa_class_object_bytes[k]);
    }
    pa_span *s = alloc_large_slow(nbytes ? nbytes : 1, align);
    return s ? (void *)s->base : out_of_memory();
}

PA_EXPORT void *pa_memalign(size_t align, size_t nbytes)
{
    if (!pa_is_pow2(align)) {
        errno = EINVAL;
        return NULL;
    }
    return memalign_checked(align, nbytes);
}

PA_EXPORT void *pa_aligned_alloc(size_t align, size_t nbytes)
{
    return pa_memalign(align, nbytes);
}

PA_EXPORT int pa_posix_memalign(void **out, size_t align, size_t nbytes)
{
    if (!pa_is_pow2(align) || align % sizeof(void *) != 0)
        return EINVAL;
    int saved_errno = errno;
    void *p = memalign_checked(align, nbytes);
    errno = saved_errno;
    if (!p)
        return ENOMEM;
    *out = p;
    return 0;
}

/* ---- Sizes ---- */

/* The span of a block that the caller says is live; ends the process when it cannot be. */
static pa_span *live_span_of(const char *call, const void *p)
{
    pa_span *s = pa_span_of(p);
    if (PA_UNLIKELY(!s || pa_span_state_racy(s) != PA_SPAN_MANUAL || !pa_span_is_block(s, p)))
        bad_pointer(call, s, p);
    return s;
}

PA_EXPORT size_t pa_usable_size(const void *p)
{
    return p ? pa_span_element_bytes(live_span_of("usable_size of", p)) : 0;
}

PA_EXPORT size_t pa_good_size(size_t nbytes)
{
    if (nbytes <= PA_SMALL_MAX_BYTES)
        return pa_class_object_bytes[pa_class_of_size(nbytes)];
    return nbytes >= (size_t)1 << PA_USER_ADDRESS_BITS ? 0 : pa_round_up(nbytes, PA_PAGE_BYTES);
}

PA_EXPORT bool pa_owns(const void *addr)
{
    const pa_span *s = pa_span_of(addr);
    uint32_t state = s ? pa_span_state_racy(s) : PA_SPAN_DEAD;
    return state == PA_SPAN_MANUAL || state == PA_SPAN_MANAGED;
}

/* ---- Realloc ---- */

typedef struct resizing {
    pa_span *span;
    size_t npages;
} resizing;

static void *resize_on(pa_mcache *c, void *argument)
{
    resizing *r = argument;
    return pa_mcache_resize_large(c, r->span, r->npages) ? r->span : NULL;
}

/* Grows or cuts a large block where it is. */
static bool realloc_large_in_place(pa_span *s, size_t nbytes)
{
    resizing r = {.span = s, .npages = pa_div_ceil(nbytes, PA_PAGE_BYTES)};
    if (r.npages == s->npages)
        return true;
    pa_mcache *c = pa_proc_attach();
    if (!(pa_mcache_is_real(c) ? resize_on(c, &r) : pa_proc_with_orphan(resize_on, &r)))
        return false;
    if (PA_UNLIKELY(pa_racy_load(&c->sampling) || atomic_load_explicit(&s->sample, memory_order_relaxed)))
        pa_sample_resized(c, s);
    return true;
}

static void *free_released_on(pa_mcache *c, void *s)
{
    pa_mcache_free_released(c, s);
    return NULL;
}

/* Copies a block of a large span to a larger one, piece by piece, and gives each piece's memory back at once: two
 * copies of hundreds of MiB are never resident together. */
static void *copy_and_release(pa_span *s, size_t nbytes)
{
    unsigned char *to = malloc_large(nbytes, pa_current_mcache), *from = (unsigned char *)s->base;
    if (!to)
        return NULL;
    bool released = true;
    for (size_t done = 0, n; done < pa_span_bytes(s); done += n) {
        n = pa_span_bytes(s) - done < MOVE_PIECE_BYTES ? pa_span_bytes(s) - done : MOVE_PIECE_BYTES;
        memcpy(to + done, from + done, n);
        released &= pa_vm_release(from + done, n);
    }
    if (!released) {
        free_inline(from);
        return to;
    }
    pa_sample_freed(s);
    pa_mcache *c = pa_proc_attach();
    if (pa_mcache_is_real(c))
        free_released_on(c, s);
    else
        pa_proc_with_orphan(free_released_on, s);
    return to;
}

/* What to ask for when a block of `usable` bytes must move to grow to nbytes. Who grows a block by small steps does so
 * again: a quarter of room makes the number of copies logarithmic, whatever the steps. */
static size_t room_to_grow(size_t usable, size_t nbytes)
{
    size_t roomy = usable + usable / ROOM_PART;
    return usable >= ROOM_LEAST_BYTES && usable <= ROOM_MOST_BYTES && nbytes < roomy ? roomy : nbytes;
}

PA_EXPORT void *pa_realloc(void *p, size_t nbytes)
{
    if (!p)
        return malloc_inline(nbytes);
    if (nbytes == 0) {
        free_inline(p);
        return NULL;
    }
    if (nbytes > PTRDIFF_MAX)
        return out_of_memory();
    pa_span *s = live_span_of("realloc of", p);
    if (PA_UNLIKELY(pa_racy_load(&s->pins)))
        refuse_pinned("realloc of", s, p);
    size_t usable = pa_span_element_bytes(s);
    if (nbytes <= usable && nbytes >= usable / 2)
        return p;
    if (s->size_class == 0 && nbytes > PA_SMALL_MAX_BYTES && realloc_large_in_place(s, nbytes))
        return p;
    if (nbytes > usable && usable >= MOVE_LEAST_BYTES && pa_vm_page_size_bytes() <= PA_PAGE_BYTES)
        return copy_and_release(s, nbytes);
    int saved_errno = errno;
    size_t ask = nbytes > usable ? room_to_grow(usable, nbytes) : nbytes;
    void *moved = malloc_inline(ask);
    if (!moved && ask != nbytes && (moved = malloc_inline(nbytes)) != NULL)
        errno = saved_errno; /* there was no room, and none is needed */
    if (!moved) {
        if (nbytes > usable)
            return NULL;
        errno = saved_errno; /* a smaller size never fails: the old block is large enough */
        return p;
    }
    memcpy(moved, p, nbytes < usable ? nbytes : usable);
    free_inline(p);
    return moved;
}

PA_EXPORT void *pa_reallocarray(void *p, size_t count, size_t nbytes)
{
    size_t total;
    if (__builtin_mul_overflow(count, nbytes, &total))
        return out_of_memory();
    return pa_realloc(p, total);
}
