/* export_hollow.c - white-box view of heap/hollow, and slow paths for heap/thin.
 *
 * Test builds only.  Owns nothing; what is counted is counted in the process's heap.
 */
#include "export/export_hollow.h"

#include "base/poison.h"
#include "heap/hollow.h"
#include "heap/mcache.h"
#include "include/pyalloc.h"
#include "world/proc.h"

static pa_span *real(const pa_xspan *s)
{
    return (pa_span *)(uintptr_t)s;
}

pa_xhollow_view pa_xhollow_look(const pa_xspan *s)
{
    return (pa_xhollow_view){real(s)->aside, real(s)->hollow, pa_span_count_out(real(s)), real(s)->live};
}

uintptr_t pa_xhollow_pop(pa_xspan *s)
{
    void *p = real(s)->free;
    if (p) {
        real(s)->free = pa_link_get(p);
        real(s)->live++;
    }
    return (uintptr_t)p;
}

void pa_xhollow_push(pa_xspan *s, uintptr_t block)
{
    pa_link_set((void *)block, real(s)->free);
    real(s)->free = (void *)block;
    real(s)->live--;
}

size_t pa_xhollow_read_free(const pa_xspan *s, uintptr_t *out, size_t capacity)
{
    size_t n = 0;
    for (uintptr_t b = (uintptr_t)real(s)->free; b && n < capacity; b = (uintptr_t)pa_link_get((void *)b))
        out[n++] = b;
    return n;
}

uint32_t pa_xhollow_set_aside(pa_xspan *s, bool keep_head)
{
    return pa_span_set_aside(real(s), keep_head);
}

size_t pa_xhollow_give(pa_xspan *s, bool keep_head)
{
    return pa_span_give_aside(&pa_the_heap, real(s), keep_head, PA_RELEASE_ASKED);
}

bool pa_xhollow_fill(pa_xspan *s)
{
    return pa_span_fill(&pa_the_heap, real(s));
}

bool pa_xhollow_is_out(const pa_xspan *s, uintptr_t block)
{
    return pa_span_is_out(real(s), block);
}

bool pa_xhollow_holds_out(const pa_xspan *s)
{
    return pa_span_holds_out(real(s));
}

bool pa_xhollow_is_page_hollow(const pa_xspan *s, uintptr_t at)
{
    return pa_span_is_page_hollow(real(s), at);
}

void pa_xhollow_forget(pa_xspan *s)
{
    pa_span_forget_out(&pa_the_heap, real(s));
}

uint64_t pa_xhollow_heap_bytes(void)
{
    return atomic_load(&pa_the_heap.hollow_bytes);
}

pa_xspan *pa_xhollow_span_of(uintptr_t block)
{
    return (pa_xspan *)pa_span_of((void *)block);
}

void pa_xslow_call(void)
{
    pa_free(pa_malloc(1)); /* makes the class's current span have a block */
    PA_CHECK(pa_mcache_refill(pa_current_mcache, pa_class_of_size(1)) != NULL);
}
