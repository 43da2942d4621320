/* pyalloc.h - the public C interface of pyalloc, Go's memory manager as a library.
 *
 * Sizes are bytes unless a name says otherwise.  Every function may be called from any thread at
 * any time, except inside a signal handler; those on managed objects say what else they ask for.
 * The text between the two cffi markers is plain C declarations: the Python package reads the same
 * text, so the two cannot drift apart.
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
    const char *type;         /* BOOL, MS, PERCENT (off is -1), BYTES (off is INT64_MAX), NUMBER or PATH */
    const char *default_text;
    const char *source;       /* the variable that set it, or "default" */
    const char *doc;
    int64_t value;            /* PATH: address of the text, 0 for none */
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
/* pa_free where the memory at p is pyalloc's; otherwise, NULL included, calls foreign(p) and nothing else.  For hooks
 * that stand before another allocator: one look-up instead of pa_owns and pa_free, and a tail call. */
void pa_free_or(void *p, void (*foreign)(void *p));
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

/* ---- Managed objects: the collector ------------------------------------------------------------
 *
 * Managed objects are found and freed by a concurrent, non-moving mark-sweep collector (Go: runtime/
 * mgc.go). A thread touches them only while it is *inside*: between pa_enter and pa_leave. Inside it must
 * poll often (pa_safepoint; every allocation polls too, and so does fork) and must not block; a stop of the world
 * waits for it. Across a poll, an object stays only when a root leads to it: a frame, a handle, a registered range or
 * another reachable object. Pointers into an object (interior pointers) keep it too.
 *
 * Every pointer store into managed objects, handles and barriered ranges goes through pa_store,
 * pa_store_range or pa_clear_range; frames and locals are plain C variables. Loads are plain.
 */

/* Makes the calling thread inside; attaches it the first time. Nests. False with ENOMEM. May wait for a
 * stop of the world to end. */
bool pa_enter(void);
/* Ends the matching pa_enter. Frames that are still pushed stay roots. */
void pa_leave(void);
/* Lets a waiting collector stop this thread here. Inside only. */
void pa_safepoint(void);
/* Is the calling thread inside? */
bool pa_is_inside(void);
/* pa_enter that never waits: false also while the world is being stopped. */
bool pa_try_enter(void);
/* pa_enter that waits at most timeout_ns for a stop to end: then false with EAGAIN. */
bool pa_enter_within(uint64_t timeout_ns);
/* Does a collector wait for this thread to poll or leave? Inside only. */
bool pa_stop_is_wanted(void);

/* A fixed layout: which words hold pointers. Immutable, lives for ever, equal layouts are one type. */
typedef struct pa_type pa_type;
/* nbytes > 0, a multiple of 8 when there are pointers; offsets are multiples of 8, ascending, below nbytes.
 * NULL with EINVAL or ENOMEM. Any thread, inside or not. */
const pa_type *pa_type_new(size_t nbytes, const size_t *pointer_offsets, size_t pointer_count);
size_t pa_type_bytes(const pa_type *type);

/* Zeroed objects; NULL with ENOMEM (or on overflow). Inside only; polls, may collect. */
void *pa_new(const pa_type *type);
void *pa_new_array(const pa_type *type, size_t count);
void *pa_new_pointers(size_t count);
/* Pointer-free bytes; up to 15 bytes several may share one 16-byte block (Go's tiny allocator). */
void *pa_new_bytes(size_t nbytes);
/* Any aligned word may be a pointer; written without a barrier, scanned again in the final stop. */
void *pa_new_conservative(size_t nbytes);

/* The same for a thread that holds something which others need, such as Python's GIL: NULL with EAGAIN where the
 * forms above would wait for a stop, mark in payment of what was allocated, wait for a cycle or collect. Nothing has
 * happened then; the caller leaves, lets go of what it holds, and inside again calls pa_settle and a form above. */
