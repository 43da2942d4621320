/* special.h - records that hang on managed objects: weak handles, cleanups and samples (Go: mheap.go, specials). */
#ifndef PA_SPECIAL_H
#define PA_SPECIAL_H

#include "heap/heap.h"

typedef struct pa_special {
    struct pa_special *next;    /* of the span, in no order; under the specials' lock */
    struct pa_weak *weak;       /* NULL: a cleanup or a sample */
    uint64_t cleanup_id;
    uint32_t idx;               /* element of the span */
    uint32_t sample;            /* record of the heap profile (heap/profile.h); 0: a weak handle or a cleanup */
    void *fixalloc_word;             /* last word: sys/offheap.h */
} pa_special;

struct pa_weak {
    /* The object; NULL once it is dead. Set by pa_special_add_weak, cleared by the sweeper of the object's span
     * before it marks the span swept (release); read inside (acquire), see api/gc_objects.c. */
    _Atomic(void *) object;
    pa_special *special;        /* NULL when the object is dead; under the specials' lock */
    void *fixalloc_word;
};

/* Records for the live object at base; the span cannot go away (the caller is inside and holds the object).
 * False when out of memory. */
struct pa_weak *pa_special_add_weak(pa_heap *h, pa_span *s, uint32_t idx, void *object);
bool pa_special_add_cleanup(pa_heap *h, pa_span *s, uint32_t idx, uint64_t id);
bool pa_special_add_sample(pa_heap *h, pa_span *s, uint32_t idx, uint32_t record);
void pa_special_free_weak(pa_heap *h, struct pa_weak *w);
/* Has any element of s a record? Without the lock: for s's sweeper, who meets no new ones for dead elements. */
PA_INLINE bool pa_special_any(const pa_span *s)
{
    return __atomic_load_n(&s->specials, __ATOMIC_ACQUIRE) != NULL;
}

/* Detaches the records of every unmarked element: weak handles become NULL, cleanup ids are queued,
 * samples dropped.
 * Caller sweeps s. */
void pa_special_sweep(pa_heap *h, pa_span *s);
/* Takes queued ids, oldest first; how many. */
size_t pa_special_take_cleanups(pa_heap *h, uint64_t *ids, size_t capacity);
/* Were ids queued since the last call? */
bool pa_special_take_news(pa_heap *h);

#endif
