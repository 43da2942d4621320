/* addrrange.h - a sorted list of ranges of chunks: what the heap has grown to. */
#ifndef PA_ADDRRANGE_H
#define PA_ADDRRANGE_H

#include "base/config.h"

/* Chunks [first_chunk, end_chunk); 48-bit addresses have 2^26 chunks. */
typedef struct pa_addrrange {
    uint32_t first_chunk;
    uint32_t end_chunk;
} pa_addrrange;

typedef struct pa_addrranges {
    pa_addrrange *ranges; /* sorted; neighbours do not touch. The owner makes room for one more before add */
    size_t count;
} pa_addrranges;

/* Adds a range that overlaps none of the list; joins it with neighbours. */
void pa_addrranges_add(pa_addrranges *r, size_t first_chunk, size_t end_chunk);
/* Every / some chunk of [first_chunk, end_chunk) is in the list. */
bool pa_addrranges_contains(const pa_addrranges *r, size_t first_chunk, size_t end_chunk);
bool pa_addrranges_overlaps(const pa_addrranges *r, size_t first_chunk, size_t end_chunk);
/* Sorted, not empty, not touching. */
bool pa_addrranges_check(const pa_addrranges *r);

#endif