void *pa_try_new(const pa_type *type);
void *pa_try_new_pointers(size_t count);
void *pa_try_new_bytes(size_t nbytes);
/* Pays at once what the calling thread owes to marking, polling meanwhile: the try forms let it grow. Inside only. */
void pa_settle(void);

/* *slot = value, with the write barrier while marking (hybrid: shades the old and the new value). slot lies in
 * a managed object, a handle or a barriered range. Inside only. Store-release. */
void pa_store(void **slot, void *value);
/* memmove of count pointers with the barrier. */
void pa_store_range(void **to, void *const *from, size_t count);
void pa_clear_range(void **slots, size_t count);
/* A pointer out of a conservative object or an unbarriered range; shades it. Inside only. */
void *pa_load_unbarriered(void *const *slot);

/* Start of the live managed object that p points into, or NULL. Inside only. */
void *pa_find_object(const void *p);
/* Usable bytes of the managed object at obj (its size class); 0 when it is none. Inside only. */
size_t pa_object_bytes(const void *obj);

/* A shadow stack of pointer variables: roots of the thread that pushed it. Lives in the caller's C frame,
 * popped in reverse order. slots are cleared by pa_frame_push. Inside only. */
typedef struct pa_frame {
    struct pa_frame *up;
    void **slots;
    size_t count;
} pa_frame;
void pa_frame_push(pa_frame *frame, void **slots, size_t count);
void pa_frame_pop(pa_frame *frame);

/* A root that lives until it is freed; any thread may use it. */
typedef struct pa_handle pa_handle;
/* NULL with ENOMEM. Inside only. */
pa_handle *pa_handle_new(void *obj);
void *pa_handle_get(const pa_handle *handle);
void pa_handle_set(pa_handle *handle, void *obj);
/* Inside or not; never waits: while the world is stopped the handle is queued. */
void pa_handle_free(pa_handle *handle);

typedef enum pa_roots_flags {
    PA_ROOTS_BARRIERED = 0,     /* pointer slots, written through pa_store */
    PA_ROOTS_UNBARRIERED = 1,   /* written plainly: scanned again in the final stop, read by pa_load_unbarriered */
    PA_ROOTS_CONSERVATIVE = 3   /* unbarriered, and any word may be no pointer at all */
} pa_roots_flags;
/* Registers [base, base + nbytes) of pointer slots outside the managed heap. 0, or EINVAL (alignment, overlap,
 * unknown flags) or ENOMEM. Any thread. */
int pa_roots_add(void *base, size_t nbytes, int flags);
/* 0, or EINVAL when base was not registered. Any thread. */
int pa_roots_remove(void *base);

/* Does not keep its object. NULL with ENOMEM; EINVAL when obj is no managed object. Inside only. */
typedef struct pa_weak pa_weak;
pa_weak *pa_weak_new(void *obj);
/* The object, or NULL once it was found unreachable. Inside only. */
void *pa_weak_get(pa_weak *weak);
/* Inside or not. */
void pa_weak_free(pa_weak *weak);

/* Queues id once obj was found unreachable. 0, EINVAL or ENOMEM. Inside only. Several a object are allowed. */
int pa_cleanup_add(void *obj, uint64_t id);
/* Takes up to capacity queued ids; returns how many. Any thread. */
size_t pa_cleanup_take(uint64_t *ids, size_t capacity);
/* notify(argument) is called, from any thread and with no lock held, when ids were queued. NULL: nobody. */
void pa_cleanup_on_queued(void (*notify)(void *argument), void *argument);

/* ---- Control of the collector ------------------------------------------------------------------- */

/* One full cycle: everything unreachable at the call is gone and swept on return. Inside or not; waits. */
void pa_gc(void);
/* GOGC: the heap may grow by percent of what was live; < 0 turns the collector off. Returns the previous. */
int pa_set_gc_percent(int percent);
/* A soft limit on all memory mapped by pyalloc less what was released, bytes; < 0 only asks. Returns the
 * previous, INT64_MAX for none. Near it the collector works harder, free pages are released in the background
 * from 95 % on, and an allocation that goes over it releases free pages first. It never fails one. */
