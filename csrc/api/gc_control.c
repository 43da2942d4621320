/* gc_control.c - the collector's settings and statistics: GOGC, memory limit, mode, gctrace, read_gc_stats.
 *
 * Owns nothing.  Settings are under the collector's lock; those that wait for a cycle leave the heap first, so that
 * the cycle need not wait for them.  The environment is read once, with the first managed object:
 * PYALLOC_GOGC wins over GOGC, PYALLOC_MEMLIMIT over GOMEMLIMIT, PYALLOC_DEBUG over GODEBUG.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "gc/gc.h"
#include "include/pyalloc.h"
#include "sys/clock.h"
#include "sys/thread.h"

/* ---- Environment ---- */

static const char *either(const char *first, const char *second)
{
    const char *text = secure_getenv(first);
    return text ? text : secure_getenv(second);
}

static void complain(const char *what)
{
    pa_log_line(what);
}

static int read_gc_percent(const char *text)
{
    if (!text || !*text)
        return 100;
    if (strcmp(text, "off") == 0)
        return -1;
    char *end;
    long percent = strtol(text, &end, 10);
    if (*end || percent < -1 || percent > 1000000) {
        complain("GOGC / PYALLOC_GOGC must be a percentage or \"off\": using 100");
        return 100;
    }
    return (int)percent;
}

/* Go's form: bytes with an optional B, KiB, MiB, GiB, TiB, or "off". */
static uint64_t read_memory_limit(const char *text)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    if (!text || !*text || strcmp(text, "off") == 0)
        return UINT64_MAX;
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    unsigned shift = 64;
    if (end != text && *text != '-' && errno == 0)
        for (unsigned i = 0; i < sizeof units / sizeof *units; i++)
            if (strcmp(end, units[i]) == 0 || (i == 0 && !*end))
                shift = 10 * i;
    if (shift < 64 && n << shift >> shift == n && n << shift <= INT64_MAX)
        return (uint64_t)n << shift;
    complain("GOMEMLIMIT / PYALLOC_MEMLIMIT must be bytes such as 536870912 or 512MiB, or \"off\": using no limit");
    return UINT64_MAX;
}

/* Value of key in a list "a=1,b=0"; fallback when it is not there. */
static int debug_value(const char *list, const char *key, int fallback)
{
    size_t length = strlen(key);
    for (const char *at = list; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, key, length) == 0 && at[length] == '=')
            return atoi(at + length + 1);
    return fallback;
}

static void configure_locked(pa_collector *gc)
{
    pa_pacer_init(&gc->pacer, pa_thread_processors());
    pa_limiter_init(&gc->limiter, gc->pacer.processors);
    gc->pacer.gc_percent = read_gc_percent(either("PYALLOC_GOGC", "GOGC"));
    gc->pacer.memory_limit = read_memory_limit(either("PYALLOC_MEMLIMIT", "GOMEMLIMIT"));
    if (debug_value(either("PYALLOC_DEBUG", "GODEBUG"), "gctrace", 0) > 0)
        gc->trace_fd = 2;
    const char *markers = secure_getenv("PYALLOC_GC_WORKERS");
    gc->max_markers = markers ? (unsigned)atoi(markers) : 0;
    gc->started_ns = gc->last_end_ns = pa_clock_now_ns();
    pa_gc_commit_locked();
    __atomic_store_n(&gc->configured, true, __ATOMIC_RELEASE);
}

void pa_gc_configure(void)
{
    pa_collector *gc = &pa_the_gc;
    if (PA_LIKELY(__atomic_load_n(&gc->configured, __ATOMIC_ACQUIRE)))
        return;
    pa_proc_attach(); /* the heap must be there */
    pa_lock_acquire(&gc->lock);
    bool first = !gc->configured;
    if (first)
        configure_locked(gc);
    pa_lock_release(&gc->lock);
    if (first)
        pa_gc_install_fork();
}

/* ---- Settings ---- */

/* Runs with the calling thread outside, whatever its depth. */
typedef struct outside {
    pa_proc *proc;
} outside;

static outside go_outside(void)
{
    pa_gc_configure();
    pa_proc *p = pa_world_self();
    outside o = {.proc = p->cache.gc->depth > 0 ? p : NULL};
    if (o.proc)
        pa_world_leave(o.proc);
    return o;
}

static void come_back(outside o)
{
    if (o.proc)
        pa_world_enter(o.proc);
}

PA_EXPORT void pa_gc(void)
{
    outside o = go_outside();
    pa_gc_run_forced();
    come_back(o);
}

PA_EXPORT int pa_set_gc_percent(int percent)
{
    pa_collector *gc = &pa_the_gc;
    pa_gc_configure();
    pa_lock_acquire(&gc->lock);
    int before = gc->pacer.gc_percent;
    gc->pacer.gc_percent = percent < 0 ? -1 : percent;
    pa_gc_commit_locked();
    pa_lock_release(&gc->lock);
    return before;
}

