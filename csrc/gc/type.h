/* type.h - layouts of managed objects: size and pointer mask (Go: internal/abi/type.go, GCData). */
#ifndef PA_TYPE_H
#define PA_TYPE_H

#include "base/config.h"

/* No span's layout. */
#define PA_LAYOUT_NONE UINT32_MAX

/* Immutable once published. The first three are read by programs: include/pyalloc_inline.h. */
typedef struct pa_type {
    uint32_t slot_bytes;    /* of one object's class; 0: large */
    uint32_t fast_layout;   /* of spans that pa_new_inline may take a slot of: layout, or PA_LAYOUT_NONE */
    uint8_t size_class;     /* of one object; 0: large */
    uint8_t kind;           /* pa_span_kind of its objects */
    uint32_t layout;        /* pa_layout of its objects: PA_LAYOUT_BITMAP when it has no number */
    size_t nbytes;
    struct pa_type *next;   /* all types, newest first */
    uint64_t mask[];        /* a bit a word: is it a pointer? At least one word */
} pa_type;

#endif
