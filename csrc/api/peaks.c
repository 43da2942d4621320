/* peaks.c - PYALLOC_REPORT: the heap as it was at its peak and at exit, in a file that others make pictures of.
 *
 * Owns the file's name, a workspace mapped when it is first needed, and the word that says who is at work in it; no
 * lock.  The file is JSON, an object a line (docs/statistics.md): the process with its options, its peak, its exit.
 * Each of the latter two has every metric, the size classes, the pauses and the heap map in runs.
 *
 * A peak is written when the pages in use exceed those of the last one by a tenth and 1 MiB.  So a heap of any size
 * is written down some two dozen times for each factor of ten, the last file is at most that much below the true peak
 * (of which the number is kept), and all snapshots together cost about eleven times the last.  It is written at once,
 * not kept until the end: what is killed for its use of memory leaves the picture of it behind.
 * That happens in a slow path of the thread that went over the mark, with no lock held (heap/peak.h); a thread inside
 * (world/stw.h) keeps a stop of the world waiting meanwhile.  Other threads go on; two peaks at once are one.
 *
 * Children of fork write files of their own when the name has "%p" in it, else none.
 */
#include "api/peaks.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "api/json.h"
#include "api/outfile.h"
#include "api/summary.h"
#include "base/bits.h"
#include "base/options.h"
#include "include/pyalloc.h"
#include "sys/clock.h"
#include "sys/thread.h"
#include "sys/vm.h"
#include "world/proc.h"

enum { FIRST_PAGES = PA_MIB >> PA_PAGE_SHIFT, ROOM_BYTES = 32 * 1024 };

typedef struct workspace {
    pa_snapshot snapshot;
    pa_page_info pages[PA_ARENA_PAGES];
    char room[ROOM_BYTES];
} workspace;

static struct {
    pa_outfile file;
    pid_t process;       /* that started; 0: nothing is asked for */
    workspace *work;     /* written by who has `busy` */
    pid_t written_by;    /* the process that has written a peak; as `work` */
    bool complained;     /* as `work` */
    /* The process of which a thread is at work here; 0: none. Taken by compare-and-swap (acquire), given back with
     * release. In a child of fork it may name the parent: then that thread is not there. */
    _Atomic pid_t busy;
} the;

/* ---- The heap map: runs of pages ---- */

typedef struct run {
    pa_page_info page;
    uint32_t pages, times;
} run;

static bool is_alike(const pa_page_info *a, const pa_page_info *b)
{
    return a->state == b->state && a->size_class == b->size_class && a->huge == b->huge && a->live == b->live &&
           a->capacity == b->capacity;
}

static void put_run(pa_json *w, const run *r)
{
    if (r->times == 0)
        return;
    pa_json_item_uint(w, r->page.state | (unsigned)r->page.first << 3 | (unsigned)r->page.huge << 4);
    pa_json_item_uint(w, r->page.size_class);
    pa_json_item_uint(w, r->page.live);
    pa_json_item_uint(w, r->page.capacity);
    pa_json_item_uint(w, r->pages);
    pa_json_item_uint(w, r->times);
}

/* A run has ended: one more of the same, or the next. */
static void end_run(pa_json *w, run *waiting, const run *ended)
{
    if (waiting->times && ended->pages == waiting->pages && ended->page.first == waiting->page.first &&
        is_alike(&ended->page, &waiting->page)) {
        waiting->times++;
        return;
    }
    put_run(w, waiting);
    *waiting = *ended;
    waiting->times = ended->pages != 0;
}

static void put_runs(pa_json *w, const pa_page_info *pages, size_t count)
{
    run waiting = {.times = 0}, current = {.pages = 0};
    for (size_t i = 0; i < count; i++) {
        if (current.pages && !pages[i].first && is_alike(&current.page, &pages[i])) {
            current.pages++;
            continue;
        }
        end_run(w, &waiting, &current);
        current = (run){.page = pages[i], .pages = 1};
    }
    end_run(w, &waiting, &current);
    put_run(w, &waiting);
}

static void put_map(pa_json *w, pa_page_info *pages)
{
    uintptr_t address;
    pa_json_key(w, "arenas");
    pa_json_open(w, '[');
    for (int i = 0; w->error == 0 && (address = pa_arena_address(i)) != 0; i++) {
        size_t count = pa_read_arena_map(i, pages, PA_ARENA_PAGES);
        pa_json_item(w);
        pa_json_open(w, '{');
        pa_json_key(w, "address");
        pa_json_uint(w, address);
        pa_json_key(w, "runs");
        pa_json_open(w, '[');
        put_runs(w, pages, count);
        pa_json_close(w, ']');
        pa_json_close(w, '}');
    }
    pa_json_close(w, ']');
}

/* ---- Figures ---- */

