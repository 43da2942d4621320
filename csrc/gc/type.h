/* type.h - layouts of managed objects: size and pointer mask (Go: internal/abi/type.go, GCData). */
#ifndef PA_TYPE_H
#define PA_TYPE_H

#include "base/config.h"

/* Immutable once published. */
typedef struct pa_type {
    struct pa_type *next;   /* all types, newest first */
    size_t nbytes;
    uint32_t slot_bytes;    /* of one object's class; 0: large */
    uint8_t kind;           /* pa_span_kind of its objects */
    uint8_t size_class;     /* of one object; 0: large */
    uint32_t layout;        /* pa_layout of its objects: PA_LAYOUT_BITMAP when it has no number */
    uint64_t mask[];        /* a bit a word: is it a pointer? At least one word */
} pa_type;

#endif
