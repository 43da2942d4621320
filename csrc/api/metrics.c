/* metrics.c - every figure of a snapshot by name: the one list of names, kinds, expressions and descriptions.
 *
 * Owns nothing; pure functions of a pa_snapshot.  Names, units and meanings are those of Go's runtime/metrics
 * where Go has them; ours begin with /pyalloc/.  docs/statistics.md says which of Go's have no counterpart
 * and why.
 *
 * COUNT(name, grows, expression, doc), REAL(...) and HISTOGRAM(name, function, doc) expand the list three
 * times: into infos, into values, and - by their number - into the index that callers use.
 */
#include <math.h>

#include "base/config.h"
#include "base/sizeclass.h"
#include "include/pyalloc.h"

#define PA_METRICS(COUNT, REAL, HISTOGRAM) \
    COUNT("/memory/classes/total:bytes", false, s->mem.sys, \
          "All memory mapped: the sum of the other classes.") \
    COUNT("/memory/classes/heap/free:bytes", false, s->mem.heap_idle - s->mem.heap_released, \
          "Heap pages in no span that are still backed.") \
    COUNT("/memory/classes/heap/objects:bytes", false, s->mem.heap_alloc, \
          "Slots of live objects, and of dead managed ones that are not swept.") \
    COUNT("/memory/classes/heap/released:bytes", false, s->mem.heap_released, \
          "Heap pages that the operating system holds: never touched, or given back.") \
    COUNT("/memory/classes/heap/unused:bytes", false, s->mem.heap_inuse - s->mem.heap_alloc, \
          "Space in spans without a live object.") \
    COUNT("/memory/classes/metadata/mcache/free:bytes", false, s->mem.mcache_sys - s->mem.mcache_inuse, \
          "Thread caches that no thread has.") \
    COUNT("/memory/classes/metadata/mcache/inuse:bytes", false, s->mem.mcache_inuse, "Thread caches in use.") \
    COUNT("/memory/classes/metadata/mspan/free:bytes", false, s->mem.mspan_sys - s->mem.mspan_inuse, \
          "Span headers without a span.") \
    COUNT("/memory/classes/metadata/mspan/inuse:bytes", false, s->mem.mspan_inuse, "Span headers in use.") \
    COUNT("/memory/classes/metadata/other:bytes", false, s->mem.gc_sys, \
          "Page bitmaps and summaries, address tables, the collector's side tables.") \
    COUNT("/memory/classes/other:bytes", false, s->mem.other_sys, \
          "Everything else mapped: handles, weak handles, mark work, what is not carved yet.") \
    COUNT("/gc/heap/allocs:bytes", true, s->mem.total_alloc, "Managed objects ever allocated.") \
    COUNT("/gc/heap/allocs:objects", true, s->mem.mallocs, \
          "Managed objects ever allocated; tiny ones count by 16-byte block.") \
    HISTOGRAM("/gc/heap/allocs-by-size:bytes", allocs_by_size, "Managed objects ever allocated, by size.") \
    COUNT("/gc/heap/frees:bytes", true, s->mem.total_alloc - s->managed_live_bytes, "Managed objects ever swept.") \
    COUNT("/gc/heap/frees:objects", true, s->mem.frees, "Managed objects ever swept.") \
    HISTOGRAM("/gc/heap/frees-by-size:bytes", frees_by_size, "Managed objects ever swept, by size.") \
    COUNT("/gc/heap/objects:objects", false, s->mem.mallocs - s->mem.frees, \
          "Managed objects live, or dead and not swept.") \
    COUNT("/gc/heap/goal:bytes", false, s->gc.next_gc_bytes, "Heap size that the next cycle is to end at.") \
    COUNT("/gc/heap/live:bytes", false, s->gc.heap_marked_bytes, "Managed objects that the last cycle marked.") \
    COUNT("/gc/cycles/automatic:gc-cycles", true, s->gc.cycles - s->gc.forced_cycles, \
          "Cycles that the pacer started.") \
    COUNT("/gc/cycles/forced:gc-cycles", true, s->gc.forced_cycles, "Cycles that the program asked for.") \
    COUNT("/gc/cycles/total:gc-cycles", true, s->gc.cycles, "All cycles completed.") \
    COUNT("/gc/gogc:percent", false, s->gc.gc_percent < 0 ? UINT64_MAX : (uint64_t)s->gc.gc_percent, \
          "GOGC, the heap's growth between cycles; the largest number when off.") \
    COUNT("/gc/gomemlimit:bytes", false, \
          s->gc.memory_limit == INT64_MAX ? UINT64_MAX : (uint64_t)s->gc.memory_limit, \
          "The memory limit; the largest number when there is none.") \
    COUNT("/gc/scan/heap:bytes", false, s->scan_heap_bytes, "Managed objects scanned by the last cycle.") \
    COUNT("/gc/scan/stack:bytes", false, s->scan_frame_bytes, "Frames scanned by the last cycle.") \
    COUNT("/gc/scan/globals:bytes", false, s->scan_global_bytes, \
          "Handles and registered ranges scanned by the last cycle.") \
    COUNT("/gc/scan/total:bytes", false, s->scan_heap_bytes + s->scan_frame_bytes + s->scan_global_bytes, \
          "All that the last cycle scanned.") \
    COUNT("/gc/cleanups/queued:cleanups", true, s->cleanups_queued, "Cleanups whose object was found dead.") \
    COUNT("/gc/cleanups/executed:cleanups", true, s->cleanups_taken, "Cleanups handed to the program.") \
    REAL("/cpu/classes/gc/mark/assist:cpu-seconds", true, s->gc.assist_ns * 1e-9, \
         "Processor time of allocating threads that helped to mark.") \
    REAL("/cpu/classes/gc/mark/dedicated:cpu-seconds", true, s->gc.background_ns * 1e-9, \
         "Processor time of background marking.") \
    REAL("/cpu/classes/gc/mark/idle:cpu-seconds", true, s->gc.idle_ns * 1e-9, \
         "Processor time of marking on processors that were idle.") \
    REAL("/cpu/classes/gc/pause:cpu-seconds", true, s->gc.stopped_ns * 1e-9, \
         "Length of stops times the number of processors.") \
    REAL("/cpu/classes/gc/total:cpu-seconds", true, \
         (s->gc.assist_ns + s->gc.background_ns + s->gc.idle_ns + s->gc.stopped_ns) * 1e-9, \
         "Processor time of the collector: marking in all its forms, and stops.") \
    REAL("/cpu/classes/scavenge/background:cpu-seconds", true, s->scavenge.background_cpu_ns * 1e-9, \
         "Processor time of the thread that gives idle memory back.") \
    HISTOGRAM("/sched/pauses/total/gc:seconds", pauses, "Stops of the world, whole.") \
    HISTOGRAM("/sched/pauses/stopping/gc:seconds", stoppings, \
              "Stops of the world, from asking until every thread stood.") \
    COUNT("/pyalloc/explicit/inuse:bytes", false, s->mem.explicit_inuse, "Spans of the malloc family.") \
    COUNT("/pyalloc/explicit/live:bytes", false, s->mem.explicit_alloc, "Live blocks of the malloc family.") \
    COUNT("/pyalloc/explicit/live:objects", false, s->mem.explicit_objects, "Live blocks of the malloc family.") \
    COUNT("/pyalloc/explicit/cached:bytes", false, s->mem.explicit_cached, \
          "Empty spans that threads keep for reuse.") \
    COUNT("/pyalloc/explicit/hollow:bytes", false, s->mem.explicit_hollow, \
          "Memory of free blocks between live ones that was given back.") \
    COUNT("/pyalloc/managed/inuse:bytes", false, s->mem.managed_inuse, "Spans of managed objects.") \
    COUNT("/pyalloc/handles:handles", false, s->gc.handles, "Handles in use: roots held by Python and C programs.") \
    COUNT("/pyalloc/weak-handles:handles", false, s->gc.weak_handles, "Weak handles in use.") \
    COUNT("/pyalloc/heap/arenas:arenas", false, s->mem.arenas, "64 MiB arenas mapped.") \
    COUNT("/pyalloc/heap/mmaps:calls", true, s->mem.heap_mmaps, "Calls of mmap for heap memory.") \
    COUNT("/pyalloc/heap/released:bytes", true, s->mem.heap_released_total, "Heap memory ever given back.") \
    COUNT("/pyalloc/released/background:bytes", true, s->scavenge.background_bytes, \
          "Given back by the background thread.") \
    COUNT("/pyalloc/released/tick:bytes", true, s->scavenge.tick_bytes, \
          "Given back by malloc and free because time had passed.") \
    COUNT("/pyalloc/released/limit:bytes", true, s->scavenge.limit_bytes, \
          "Given back by allocations that went over the memory limit.") \
    COUNT("/pyalloc/released/asked:bytes", true, s->scavenge.asked_bytes, "Given back by free_os_memory.") \
    COUNT("/pyalloc/released/lazily:bytes", true, s->scavenge.lazy_bytes, "Of all that, with MADV_FREE.") \
    COUNT("/pyalloc/limit/backed:bytes", false, s->scavenge.backed_bytes, "What counts against the memory limit.") \
    COUNT("/pyalloc/limit/exceeded:events", true, s->scavenge.over_limit_count, \
          "Times that the heap was over its limit and had nothing to give back.") \
    COUNT("/pyalloc/heap/lock:acquisitions", true, s->mem.mheap_lock_acquisitions, "Times mheap's lock was taken.") \
    COUNT("/pyalloc/central/lock:acquisitions", true, s->central_lock_acquisitions, \
          "Times the central lock of a size class was taken.") \
    COUNT("/pyalloc/threads/slow-paths:calls", true, s->slow_path_entries, \
          "Times threads entered their slow paths, each under a lock of its own.") \
    COUNT("/pyalloc/spans/allocated:spans", true, s->mem.spans_allocated, "Spans ever made.") \
    COUNT("/pyalloc/spans/freed:spans", true, s->mem.spans_freed, "Spans ever given back.") \
    COUNT("/pyalloc/threads:threads", false, s->mem.threads, "Threads that have a cache.")