PA_EXPORT int64_t pa_set_memory_limit(int64_t nbytes)
{
    pa_collector *gc = &pa_the_gc;
    pa_gc_configure();
    pa_lock_acquire(&gc->lock);
    uint64_t before = gc->pacer.memory_limit;
    if (nbytes >= 0) {
        gc->pacer.memory_limit = nbytes == INT64_MAX ? UINT64_MAX : (uint64_t)nbytes;
        pa_gc_commit_locked();
    }
    pa_lock_release(&gc->lock);
    return before > INT64_MAX ? INT64_MAX : (int64_t)before;
}

PA_EXPORT int pa_set_gc_mode(int mode)
{
    pa_collector *gc = &pa_the_gc;
    if (mode < PA_GC_SERIAL || mode > PA_GC_CONCURRENT)
        return -1;
    outside o = go_outside();
    pa_lock_acquire(&gc->cycle_lock);
    int before = atomic_exchange(&gc->mode, mode);
    pa_lock_release(&gc->cycle_lock);
    come_back(o);
    return before;
}

PA_EXPORT int pa_set_gctrace(int fd)
{
    pa_collector *gc = &pa_the_gc;
    pa_gc_configure();
    pa_lock_acquire(&gc->lock);
    int before = gc->trace_fd;
    gc->trace_fd = fd < 0 ? -1 : fd;
    pa_lock_release(&gc->lock);
    return before;
}

PA_EXPORT bool pa_gc_set_checkmark(bool on)
{
    pa_collector *gc = &pa_the_gc;
    outside o = go_outside();
    pa_lock_acquire(&gc->cycle_lock);
    bool before = gc->checkmark;
    gc->checkmark = on;
    pa_lock_release(&gc->cycle_lock);
    come_back(o);
    return before;
}

/* ---- Statistics ---- */

PA_EXPORT void pa_read_gc_stats(pa_gc_stats *out)
{
    pa_collector *gc = &pa_the_gc;
    pa_heap *h = &pa_the_heap;
    pa_gc_configure();
    *out = (pa_gc_stats){0};
    for (pa_proc *p = __atomic_load_n(&pa_the_procs.all, __ATOMIC_ACQUIRE); p; p = p->next_all) {
        const pa_gcproc *g = __atomic_load_n(&p->cache.gc, __ATOMIC_ACQUIRE);
        out->total_alloc_bytes += pa_racy_load(&g->alloc_bytes);
        out->mallocs += pa_racy_load(&g->mallocs);
    }
    out->heap_live_bytes = atomic_load_explicit(&h->managed_live_bytes, memory_order_relaxed);
    out->frees = atomic_load_explicit(&h->managed_freed_objects, memory_order_relaxed);
    out->mode = atomic_load(&gc->mode);
    out->phase = atomic_load(&gc->phase);
    out->handles = pa_racy_load(&pa_the_roots.handle_count);
    out->weak_handles = pa_racy_load(&h->specials.weaks.inuse_count);
    pa_lock_acquire(&gc->lock);
    out->cycles = gc->cycles;
    out->forced_cycles = gc->forced_cycles;
    out->pause_total_ns = gc->pause_total_ns;
    out->pause_count = gc->pause_count;
    out->last_gc_unix_ns = gc->last_end_unix_ns;
    out->next_gc_bytes = gc->pacer.goal;
    out->heap_marked_bytes = gc->pacer.heap_marked;
    out->assist_ns = gc->total_assist_ns;
    out->background_ns = gc->total_background_ns;
    out->idle_ns = gc->total_idle_ns;
    out->stopped_ns = gc->total_stopped_cpu_ns;
    out->unbarriered_bytes = gc->last.unbarriered_bytes;
    out->gc_percent = gc->pacer.gc_percent;
    out->memory_limit = gc->pacer.memory_limit > INT64_MAX ? INT64_MAX : (int64_t)gc->pacer.memory_limit;
    out->processors = gc->pacer.processors;
    uint64_t wall_ns = pa_clock_now_ns() - gc->started_ns;
    uint64_t used_ns = gc->total_assist_ns + gc->total_background_ns + gc->total_stopped_cpu_ns;
    pa_lock_release(&gc->lock);
    out->cpu_fraction = wall_ns ? (double)used_ns / ((double)wall_ns * out->processors) : 0;
}

PA_EXPORT size_t pa_read_gc_pauses(uint64_t *pause_ns, uint64_t *pause_end_unix_ns, size_t capacity)
{
    pa_collector *gc = &pa_the_gc;
    pa_lock_acquire(&gc->lock);
    uint64_t have = gc->pause_count < PA_PAUSE_HISTORY ? gc->pause_count : PA_PAUSE_HISTORY;
    size_t n = capacity < have ? capacity : have;
    for (size_t i = 0; i < n; i++) {
        uint64_t at = (gc->pause_count - 1 - i) % PA_PAUSE_HISTORY;
        pause_ns[i] = gc->pause_ns[at];
        if (pause_end_unix_ns)
            pause_end_unix_ns[i] = gc->pause_end_unix_ns[at];
    }
    pa_lock_release(&gc->lock);
    return n;
}
