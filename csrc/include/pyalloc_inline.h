/* pyalloc_inline.h - the few calls that managed code makes all the time, inlined: C and C++ (gcc, clang).
 *
 * Each has an exported twin in pyalloc.h, of the same name without _inline, the same contract and the same effect;
 * only misuse is not always detected here.  What these functions read of the library's thread state is part of
 * the interface's number: compare pa_abi_version() with PA_INLINE_ABI_VERSION once at start.
 */
#ifndef PYALLOC_INLINE_H
#define PYALLOC_INLINE_H

#include "pyalloc.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PA_INLINE_ABI_VERSION = 2, PA_INLINE_STATE_OFFSET = 4160, PA_INLINE_SIZE_CLASSES = 67 };

/* The start of a run of pages that a thread allocates from: the free slots from bump on that are ready for objects. */
typedef struct pa_inline_span {
    uintptr_t bump;         /* the next one; what lies below was handed out */
    uintptr_t reserved;
    uint32_t layout;        /* of all objects here */
    uint32_t bump_end;      /* low half of the address where they end */
} pa_inline_span;

/* The start of a pa_type. */
typedef struct pa_inline_type {
    uint32_t slot_bytes;
    uint32_t layout;        /* of spans to take a slot of without further ado; no span has that of other types */
    uint8_t size_class;
} pa_inline_type;

/* The start of a thread's collector state. Written by the library and by the functions below; see there. */
typedef struct pa_inline_state {
    uint32_t inside;        /* 1 while the thread may touch managed objects */
    uint32_t stop;          /* somebody waits for the thread to leave */
    uint32_t depth;         /* nested pa_enter */
    uint8_t marking;        /* stores need the barrier */
    uint8_t reserved;
    uint8_t no_fence;       /* entering needs none: who stops threads runs one on their processors */
    pa_inline_span *spans[PA_INLINE_SIZE_CLASSES]; /* that it allocates objects with pointers from */
} pa_inline_state;

/* The calling thread's; every thread has one, before its first pa_enter a constant one that is outside. */
extern __thread char *pa_inline_thread __attribute__((tls_model("initial-exec")));

static inline pa_inline_state *pa_inline_self(void)
{
    return *(pa_inline_state **)(void *)(pa_inline_thread + PA_INLINE_STATE_OFFSET);
}

static inline void *pa_new_inline(const pa_type *type)
{
    typedef uint64_t both_words __attribute__((may_alias)); /* inside is the low one */
    const pa_inline_type *t = (const pa_inline_type *)(const void *)type;
    const pa_inline_state *self = pa_inline_self();
    if (__builtin_expect(__atomic_load_n((const both_words *)(const void *)&self->inside, __ATOMIC_RELAXED) == 1, 1)) {
        pa_inline_span *s = self->spans[t->size_class];
        uintptr_t slot = s->bump;
        if (__builtin_expect((uint32_t)slot != s->bump_end && s->layout == t->layout, 1)) {
            __atomic_store_n(&s->bump, slot + t->slot_bytes, __ATOMIC_RELEASE);
            __atomic_thread_fence(__ATOMIC_RELEASE);
            if (!slot)
                __builtin_unreachable(); /* so that callers need not look */
            return (void *)slot;
        }
    }
    return pa_new(type);    /* also where blocks are watched: AddressSanitizer's builds */
}

static inline void pa_store_inline(void **slot, void *value)
{
    if (__builtin_expect(pa_inline_self()->marking, 0))
        pa_store(slot, value);
    else
        __atomic_store_n(slot, value, __ATOMIC_RELEASE);
}

static inline void pa_safepoint_inline(void)
{
    if (__builtin_expect(__atomic_load_n(&pa_inline_self()->stop, __ATOMIC_RELAXED) != 0, 0))
        pa_safepoint();
}

static inline bool pa_enter_inline(void)
{
    pa_inline_state *s = pa_inline_self();
    if (__builtin_expect(s->depth == 0 && s->no_fence, 1)) {
        __atomic_store_n(&s->inside, 1, __ATOMIC_RELAXED);
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        if (__builtin_expect(__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE) == 0, 1)) {
            s->depth = 1;
            return true;
        }
    }
    return pa_enter();      /* nested, the first time, or a stop is wanted: takes `inside` back and waits */
}

static inline void pa_leave_inline(void)
{
    pa_inline_state *s = pa_inline_self();
    if (__builtin_expect(s->depth == 1 && s->no_fence && !__atomic_load_n(&s->stop, __ATOMIC_RELAXED), 1)) {
        s->depth = 0;
        /* A stopper that comes just now is not woken by this thread; it looks again after 50 us at most. */
        __atomic_store_n(&s->inside, 0, __ATOMIC_RELEASE);
        return;
    }
    pa_leave();
}

#ifdef __cplusplus
}
#endif
#endif