/* ---- Histograms ---- */

/* Bytes: [1, 9), [9, 17) ... as the size classes go, the last from 32769 on. */
static void by_size(const pa_snapshot *s, bool frees, pa_metric_value *out)
{
    out->buckets = PA_SIZE_CLASSES;
    out->bounds[0] = 1;
    for (unsigned c = 1; c < PA_SIZE_CLASSES; c++) {
        out->bounds[c] = pa_class_object_bytes[c] + 1.0;
        out->counts[c - 1] = frees ? s->classes[c].managed_frees : s->classes[c].managed_mallocs;
    }
    out->bounds[PA_SIZE_CLASSES] = INFINITY;
    out->counts[PA_SIZE_CLASSES - 1] = frees ? s->classes[0].managed_frees : s->classes[0].managed_mallocs;
}

static void allocs_by_size(const pa_snapshot *s, pa_metric_value *out)
{
    by_size(s, false, out);
}

static void frees_by_size(const pa_snapshot *s, pa_metric_value *out)
{
    by_size(s, true, out);
}

/* Seconds: below 1024 ns, then by doublings. */
static void by_length(const uint64_t counts[PA_SNAPSHOT_PAUSE_BUCKETS], pa_metric_value *out)
{
    enum { FIRST_NS = 1024 };
    out->buckets = PA_SNAPSHOT_PAUSE_BUCKETS;
    for (unsigned i = 0; i < PA_SNAPSHOT_PAUSE_BUCKETS; i++) {
        out->counts[i] = counts[i];
        out->bounds[i] = i ? (double)((uint64_t)FIRST_NS << (i - 1)) * 1e-9 : 0;
    }
    out->bounds[PA_SNAPSHOT_PAUSE_BUCKETS] = INFINITY;
}

