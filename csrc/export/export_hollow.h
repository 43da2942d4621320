/* export_hollow.h - heap/hollow for tests, on spans that have a header of their own and memory of the test's. */
#ifndef PA_EXPORT_HOLLOW_H
#define PA_EXPORT_HOLLOW_H

#include "export/export_heap.h"

/* cffi: begin */

typedef struct pa_xhollow_view {
    uint64_t aside, hollow; /* OS pages, a bit each */
    uint32_t out, live;     /* blocks off the list; live ones */
} pa_xhollow_view;

pa_xhollow_view pa_xhollow_look(const pa_xspan *s);
/* As malloc and free of the owner; pop: 0 when nothing is on the list. */
uintptr_t pa_xhollow_pop(pa_xspan *s);
void pa_xhollow_push(pa_xspan *s, uintptr_t block);
/* Blocks on the list, the first capacity of them in out; it stays. */
size_t pa_xhollow_read_free(const pa_xspan *s, uintptr_t *out, size_t capacity);
uint32_t pa_xhollow_set_aside(pa_xspan *s, bool keep_head);
size_t pa_xhollow_give(pa_xspan *s, bool keep_head);
bool pa_xhollow_fill(pa_xspan *s);
bool pa_xhollow_is_out(const pa_xspan *s, uintptr_t block);
bool pa_xhollow_holds_out(const pa_xspan *s);
bool pa_xhollow_is_page_hollow(const pa_xspan *s, uintptr_t at);
void pa_xhollow_forget(pa_xspan *s);
/* Of the heap that all of these count in. */
uint64_t pa_xhollow_heap_bytes(void);
/* The span of a block of the real heap; NULL: none. */
pa_xspan *pa_xhollow_span_of(uintptr_t block);
/* A slow path of the caller's that asks for nothing and frees nothing. */
void pa_xslow_call(void);

/* cffi: end */

#endif