int64_t pa_set_memory_limit(int64_t nbytes);

/* The collectors of Go's history, oldest first. */
typedef enum pa_gc_mode {
    PA_GC_SERIAL,               /* Go 1.0: everything in one stop, one thread */
    PA_GC_PARALLEL,             /* Go 1.1: everything in one stop, all processors */
    PA_GC_CONCURRENT_15,        /* Go 1.5: insertion barrier, roots scanned again in the final stop */
    PA_GC_CONCURRENT_16,        /* Go 1.6: the same, stop-time work moved out of the stop */
    PA_GC_CONCURRENT            /* Go 1.8: hybrid barrier, nothing scanned again */
} pa_gc_mode;
/* Takes effect between cycles: waits for one that runs. Returns the previous, -1 when mode is unknown. */
int pa_set_gc_mode(int mode);

/* gctrace lines (Go's format) to this file descriptor; -1 turns them off. Returns the previous. */
int pa_set_gctrace(int fd);

typedef struct pa_gc_stats {
    uint64_t cycles;            /* completed */
    uint64_t forced_cycles;     /* of those, asked for by pa_gc */
    uint64_t pause_total_ns;
    uint64_t pause_count;       /* stops, ever: two a concurrent cycle */
    uint64_t last_gc_unix_ns;
    uint64_t next_gc_bytes;     /* heap goal; UINT64_MAX while off */
    uint64_t heap_live_bytes;   /* managed: marked by the last cycle + allocated since */
    uint64_t heap_marked_bytes; /* managed: marked by the last cycle */
    uint64_t total_alloc_bytes; /* managed, cumulative; as of the last refill of each thread's spans */
    uint64_t mallocs, frees;    /* managed objects, cumulative; the same */
    /* Processor time of marking and of stops, cumulative. */
    uint64_t assist_ns, background_ns, idle_ns, stopped_ns;
    uint64_t unbarriered_bytes; /* scanned again in the last final stop */
    uint64_t handles;           /* in use */
    uint64_t weak_handles;
    int32_t mode;               /* pa_gc_mode */
    int32_t gc_percent;         /* < 0: off */
    int64_t memory_limit;
    uint32_t phase;             /* 0 off, 1 sweep termination, 2 mark, 3 mark termination; sweeping is part of off */
    uint32_t processors;
    double cpu_fraction;        /* share of the processors' time since the start */
} pa_gc_stats;
void pa_read_gc_stats(pa_gc_stats *out);
/* The most recent stops, newest first: length and end (unix time), ns. Returns how many were stored. */
size_t pa_read_gc_pauses(uint64_t *pause_ns, uint64_t *pause_end_unix_ns, size_t capacity);

/* Verification: after each cycle, in its final stop, marks again from scratch into a second bitmap and ends the
 * process with one line when a reachable object was not marked. Slow; for tests. Returns the previous. */
bool pa_gc_set_checkmark(bool on);

/* ---- Giving memory back, statistics, checks ---------------------------------------------------- */

/* Releases every free page to the operating system now, and metadata that is not needed for the rest; returns the
 * bytes released.  Collects first
 * when there are managed objects (as pa_gc).  Flushes the caller's caches, and those of other threads that are
 * not at work in them; those flush theirs at their next slow-path call. */
size_t pa_free_os_memory(void);

/* Asks the kernel for huge pages in the arenas that hold [p, p + nbytes), a live block or part of one: for large
 * blocks that are worked through again and again, whose address translation costs. From then on a first touch there may
 * make 2 MiB resident at once; what is released takes its whole huge pages along where they are free, and they stay
 * forbidden there. Once an arena; nearly nothing when that was done. Best effort. Any thread. */
void pa_advise_huge_pages(const void *p, size_t nbytes);