static void pauses(const pa_snapshot *s, pa_metric_value *out)
{
    by_length(s->pauses, out);
}

static void stoppings(const pa_snapshot *s, pa_metric_value *out)
{
    by_length(s->stoppings, out);
}

/* ---- The list, expanded ---- */

/* Text, not pointers to it: each would be a relocation, and its page, in every program. */
typedef struct info {
    char name[56], doc[128];
    uint8_t kind;
    bool cumulative;
} info;

static const info infos[] = {
#define COUNT(name, grows, expression, doc) {name, doc, PA_METRIC_COUNT, grows},
#define REAL(name, grows, expression, doc) {name, doc, PA_METRIC_REAL, grows},
#define HISTOGRAM(name, function, doc) {name, doc, PA_METRIC_HISTOGRAM, true},
    PA_METRICS(COUNT, REAL, HISTOGRAM)
#undef COUNT
#undef REAL
#undef HISTOGRAM
};

#define FITS(n, d) \
    _Static_assert(sizeof(n) <= sizeof infos->name && sizeof(d) <= sizeof infos->doc, "longer than its field");
#define COUNT(name, grows, expression, doc) FITS(name, doc)
#define HISTOGRAM(name, function, doc) FITS(name, doc)
PA_METRICS(COUNT, COUNT, HISTOGRAM)
#undef COUNT
#undef HISTOGRAM

enum { METRICS = sizeof infos / sizeof *infos };

PA_EXPORT bool pa_metric(int index, pa_metric_info *out)
{
    if (index < 0 || index >= METRICS)
        return false;
    const info *i = &infos[index];
    *out = (pa_metric_info){.name = i->name, .doc = i->doc, .kind = i->kind, .cumulative = i->cumulative};
    return true;
}

PA_EXPORT bool pa_metric_of(const pa_snapshot *s, int index, pa_metric_value *out)
{
    int i = 0;
    *out = (pa_metric_value){0};
    if (index < 0 || index >= METRICS)
        return false;
#define COUNT(name, grows, expression, doc) \
    if (i++ == index)                       \
        out->count = (expression);
#define REAL(name, grows, expression, doc) \
    if (i++ == index)                      \
        out->real = (double)(expression);
#define HISTOGRAM(name, function, doc) \
    if (i++ == index)                  \
        function(s, out);
    PA_METRICS(COUNT, REAL, HISTOGRAM)
#undef COUNT
#undef REAL
#undef HISTOGRAM
    return true;
}
