/* pyalloc.h - the public C interface of pyalloc, Go's memory manager as a library.
 *
 * Sizes are bytes unless a name says otherwise.  Every function may be called from any thread at
 * any time, except inside a signal handler.  The text between the two cffi markers is plain C
 * declarations: the Python package reads the same text, so the two cannot drift apart.
 */
#ifndef PYALLOC_H
#define PYALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* cffi: begin */

/* ---- Version ------------------------------------------------------------------------------ */

/* Number of this interface; a caller built against another number must not go on. */
int pa_abi_version(void);
/* "major.minor.patch", a static string. */
const char *pa_version(void);

/* ---- Run-time options: PYALLOC_* in the environment, read once when the library is loaded -------- */

typedef struct pa_option_info {
    const char *name;         /* the variable; PYALLOC_DEBUG=key for the keys of that list */
    const char *type;         /* BOOL, MS, PERCENT (off is -1), BYTES (off is INT64_MAX) or NUMBER */
    const char *default_text;
    const char *source;       /* the variable that set it, or "default" */
    const char *doc;
    int64_t value;
} pa_option_info;

/* Fills *out for option index, 0 and up; false behind the last. The strings are static. */
bool pa_option(int index, pa_option_info *out);

/* ---- Explicit allocation (DESIGN: the malloc family) ---------------------------------------- */

/* At least nbytes of memory, aligned to 16 (to 8 when nbytes <= 8); contents undefined.
 * nbytes == 0 gives a unique pointer.  NULL with errno = ENOMEM on failure. */
void *pa_malloc(size_t nbytes);
/* Zeroed memory for count objects of nbytes; NULL with ENOMEM on failure or overflow.  Pages that
 * are known to be fresh from the operating system are not touched. */
void *pa_calloc(size_t count, size_t nbytes);
/* Resizes in place where the block allows it, else moves.  p == NULL is pa_malloc(nbytes).
 * nbytes == 0 frees p and gives NULL, as in glibc.  On failure NULL, ENOMEM, and p is untouched. */
void *pa_realloc(void *p, size_t nbytes);
/* pa_realloc(p, count * nbytes), ENOMEM on overflow. */
void *pa_reallocarray(void *p, size_t count, size_t nbytes);
/* Memory aligned to a power of two; NULL with EINVAL when align is not one, ENOMEM on failure. */
void *pa_memalign(size_t align, size_t nbytes);
/* C11 spelling of pa_memalign. */
void *pa_aligned_alloc(size_t align, size_t nbytes);
/* POSIX spelling: returns 0, EINVAL (align not a power of two multiple of sizeof(void *)) or
 * ENOMEM; leaves errno alone, and *out too on failure. */
int pa_posix_memalign(void **out, size_t align, size_t nbytes);
/* Frees a block of any thread.  NULL is ignored.  A pointer that is not the start of a live block
 * (foreign, interior, visibly freed twice) ends the process with one line on stderr.  Keeps errno. */
void pa_free(void *p);
/* C23: nbytes must be the size asked for. */
void pa_free_sized(void *p, size_t nbytes);
void pa_free_aligned_sized(void *p, size_t align, size_t nbytes);
/* Bytes that may be used at p, >= the size asked for; 0 for NULL. */
size_t pa_usable_size(const void *p);
/* Bytes that pa_malloc(nbytes) would make usable; 0 when it must fail. */
size_t pa_good_size(size_t nbytes);
/* True when addr lies in a span that is in use; never faults, whatever addr is. */
bool pa_owns(const void *addr);

/* ---- Size classes ----------------------------------------------------------------------------- */

typedef struct pa_size_class_info {
    size_t object_bytes;
    size_t span_bytes;
    size_t objects;          /* per span of span_bytes */
    size_t tail_waste_bytes;
} pa_size_class_info;

/* Number of classes, class 0 (large) included: 67.  Classes 1 to 66 are small. */
int pa_size_class_count(void);
/* Fills *out for 1 <= size_class < pa_size_class_count(); false otherwise. */
bool pa_size_class(int size_class, pa_size_class_info *out);
/* Class that serves nbytes: 1..66, or 0 for large (> 32 KiB). */
int pa_size_class_of(size_t nbytes);

/* ---- Giving memory back, statistics, checks ---------------------------------------------------- */

/* Releases every free page to the operating system now, returns the bytes released.  Flushes the
 * caller's caches; other threads flush theirs at their next slow-path call. */
size_t pa_free_os_memory(void);

/* The allocator part of Go's runtime.MemStats; bytes unless said.  See docs/statistics.md. */
typedef struct pa_mem_stats {
    uint64_t sys;               /* all memory obtained: heap_sys + mspan_sys + mcache_sys + gc_sys + other_sys */
    uint64_t heap_sys;          /* heap memory obtained, arenas; = heap_idle + heap_inuse */
    uint64_t heap_idle;         /* pages in no span */
    uint64_t heap_inuse;        /* pages in spans */
    uint64_t heap_released;     /* part of heap_idle that the operating system holds */
    uint64_t heap_alloc;        /* bytes of live objects (slots), <= heap_inuse */
    uint64_t heap_objects;      /* count of live objects */
    uint64_t explicit_inuse;    /* of heap_inuse: spans of the malloc family */
    uint64_t explicit_alloc;    /* of heap_alloc: live blocks of the malloc family */
    uint64_t explicit_objects;  /* of heap_objects, count */
    uint64_t explicit_cached;   /* of heap_inuse: empty spans kept by threads for reuse */
    uint64_t mspan_inuse;       /* span headers in use */
    uint64_t mspan_sys;
    uint64_t mcache_inuse;      /* thread caches in use */
    uint64_t mcache_sys;
    uint64_t gc_sys;            /* page summaries, chunk bitmaps, address tables, mark bitmaps */
    uint64_t other_sys;
    uint64_t arenas;            /* count of 64 MiB heapArenas */
    uint64_t heap_mmaps;        /* count of mmap calls for heap memory */
    uint64_t heap_released_total; /* bytes ever returned by madvise */
    uint64_t spans_allocated;   /* count, ever */
    uint64_t spans_freed;       /* count, ever */
    uint64_t threads;           /* count of threads that have a cache now */
    uint64_t mheap_lock_acquisitions; /* count, ever */
} pa_mem_stats;

/* Fills *out without stopping anybody.  Page-level fields are exact at one instant; object counts
 * lag by what threads do meanwhile and are exact once they are quiescent. */
void pa_read_mem_stats(pa_mem_stats *out);

typedef struct pa_class_stats {
    uint64_t object_bytes;
    uint64_t spans;
    uint64_t span_bytes;      /* pages of those spans */
    uint64_t objects;         /* live */
} pa_class_stats;

/* Fills out[0..min(capacity, pa_size_class_count())), indexed by class (0 = large); returns how many. */
int pa_read_class_stats(pa_class_stats *out, int capacity);

/* Walks every structure of the heap.  Returns 0 when all invariants hold; else 1 and the first
 * broken one by name in message (cut to capacity bytes, may be NULL).  Exact only while no other
 * thread is inside the allocator. */
int pa_heap_check(char *message, size_t capacity);

/* cffi: end */

#ifdef __cplusplus
}
#endif
#endif