/* How free pages are given back from now on. 1: MADV_DONTNEED, they leave the resident set at once. 0: MADV_FREE (Linux
 * 4.5), they leave it when the kernel needs them and count as resident (LazyFree) until then; where the kernel
 * refuses that, MADV_DONTNEED. < 0 only asks. Returns the previous. Go: GODEBUG=madvdontneed. */
int pa_set_madvdontneed(int on);

/* Asks for the thread that gives idle memory back in the background; false when PYALLOC_BACKGROUND=0 forbids it. It
 * starts once 4 MiB are free, at a call of malloc or free, with all signals blocked; in fork children again. */
bool pa_start_background(void);

/* What releasing did so far. Bytes, cumulative unless said. */
typedef struct pa_scavenge_stats {
    uint64_t background_bytes;  /* released by the background thread */
    uint64_t tick_bytes;        /* by slow paths of malloc and free, because time passed; without that thread */
    uint64_t limit_bytes;       /* by allocations that went over the memory limit */
    uint64_t asked_bytes;       /* by pa_free_os_memory */
    uint64_t lazy_bytes;        /* of all that, with MADV_FREE */
    uint64_t metadata_bytes;    /* beside all that, by pa_free_os_memory: dead span headers, page table */
    uint64_t madvise_calls, madvise_refusals; /* count */
    uint64_t memory_limit;      /* now; UINT64_MAX: none */
    uint64_t backed_bytes;      /* now: what counts against the limit */
    uint64_t over_limit;        /* now: 1: over it, and there is nothing to give back */
    uint64_t over_limit_count;  /* times that it came to that */
    uint64_t background_running; /* now: 1: the thread is there */
    uint64_t background_looks;  /* count of times it woke or went on */
    uint64_t background_cpu_ns; /* processor time it used, ns */
} pa_scavenge_stats;
void pa_read_scavenge_stats(pa_scavenge_stats *out);

