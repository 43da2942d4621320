/* release.h - giving free pages back to the OS, and the memory limit.
 *
 * The limit counts what is backed as far as the heap knows: pages in use, free pages that were not released, and
 * metadata.  It is soft: an allocation that goes over it first releases free pages, and succeeds all the same
 * when that is not enough (Go: runtime/mgcscavenge.go and mheap.allocSpan).
 */
#ifndef PA_RELEASE_H
#define PA_RELEASE_H

#include "heap/pace.h"
#include "base/atomics.h"

struct pa_heap;

/* Who released: the background thread; slow paths, because time passed; slow paths, because of the limit;
 * somebody who asked for all there is. */
typedef enum pa_release_reason {
    PA_RELEASE_BACKGROUND,
    PA_RELEASE_TICK,
    PA_RELEASE_LIMIT,
    PA_RELEASE_ASKED,
    PA_RELEASE_REASONS
} pa_release_reason;

typedef enum pa_release_method { PA_RELEASE_AS_OPTED, PA_RELEASE_DONTNEED, PA_RELEASE_LAZILY } pa_release_method;

enum {
    PA_LIMIT_GOAL_PERCENT = 95,     /* of the limit: what is released in the background, to stay away from it */
    PA_LIMIT_CPU_PERCENT = 50,      /* of one processor, for releasing because of the limit */
};

typedef struct pa_release {
    /* pa_release_method. Written by pa_release_set_method, read relaxed by who releases: late is fine. */
    _Atomic uint32_t method;
    /* Every page that was released with MADV_FREE lies in [lazy_low, lazy_high): released, but it may hold old data.
     * Grows only, under mheap's lock; read relaxed by who holds such pages, and took them under that lock later. */
    _Atomic uintptr_t lazy_low, lazy_high;
    /* Bytes, 0: none. Written by pa_limit_set, read relaxed by slow paths: late is fine. */
    _Atomic uint64_t limit_bytes;
    /* Over the limit, and nothing could be done about it. Written under mheap's lock, read racily. */
    _Atomic bool over_limit;

    /* Under mheap's lock. */
    uint64_t over_limit_count;      /* times that it came to that */
    uint64_t bytes[PA_RELEASE_REASONS]; /* ever released */
    uint64_t lazy_bytes;            /* of those, with MADV_FREE */
    uint64_t metadata_bytes;        /* beside those, by pa_release_all */
    uint64_t calls, refusals;       /* of madvise for pages of the heap */
    pa_pace pace;                   /* of releasing because of the limit */
} pa_release;

/* ---- Releasing ---- */

/* Releases free pages, at least dense runs first and highest addresses first, until goal_bytes are released or nothing
 * is left; madvise runs without mheap's lock. Returns the bytes released. Something must keep fork out meanwhile:
 * the caller holds a slow-path lock or the decay lock, or is inside (world/stw.h). */
size_t pa_release_pages(struct pa_heap *h, size_t goal_bytes, pa_release_reason reason);
/* Gives OS pages that the caller has back, and counts them. False: refused. Takes mheap's lock for a moment; fork as
 * above. */
bool pa_release_inside(struct pa_heap *h, uintptr_t base, size_t nbytes, pa_release_reason reason);
/* Headers of dead spans, where they are more than those in use and worth a call, at most so many bytes at a time.
 * Returns the bytes given back; fork as above. */
size_t pa_release_headers(struct pa_heap *h);
/* While at most 32 MiB are in use: the first touch of a huge page fills all of it, also pages at its end that were
 * never handed out, which the heap counts as released. Gives them back, 128 KiB and more; from then on there are small
 * pages there. For a heap that is idle. Takes mheap's lock; the caller keeps fork out. */
void pa_release_tails(struct pa_heap *h);
/* Because somebody asked: all free pages, and what metadata holds of dead spans and records. Returns the bytes of both,
 * but not of side tables. As above. */
size_t pa_release_all(struct pa_heap *h);
/* MADV_FREE or MADV_DONTNEED from now on. Returns what was in force, never AS_OPTED. */
pa_release_method pa_release_set_method(struct pa_heap *h, pa_release_method method);
pa_release_method pa_release_get_method(const struct pa_heap *h);
/* Do [base, base + nbytes), which are all marked as released, read zero? */
bool pa_release_reads_zero(const struct pa_heap *h, uintptr_t base, size_t nbytes);

/* A sample of what is in use, free and released, while there is a trace. mheap's lock held. */
void pa_release_trace_memory_locked(const struct pa_heap *h);

/* ---- The limit ---- */

/* nbytes; UINT64_MAX: none. Takes effect with the next allocation. */
void pa_limit_set(struct pa_heap *h, uint64_t nbytes);
uint64_t pa_limit_get(const struct pa_heap *h);
/* Memory that counts. mheap's lock held. */
uint64_t pa_limit_backed_bytes_locked(const struct pa_heap *h);
/* Of that, bytes above the goal; 0 without a limit. mheap's lock held. */
uint64_t pa_limit_above_goal_locked(const struct pa_heap *h);
/* Pages were taken that may have to be backed: how far is the heap over its limit? mheap's lock held. */
uint64_t pa_limit_over_slow_locked(struct pa_heap *h);
/* Releases what that said; no lock but the caller's slow-path lock, if it has one, before the pages are touched. */
void pa_limit_obey(struct pa_heap *h, uint64_t over_bytes);

#endif