static void put_uint(pa_json *w, const char *name, uint64_t value)
{
    pa_json_key(w, name);
    pa_json_uint(w, value);
}

static void put_histogram(pa_json *w, const pa_metric_value *v)
{
    pa_json_open(w, '{');
    pa_json_key(w, "counts");
    pa_json_open(w, '[');
    for (size_t i = 0; i < v->buckets; i++)
        pa_json_item_uint(w, v->counts[i]);
    pa_json_close(w, ']');
    pa_json_key(w, "bounds");
    pa_json_open(w, '[');
    for (size_t i = 0; i <= v->buckets; i++) {
        pa_json_item(w);
        pa_json_real(w, v->bounds[i]);
    }
    pa_json_close(w, ']');
    pa_json_close(w, '}');
}

static void put_metrics(pa_json *w, const pa_snapshot *s)
{
    pa_metric_info info;
    pa_metric_value value;
    pa_json_key(w, "metrics");
    pa_json_open(w, '{');
    for (int i = 0; pa_metric(i, &info) && pa_metric_of(s, i, &value); i++) {
        pa_json_key(w, info.name);
        if (info.kind == PA_METRIC_COUNT)
            pa_json_uint(w, value.count);
        else if (info.kind == PA_METRIC_REAL)
            pa_json_real(w, value.real);
        else
            put_histogram(w, &value);
    }
    pa_json_close(w, '}');
}

/* Rows of pa_class_stats in its order. */
static void put_classes(pa_json *w, const pa_snapshot *s)
{
    pa_json_key(w, "classes");
    pa_json_open(w, '[');
    for (int c = 0; c < PA_SNAPSHOT_CLASSES; c++) {
        const uint64_t *row = (const uint64_t *)&s->classes[c];
        pa_json_item(w);
        pa_json_open(w, '[');
        for (size_t i = 0; i < sizeof s->classes[c] / sizeof *row; i++)
            pa_json_item_uint(w, row[i]);
        pa_json_close(w, ']');
    }
    pa_json_close(w, ']');
}

/* The last stops, oldest first. */
static void put_pauses(pa_json *w, const pa_snapshot *s)
{
    uint64_t count = s->gc.pause_count, first = count > PA_SNAPSHOT_PAUSES ? count - PA_SNAPSHOT_PAUSES : 0;
    pa_json_key(w, "pauses_ns");
    pa_json_open(w, '[');
    for (uint64_t n = first; n < count; n++)
        pa_json_item_uint(w, s->pause_ns[n % PA_SNAPSHOT_PAUSES]);
    pa_json_close(w, ']');
}

/* What the operating system says of the process. */
static void put_process_figures(pa_json *w)
{
    struct rusage used;
    put_uint(w, "peak_rss_bytes", pa_summary_peak_rss_bytes());
    if (getrusage(RUSAGE_SELF, &used) != 0)
        return;
    put_uint(w, "minor_faults", (uint64_t)used.ru_minflt);
    put_uint(w, "major_faults", (uint64_t)used.ru_majflt);
    pa_json_key(w, "user_seconds");
    pa_json_real(w, (double)used.ru_utime.tv_sec + (double)used.ru_utime.tv_usec * 1e-6);
    pa_json_key(w, "system_seconds");
    pa_json_real(w, (double)used.ru_stime.tv_sec + (double)used.ru_stime.tv_usec * 1e-6);
}

static void put_state(pa_json *w, workspace *work, const char *kind)
{
    uint64_t highest_pages = atomic_load_explicit(&pa_the_heap.peak.highest_pages, memory_order_relaxed);
    pa_json_open(w, '{');
    pa_json_key(w, "kind");
    pa_json_string(w, kind);
    put_uint(w, "time_ns", pa_clock_now_ns());
    put_uint(w, "peak_heap_inuse_bytes", highest_pages << PA_PAGE_SHIFT);
    put_process_figures(w);
    put_metrics(w, &work->snapshot);
    put_classes(w, &work->snapshot);
    put_pauses(w, &work->snapshot);
    put_map(w, work->pages);
    pa_json_close(w, '}');
    pa_json_newline(w);
}

/* ---- The process ---- */

static void put_option(pa_json *w, const pa_option_info *o)
{
    pa_json_open(w, '{');
    pa_json_key(w, "name");
    pa_json_string(w, o->name);
    pa_json_key(w, "value");
    if (strcmp(o->type, "PATH") == 0)
        pa_json_string(w, o->value ? (const char *)(intptr_t)o->value : "");
    else
        pa_json_int(w, o->value);
    pa_json_key(w, "type");
    pa_json_string(w, o->type);
    pa_json_key(w, "source");
    pa_json_string(w, o->source);
    pa_json_close(w, '}');
}