/* The allocator part of Go's runtime.MemStats; bytes unless said.  See docs/statistics.md. */
typedef struct pa_mem_stats {
    uint64_t sys;               /* all memory obtained: heap_sys + mspan_sys + mcache_sys + gc_sys + other_sys */
    uint64_t heap_sys;          /* heap memory obtained, arenas; = heap_idle + heap_inuse */
    uint64_t heap_idle;         /* pages in no span */
    uint64_t heap_inuse;        /* pages in spans */
    uint64_t heap_released;     /* part of heap_idle that the operating system holds */
    uint64_t heap_alloc;        /* bytes of live objects (slots), <= heap_inuse; dead managed ones until swept */
    uint64_t heap_objects;      /* count of live objects */
    uint64_t total_alloc;       /* managed: bytes ever allocated. Explicit blocks are not counted over time */
    uint64_t mallocs;           /* managed: count of objects ever allocated; tiny ones count by 16-byte block */
    uint64_t frees;             /* managed: count of objects ever swept; mallocs - frees are live */
    uint64_t managed_inuse;     /* of heap_inuse: spans of managed objects; the rest is explicit_inuse */
    uint64_t explicit_inuse;    /* of heap_inuse: spans of the malloc family, and spans about to become managed */
    uint64_t explicit_alloc;    /* of heap_alloc: live blocks of the malloc family */
    uint64_t explicit_objects;  /* of heap_objects, count */
    uint64_t explicit_cached;   /* of heap_inuse: empty spans kept by threads for reuse */
    uint64_t explicit_hollow;   /* of heap_inuse: free blocks' memory, given back to the operating system */
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
 * lag by what threads do meanwhile and are exact once they are quiescent. Takes a walk over the spans: some ns each. */
void pa_read_mem_stats(pa_mem_stats *out);
/* The page-level fields alone, object counts and all that is made of them 0; its cost doesn't grow with the heap. */
void pa_read_page_stats(pa_mem_stats *out);

typedef struct pa_class_stats {
    uint64_t object_bytes;
    uint64_t spans;             /* explicit ones, without cached; so the next two */
    uint64_t span_bytes;        /* pages of those spans */
    uint64_t objects;           /* live */
    uint64_t managed_spans;
    uint64_t managed_span_bytes;
    uint64_t managed_mallocs;   /* count of objects ever allocated; tiny ones count by 16-byte block, in class 2 */
    uint64_t managed_frees;     /* count of objects ever swept; mallocs - frees are live */
} pa_class_stats;

/* Fills out[0..min(capacity, pa_size_class_count())), indexed by class (0 = large); returns how many. */
int pa_read_class_stats(pa_class_stats *out, int capacity);

enum { PA_SNAPSHOT_CLASSES = 67, PA_SNAPSHOT_PAUSES = 256, PA_SNAPSHOT_PAUSE_BUCKETS = 25 };

/* Everything, taken together: page-level fields, settings and history of the collector at one instant. */
typedef struct pa_snapshot {
    pa_mem_stats mem;
    pa_gc_stats gc;
    pa_class_stats classes[PA_SNAPSHOT_CLASSES];
    /* Rings: stop n (from 0) is at n % PA_SNAPSHOT_PAUSES; gc.pause_count stops were so far. */
    uint64_t pause_ns[PA_SNAPSHOT_PAUSES], pause_end_unix_ns[PA_SNAPSHOT_PAUSES];
    /* Stops by length, whole and until every thread stood: below 1024 ns, then by doublings, the last one open. */
    uint64_t pauses[PA_SNAPSHOT_PAUSE_BUCKETS], stoppings[PA_SNAPSHOT_PAUSE_BUCKETS];
    uint64_t managed_live_bytes;                                   /* allocated and not swept */
    uint64_t scan_heap_bytes, scan_frame_bytes, scan_global_bytes; /* looked at by the last cycle */
    uint64_t cleanups_queued, cleanups_taken;                      /* count, ever */
    uint64_t central_lock_acquisitions;                            /* count, ever, of all size classes' locks */
    uint64_t slow_path_entries;                                    /* count, ever, under each thread's own lock */
    pa_scavenge_stats scavenge;                                    /* read a moment after the rest */
} pa_snapshot;

/* Any thread; starts nothing and changes no setting, but reads the environment's if nobody did. */
void pa_read_snapshot(pa_snapshot *out);

/* Locks of one kind, by rank; all counted since the start. */
typedef struct pa_lock_stats {
    const char *name;                    /* "MHEAP": the page heap's; "MCENTRAL": the size classes'; static */
    bool shared;                         /* false: each thread has its own, and others come by rarely */
    uint64_t acquisitions;
    uint64_t waits;                      /* of those, found the lock held */
    uint64_t wait_ns, wait_max_ns;       /* together, and the longest */
    uint64_t hold_ns, hold_max_ns;       /* the same from taking to giving back; 4 ns exact */
} pa_lock_stats;

/* Fills out[0..min(capacity, kinds)) with the kinds of lock that were taken, lowest rank first; returns how many.
 * 0 unless PYALLOC_DEBUG=lockstat=1 was set at the start: measuring costs some 100 ns an acquisition. Any thread. */
int pa_read_lock_stats(pa_lock_stats *out, int capacity);

/* ---- Metrics: names, units and descriptions of what a snapshot holds (Go: runtime/metrics) ----------- */

typedef enum pa_metric_kind { PA_METRIC_COUNT, PA_METRIC_REAL, PA_METRIC_HISTOGRAM } pa_metric_kind;

typedef struct pa_metric_info {
    const char *name;           /* "/gc/heap/live:bytes": the unit stands behind the colon */
    const char *doc;
    pa_metric_kind kind;
    bool cumulative;            /* only ever grows */
} pa_metric_info;

enum { PA_METRIC_BUCKETS_MAX = 67 };

typedef struct pa_metric_value {
    uint64_t count;             /* kind COUNT; UINT64_MAX: no limit, no goal */
    double real;                /* kind REAL */
    /* Kind HISTOGRAM: counts[i] is how many values lay in [bounds[i], bounds[i + 1]); the last bound may be
     * infinite. */
    size_t buckets;
    uint64_t counts[PA_METRIC_BUCKETS_MAX];
    double bounds[PA_METRIC_BUCKETS_MAX + 1];
} pa_metric_value;

/* Fills *out for metric index, 0 and up; false behind the last. The strings are static. */
bool pa_metric(int index, pa_metric_info *out);
/* Its value in a snapshot; false behind the last. */
bool pa_metric_of(const pa_snapshot *snapshot, int index, pa_metric_value *out);

/* ---- Execution trace: what happened when ---------------------------------------------------------------
 *
 * Events go to rings that overwrite the oldest. Times are CLOCK_MONOTONIC's. What it costs while it is off: a
 * predictable branch at slow paths; nothing on fast ones.
 */

/* Arguments stand behind each kind; bytes unless said. With a duration but where it says "instant". */
typedef enum pa_trace_kind {
    PA_TRACE_CYCLE,             /* one collection: its number, bytes marked, 1 when it was forced */
    PA_TRACE_SWEEP_TERMINATION, /* its phases: number of the cycle */
    PA_TRACE_MARK,              /* number of the cycle, ns of processor time in the background, and of assists */
    PA_TRACE_MARK_TERMINATION,  /* number of the cycle */
    PA_TRACE_SWEEP,             /* all that the collector swept at a time: freed */
    PA_TRACE_STOP,              /* the world stands: ns until every thread stood */
    PA_TRACE_ASSIST,            /* an allocating thread marks: bytes scanned */
    PA_TRACE_ASSIST_WAIT,       /* an allocating thread waits for the cycle to end */
    PA_TRACE_SWEEP_ASSIST,      /* an allocating thread sweeps before it takes a span: freed */
    PA_TRACE_RELEASE,           /* free pages to the operating system: heap memory, metadata, who (0 background thread,
                                   1 slow path in time, 2 memory limit, 3 asked for) */
    PA_TRACE_GROW,              /* arenas from the operating system: bytes, address */
    PA_TRACE_SPAN_ALLOC,        /* instant: address, bytes */
    PA_TRACE_SPAN_FREE,         /* instant: address, bytes */
    PA_TRACE_FORCED,            /* instant: somebody asked for a collection */
    PA_TRACE_OVER_LIMIT,        /* instant: over the memory limit after everything free was released: limit, backed */
    PA_TRACE_MEMORY,            /* sample: pages in use, free and backed, released */
    PA_TRACE_HEAP,              /* sample of the managed heap: live, goal (UINT64_MAX: none) */
    PA_TRACE_IN_USE,            /* sample, whenever it has changed by 512 KiB and a thirty-second: pages in use */
    PA_TRACE_KINDS
} pa_trace_kind;

typedef struct pa_trace_event {
    uint64_t time_ns;           /* when it began; CLOCK_MONOTONIC */
    uint64_t duration_ns;
    uint32_t thread;            /* id of the thread that recorded it, as gettid(2) */
    uint32_t kind;              /* pa_trace_kind */
    uint64_t args[3];
} pa_trace_event;

/* Starts recording into rings of nbytes together: 64 bytes an event, rounded down to a power of two a ring; an
 * eighth is for all that is rare, the rest for spans and assists. What an earlier trace holds is forgotten. 0, or
 * EBUSY (it is on), EINVAL (below 8 KiB, above 4 GiB), ENOMEM. A fork child starts without a trace. */
int pa_trace_start(size_t nbytes);
/* Stops recording; the events stay until the next start or pa_trace_discard. False when it was not on. */
bool pa_trace_stop(void);
/* Forgets the events and gives their memory back; nothing happens while tracing is on. */
void pa_trace_discard(void);
/* At most this many events can be there. */
size_t pa_trace_capacity_events(void);
/* Copies up to capacity events, by the time they began, outer ones first; returns how many. *lost (may be NULL): those
 * recorded and not copied. On or off; events that are just being written are left out. */
size_t pa_trace_read(pa_trace_event *out, size_t capacity, uint64_t *lost);
/* Writes the same as Chrome trace-event JSON, which Perfetto opens (ui.perfetto.dev, chrome://tracing). 0, or the errno
 * of write(2), or ENOMEM for the copy of the events. */
int pa_trace_write(int fd);

/* ---- Live view: figures for another process that asks ---------------------------------------------------
 *
 * A process in live mode has an unnamed file, "pyalloc-live" in /proc/<pid>/fd, mapped shared. A viewer maps it too,
 * counts `request` up and wakes who sleeps on it: a thread of the viewed process, which writes the figures and sets
 * `answered`. Nothing happens while nobody asks. Of the same user only, as /proc/<pid>/fd and the file's mode have it.
 */

enum { PA_LIVE_LAYOUT = 1 };    /* changes when the meaning of a field does; a new size tells itself */

typedef struct pa_live_figures {
    uint64_t time_ns;           /* when they were taken; CLOCK_MONOTONIC */
    uint64_t cost_ns;           /* how long that took */
    pa_snapshot snapshot;
} pa_live_figures;

typedef struct pa_live_page {
    char magic[8];              /* "pyalive" */
    uint32_t layout;            /* PA_LIVE_LAYOUT */
    uint32_t nbytes;            /* sizeof(pa_live_page) */
    uint32_t process;           /* id, as the viewed process sees it: a fork child has not this page */
    char version[12];           /* pa_version() */
    uint32_t request;           /* futex; counted up by viewers */
    uint32_t answered;          /* futex; the last request whose figures are there; written by the viewed process */
    uint32_t seq;               /* odd while figures are being written (a seqlock); by the viewed process */
    uint32_t reserved;
    pa_live_figures figures;
} pa_live_page;

/* Puts this process into live mode, for the rest of its life; more calls do nothing. 0, or the errno of
 * memfd_create(2) or mmap(2), or EAGAIN when there is no thread. A fork child gets a page of its own at its first slow
 * call of malloc or free. PYALLOC_LIVE=1 does this at the start. */
int pa_live_start(void);

/* A viewer's: asks behind a page of nbytes that is mapped shared and writable for new figures, and copies them. 0, or
 * EINVAL (no such page), EPROTO (one of another version: page->version), ETIMEDOUT (no answer in time). */
int pa_live_read(void *page, size_t nbytes, pa_live_figures *out, uint64_t timeout_ns);
/* ---- Heap profile: who allocated what is alive ----------------------------------------------------------
 *
 * Blocks and managed objects are sampled, one in rate_bytes on average, at exponential distances; each stands for as
 * many of its size as it takes, so that sums are unbiased (Go: runtime.MemProfileRate). Bytes are those of the block,
 * its size class or pages. A sampled block takes pages of its own, 8 KiB for a small one: at the default rate at most
 * 1.6 % of the live heap. Not sampled are threads that have exited (what the C library still allocates for them) and
 * what was allocated before the start. Off, it costs nothing on fast paths, and a branch on some slow ones. */

enum { PA_PROFILE_RATE_BYTES = 512 * 1024 };

/* Starts one with what an earlier one found forgotten. rate_bytes: 1, which samples every block, to 1 TiB. seed: 0
 * takes the time, others make a single thread's samples repeatable. 0, EBUSY (it is on), EINVAL, ENOMEM. A fork child
 * goes on with a copy of its parent's. */
int pa_profile_start(size_t rate_bytes, uint64_t seed);
/* No more samples; what is sampled is seen to die on. False when it was not on. */
bool pa_profile_stop(void);
/* Forgets what was found; nothing happens while the profile is on. */
void pa_profile_discard(void);
/* Writes the profile as it is now: gzip of pprof's profile.proto, which `go tool pprof` and speedscope open. Values are
 * alloc_objects, alloc_space, inuse_objects, inuse_space. 0, the errno of write(2), or ENOMEM. On or off. */
int pa_profile_write(int fd);

/* Writes the file that PYALLOC_PROFILE asks for now, not when the process exits: for interpreters, which free
 * everything before. Once; false when there is nothing to write. */
bool pa_profile_finish(void);

typedef struct pa_profile_stats {
    bool on;
    uint64_t rate_bytes;
    uint64_t samples;           /* blocks sampled, whether they live or not */
    uint64_t lost;              /* due and not sampled: a table was full, or memory was out */
    uint64_t sites;             /* stacks that differ */
    uint64_t live;              /* sampled blocks that live, those of earlier profiles too */
} pa_profile_stats;
void pa_read_profile_stats(pa_profile_stats *out);

/* A line of interpreted code; texts are UTF-8. */
typedef struct pa_profile_line {
    const char *function, *file;
    size_t function_bytes, file_bytes;
    uint32_t line, function_line;
} pa_profile_line;
typedef enum pa_profile_answer { PA_PROFILE_ENOUGH, PA_PROFILE_MORE, PA_PROFILE_UNKNOWN } pa_profile_answer;
/* A stack of interpreted code: calls frame(context, key, line) for each line, innermost first, until that returns
 * PA_PROFILE_ENOUGH. key is a hash of all that makes the line, or 0; line NULL: the one that was given with that key
 * before (UNKNOWN: none). Called inside malloc of any thread: frees nothing that is not its own, waits for nobody. */
typedef pa_profile_answer (*pa_profile_frame)(void *context, uint64_t key, const pa_profile_line *line);
typedef void (*pa_profile_walker)(pa_profile_frame frame, void *context);
/* When the walker finds lines, the native frames of a stack end where the function `loop` is, which runs interpreted
 * code. NULL, NULL: there is no walker. Once in a process, or again with the same. */
void pa_profile_set_walker(pa_profile_walker walker, const void *loop);

/* ---- Heap map: every page of every arena -------------------------------------------------------------- */

typedef enum pa_page_state {
    PA_PAGE_RELEASED,           /* free; not backed as far as the heap knows: never touched, or given back */
    PA_PAGE_FREE,               /* free and backed */
    PA_PAGE_STOCK,              /* in a thread's page cache, in no span */
    PA_PAGE_EXPLICIT,           /* in a span of the malloc family */
    PA_PAGE_CACHED,             /* in an empty span that a thread keeps */
    PA_PAGE_MANAGED             /* in a span of managed objects */
} pa_page_state;

typedef struct pa_page_info {
    uint8_t state;              /* pa_page_state */
    uint8_t size_class;         /* 0: large, or in no span */
    uint8_t first;              /* 1: the first page of its span */
    uint8_t huge;               /* 1: the OS maps it as part of a huge page; always 0 before Linux 6.7, which says so */
    uint32_t live;              /* live objects in the whole span; blocks on their way home count */
    uint32_t capacity;          /* objects that the span holds when full */
} pa_page_info;

/* Address of arena index, 0 and up, in order of growth; 0 behind the last. */
uintptr_t pa_arena_address(int index);
/* Fills out[0..min(capacity, 8192)) with the pages of that arena, returns how many. Free or not is exact at one
 * instant; spans are read afterwards, without stopping anybody. */
size_t pa_read_arena_map(int index, pa_page_info *out, size_t capacity);

/* Walks every structure of the heap.  Returns 0 when all invariants hold; else 1 and the first
 * broken one by name in message (cut to capacity bytes, may be NULL).  Exact only while no other
 * thread is inside the allocator. */
int pa_heap_check(char *message, size_t capacity);

/* cffi: end */

#ifdef __cplusplus
}
#endif
#endif
