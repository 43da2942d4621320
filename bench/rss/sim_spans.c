/* sim_spans.c - spans of equal slots, twice: by the 67 size classes, and by exact object size (slab).
 *
 * A span has a free list through its slots and a count of live ones; a class has a list of spans with free
 * slots; an empty span goes back at once.  Size classes: Tcmalloc and Go; spans of 8 KiB pages, larger blocks
 * are whole pages. Slab: a cache for each object size, here in steps of 16 bytes up to 4 KiB, slabs of at
 * least 8 objects (J. Bonwick, The Slab Allocator, USENIX 1994).
 */
#include <stdlib.h>

#include "include/pyalloc.h"
#include "sim.h"

enum { HEAP_PAGE_BYTES = 8192, CLASSES_MAX = 4096 / 16 + 1 };

typedef struct span {
    struct span *next, *prev;   /* with free slots */
    char *base;
    void *free;
    size_t nbytes, slot_bytes, live, slots;
    unsigned class;
} span;

static span *partial[CLASSES_MAX];

static void link_span(span *s)
{
    s->prev = NULL;
    s->next = partial[s->class];
    if (s->next)
        s->next->prev = s;
    partial[s->class] = s;
}

static void unlink_span(span *s)
{
    if (s->prev)
        s->prev->next = s->next;
    else
        partial[s->class] = s->next;
    if (s->next)
        s->next->prev = s->prev;
}

static span *new_span(unsigned class, size_t nbytes, size_t slot_bytes)
{
    span *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    *s = (span){.base = sim_take(nbytes, HEAP_PAGE_BYTES), .nbytes = nbytes, .slot_bytes = slot_bytes, .class = class};
    s->slots = nbytes / slot_bytes;
    for (size_t i = s->slots; i-- > 0;) {
        void *slot = s->base + i * slot_bytes;
        *(void **)slot = s->free;
        s->free = slot;
    }
    for (size_t at = 0; at < nbytes; at += SIM_PAGE_BYTES)
        *sim_page_word(s->base + at) = s;
    return s;
}

static void *take_slot(unsigned class, size_t span_bytes, size_t slot_bytes)
{
    span *s = partial[class];
    if (!s) {
        s = new_span(class, span_bytes, slot_bytes);
        link_span(s);
    }
    void *p = s->free;
    s->free = *(void **)p;
    if (++s->live == s->slots)
        unlink_span(s);
    return p;
}

static void give_slot(void *p)
{
    span *s = *sim_page_word(p);
    *(void **)p = s->free;
    s->free = p;
    if (s->live-- == s->slots)
        link_span(s);
    if (s->live == 0) {
        unlink_span(s);
        sim_give(s->base, s->nbytes);
        free(s);
    }
}

/* ---- Size classes ---- */

static size_t classes_cost(size_t nbytes)
{
    return pa_good_size(nbytes);
}

static void *classes_take(size_t nbytes)
{
    pa_size_class_info info;
    int class = pa_size_class_of(nbytes);
    if (class == 0)
        return sim_take(classes_cost(nbytes), HEAP_PAGE_BYTES);
    pa_size_class(class, &info);
    return take_slot((unsigned)class, info.span_bytes, info.object_bytes);
}

static void classes_give(void *p, size_t nbytes)
{
    if (pa_size_class_of(nbytes) == 0)
        sim_give(p, classes_cost(nbytes));
    else
        give_slot(p);
}

const sim_design sim_classes = {"size classes", "67 classes, spans of 8 KiB pages", classes_take, classes_give,
                                classes_cost};

/* ---- Slab ---- */

static size_t slab_cost(size_t nbytes)
{
    nbytes = nbytes ? nbytes : 1;
    return sim_round_up(nbytes, nbytes <= 4096 ? 16 : SIM_PAGE_BYTES);
}

static void *slab_take(size_t nbytes)
{
    size_t cost = slab_cost(nbytes);
    if (cost > 4096)
        return sim_take(cost, SIM_PAGE_BYTES);
    return take_slot((unsigned)(cost / 16), sim_round_up(8 * cost, SIM_PAGE_BYTES), cost);
}

static void slab_give(void *p, size_t nbytes)
{
    if (slab_cost(nbytes) > 4096)
        sim_give(p, slab_cost(nbytes));
    else
        give_slot(p);
}

const sim_design sim_slab = {"slab", "a cache for each object size", slab_take, slab_give, slab_cost};
