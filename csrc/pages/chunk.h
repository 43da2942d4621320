/* chunk.h - the leaf: 512 pages (4 MiB), which are allocated and which are not backed by memory. */
#ifndef PA_CHUNK_H
#define PA_CHUNK_H

#include "pages/summary.h"

enum { PA_CHUNK_WORDS = 8 };

typedef struct pa_chunk {
    uint64_t alloc[PA_CHUNK_WORDS];     /* 1 = allocated (or in a page cache) */
    uint64_t scavenged[PA_CHUNK_WORDS]; /* 1 = free and not backed: never touched, or released */
} pa_chunk;

/* Bits [first, first + n), 0 <= first, first + n <= 512. */
void pa_bits512_set(uint64_t *words, unsigned first, unsigned n);
void pa_bits512_clear(uint64_t *words, unsigned first, unsigned n);
unsigned pa_bits512_count(const uint64_t *words, unsigned first, unsigned n);

/* The bits of x that start a run of at least n ones inside x, 1 <= n <= 64. */
uint64_t pa_word_runs(uint64_t x, unsigned n);

/* First index >= from of n <= 512 clear bits in a row; 512 when there is none. */
unsigned pa_bits512_find_clear(const uint64_t *words, unsigned from, unsigned n);

/* Summary of the free pages. */
pa_summary pa_chunk_summarize(const pa_chunk *c);

/* Some page is free and backed. */
bool pa_chunk_has_backed(const pa_chunk *c);

/* The highest run of free and backed pages that ends at or below `below` (<= 512): at most max pages, taken
 * from its top, start and length multiples of align (a power of two <= 64). Length 0: none. */
unsigned pa_chunk_find_backed(const pa_chunk *c, unsigned below, unsigned max, unsigned align,
                              unsigned *first);

#endif
