/* flat.h - the expanded form of a trace: what expand.c writes and replay.c reads.
 *
 * A header of 64 bytes, then operations of 8 bytes each.  Expanding once a run keeps decoding out of the
 * measured process: replay reads this file through one static buffer with read(), because mapped file
 * pages would count towards its RSS.  A temporary file on the machine that made it, so native byte
 * order is enough.
 */
#ifndef PYALLOC_BENCH_FLAT_H
#define PYALLOC_BENCH_FLAT_H

#include <stdint.h>

#define FLAT_MAGIC "PAFLAT01"

/* Kinds 0 to 5 are those of pyalloc/_bench/traces/FORMAT.md; ALIGN carries the alignment of the
 * ALIGNED operation behind it. */
enum {
    OP_MALLOC = 0,
    OP_CALLOC = 1,
    OP_ALIGNED = 2,
    OP_REALLOC = 3,
    OP_FREE = 4,
    OP_THREAD = 5,
    OP_ALIGN = 6,
    OP_KINDS = 8,
    OP_KIND_BITS = 3
};

typedef struct flat_header {
    char magic[8];
    uint64_t ops;   /* operations in the file, ALIGN ones included */
    uint64_t slots; /* greatest slot number + 1 */
    uint64_t reserved[5];
} flat_header;

typedef struct flat_op {
    uint32_t slot_kind; /* slot << OP_KIND_BITS | kind */
    uint32_t nbytes;    /* size, or the alignment for ALIGN */
} flat_op;

#endif