static void put_process(pa_json *w)
{
    pa_option_info option;
    pa_json_open(w, '{');
    pa_json_key(w, "kind");
    pa_json_string(w, "process");
    pa_json_key(w, "version");
    pa_json_string(w, pa_version());
    put_uint(w, "pid", (uint64_t)getpid());
    put_uint(w, "parent", (uint64_t)getppid());
    pa_json_key(w, "program");
    pa_json_string(w, program_invocation_short_name ? program_invocation_short_name : "?");
    pa_json_key(w, "options");
    pa_json_open(w, '[');
    for (int i = 0; pa_option(i, &option); i++) {
        pa_json_item(w);
        put_option(w, &option);
    }
    pa_json_close(w, ']');
    pa_json_close(w, '}');
    pa_json_newline(w);
}

/* ---- The file ---- */

static int fill_peak(int fd, void *context)
{
    workspace *work = context;
    pa_json w;
    pa_json_begin(&w, fd, work->room, sizeof work->room);
    put_process(&w);
    put_state(&w, work, "peak");
    pa_json_flush(&w);
    return w.error;
}

/* What was written at the peak, as it is. False when that is not there any more. */
static bool copy_peak(pa_json *w)
{
    int fd = pa_outfile_open(&the.file);
    ssize_t n = -1;
    while (fd >= 0) {
        pa_json_flush(w); /* its buffer is empty then */
        n = read(fd, w->text.start, w->text.capacity - 1);
        if (n <= 0 && !(n < 0 && errno == EINTR))
            break;
        w->text.len = n > 0 ? (size_t)n : 0;
    }
    if (fd >= 0)
        close(fd);
    return n == 0;
}

static int fill_exit(int fd, void *context)
{
    workspace *work = context;
    pa_json w;
    pa_json_begin(&w, fd, work->room, sizeof work->room);
    if (the.written_by != getpid() || !copy_peak(&w))
        put_process(&w);
    put_state(&w, work, "exit");
    pa_json_flush(&w);
    return w.error;
}

/* Is it this process's to write? */
static bool is_wanted(void)
{
    return the.process && (the.process == getpid() || pa_outfile_is_per_process(&the.file));
}

static bool begin_work(void)
{
    pid_t self = getpid(), other = atomic_load_explicit(&the.busy, memory_order_relaxed);
    return other != self &&
           atomic_compare_exchange_strong_explicit(&the.busy, &other, self, memory_order_acquire, memory_order_relaxed);
}

/* After begin_work. Not a cancellation point: malloc is none, and write(2) is. */
static void write_and_end_work(int (*fill)(int fd, void *context))
{
    int saved_errno = errno, error = ENOMEM, cancel_state;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    if (!the.work)
        the.work = pa_vm_map(pa_round_up(sizeof *the.work, pa_vm_page_size_bytes()));
    if (the.work) {
        pa_read_snapshot(&the.work->snapshot);
        error = pa_outfile_write(&the.file, fill, the.work);
    }
    if (error && !the.complained)
        pa_outfile_complain(&the.file, "could not be written", pa_outfile_why(error));
    the.complained |= error != 0;
    if (error == 0)
        the.written_by = getpid();
    atomic_store_explicit(&the.busy, 0, memory_order_release);
    pthread_setcancelstate(cancel_state, NULL);
    errno = saved_errno;
}

/* More is in use than ever. No lock held; the next mark first, so that a peak that comes meanwhile is seen. */
static void on_peak(void)
{
    pa_peak *peak = &pa_the_heap.peak;
    if (!pa_mcache_is_real(pa_current_mcache)) { /* in somebody's stead, under a lock: the next one will do it */
        atomic_store_explicit(&peak->due, true, memory_order_release);
        return;
    }
    if (!is_wanted() || !begin_work())
        return;
    uint64_t now = atomic_load_explicit(&peak->highest_pages, memory_order_relaxed);
    atomic_store_explicit(&peak->above_pages, now + now / 10 + FIRST_PAGES, memory_order_relaxed);
    write_and_end_work(fill_peak);
}

void pa_peaks_at_start(void)
{
    const char *name = (const char *)(intptr_t)pa_the_options.report;
    bool fits = pa_outfile_set(&the.file, "PYALLOC_REPORT", name);
    pa_the_options.report = (int64_t)(intptr_t)the.file.path;
    if (!fits) {
        pa_outfile_complain(&the.file, "no report", "the path is too long");
        return;
    }
    the.process = getpid();
    pa_the_heap.peak.notify = on_peak;
    atomic_store_explicit(&pa_the_heap.peak.above_pages, FIRST_PAGES, memory_order_relaxed);
}

void pa_peaks_at_exit(void)
{
    if (!is_wanted())
        return;
    while (!begin_work()) /* another thread writes a peak */
        pa_thread_yield();
    write_and_end_work(fill_exit);
}
