/* profile.h - the heap profile's books: sites (stacks), what was allocated and freed there, and a record of each live
 * sampled block.
 *
 * Who samples, what a stack is made of and how a profile is written down is decided above: api/sample.h, api/profile.h.
 */
#ifndef PA_PROFILE_H
#define PA_PROFILE_H

#include "base/lock.h"
#include "base/poisson.h"

/* A frame of a stack, innermost first: a return address, or a place of interpreted code: its number | this bit. */
#define PA_PROFILE_PLACE ((uint64_t)1 << 63)
enum { PA_PROFILE_DEPTH_MAX = 96 };

typedef struct pa_profile_site {
    uint64_t hash;
    uint32_t first, depth;      /* frames [first, first + depth) of the pool */
    /* Estimates of blocks, in PA_WEIGHT_ONE-ths, and bytes: allocated, and of those freed again. */
    uint64_t alloc_weight, alloc_bytes, free_weight, free_bytes;
} pa_profile_site;

/* A line of interpreted code. Strings are offsets of pa_profile_view.strings: 4 bytes of length, then the text. */
typedef struct pa_profile_place {
    uint32_t function, file, line, function_line;
} pa_profile_place;

/* Whether blocks are sampled, and which profile this is: odd while it is on. Written under the profile's lock, read
 * relaxed by who samples, who is late by a sample at most, which pa_profile_add then refuses. */
extern PA_HIDDEN _Atomic uint32_t pa_profile_round;
PA_INLINE uint32_t pa_profile_round_racy(void) { return atomic_load_explicit(&pa_profile_round, memory_order_relaxed); }

/* Held by who begins, ends or writes a profile (rank PROFILING, above nearly all others). */
extern PA_HIDDEN pa_lock pa_profiling_lock;

/* Forgets what an earlier profile counted and begins one. 0, EBUSY (it is on), ENOMEM. */
int pa_profile_open(uint64_t rate, uint64_t seed);
/* No sample comes after this; blocks that are sampled go on to be seen when they are freed. False when it was off. */
bool pa_profile_close(void);
/* Forgets what was counted, unless it is on. */
void pa_profile_forget(void);
/* Bytes between two samples on average; and a seed for the next sampler. Relaxed. */
uint64_t pa_profile_rate(void);
uint64_t pa_profile_seed(void);

/* Counts a sampled block of nbytes that was allocated at the stack. Its record, to be dropped when the block dies, or
 * 0: the profile is over, or full; that is counted as lost. Takes the profile's lock (rank PROFILE), allocates
 * nothing. */
uint32_t pa_profile_add(uint32_t round, uint64_t nbytes, const uint64_t *frames, unsigned depth);
/* The block of a record died. */
void pa_profile_drop(uint32_t record);
/* Nobody will see the block of a record die: it counts as allocated, not as live, and as lost. Record 0: only that. */
void pa_profile_lose(uint32_t record);
/* The frame for a line of interpreted code, 0 when there is no more room. key: not 0, it is found by that from now on,
 * for a while at least. */
uint64_t pa_profile_place_of(const char *function, size_t function_bytes, const char *file, size_t file_bytes,
                             uint32_t line, uint32_t function_line, uint64_t key);
/* The frame of the line that was given with this key; 0: not known, or not any more. */
uint64_t pa_profile_place_by_key(uint64_t key);

typedef struct pa_profile_view {
    size_t site_count;
    const uint64_t *frames;
    const pa_profile_place *places;
    const char *strings;
    uint64_t rate, samples, lost, live; /* records of live blocks, of this profile and of earlier ones */
    uint64_t begin_unix_ns, duration_ns;
} pa_profile_view;

/* What the books say now. Frames, places and strings stay as they are until the next open or forget. */
void pa_profile_look(pa_profile_view *out);
/* Copies the first up to capacity sites; how many. */
size_t pa_profile_copy_sites(pa_profile_site *out, size_t capacity);

/* Test builds: no more live records and sites than this from now on; 0: as many as there is room for. */
void pa_profile_limit(uint32_t records, uint32_t sites);

void pa_profile_fork_prepare(void);
void pa_profile_fork_parent(void);
void pa_profile_fork_child(void);

#endif
