/* trace_json.c - events as Chrome trace-event JSON (the object form of "Trace Event Format", Google).
 *
 * Owns nothing; the text goes through a buffer on the stack (api/json.h).  What has a duration becomes a complete event
 * ("X"), a moment an instant ("i", scope thread), a sample a counter ("C"), and names are metadata ("M").  Times
 * are microseconds with three decimals, so nothing is rounded and what nests, nests.
 *
 * Tracks: phases of cycles and stops are no thread's doing and have tracks of their own, with numbers above any that
 * Linux gives to a thread; all else is on the track of the thread that recorded it.  On each of them durations nest:
 * a thread's because it records what it does in scopes, cycles and stops because there is one at a time.
 */
#include "api/trace_json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "api/json.h"

enum { PHASE_TRACK = (1 << 22) + 1, STOP_TRACK, THREAD_TRACK = 0 }; /* thread ids are below 2^22 */

/* Text, not pointers to it: each would be a relocation, and its page, in every program. */
typedef struct form {
    char name[24], category[8];
    char ph;
    uint32_t track;
    char args[3][20]; /* "": none */
} form;

static const form forms[PA_TRACE_KINDS] = {
    [PA_TRACE_CYCLE] = {"cycle", "gc", 'X', PHASE_TRACK, {"cycle", "marked_bytes", "forced"}},
    [PA_TRACE_SWEEP_TERMINATION] = {"sweep termination", "gc", 'X', PHASE_TRACK, {"cycle"}},
    [PA_TRACE_MARK] = {"mark", "gc", 'X', PHASE_TRACK, {"cycle", "background_cpu_ns", "assist_cpu_ns"}},
    [PA_TRACE_MARK_TERMINATION] = {"mark termination", "gc", 'X', PHASE_TRACK, {"cycle"}},
    [PA_TRACE_SWEEP] = {"sweep", "gc", 'X', THREAD_TRACK, {"freed_bytes"}},
    [PA_TRACE_STOP] = {"stop", "stop", 'X', STOP_TRACK, {"stopping_ns"}},
    [PA_TRACE_ASSIST] = {"assist", "assist", 'X', THREAD_TRACK, {"scanned_bytes"}},
    [PA_TRACE_ASSIST_WAIT] = {"wait for the cycle", "assist", 'X', THREAD_TRACK, {""}},
    [PA_TRACE_SWEEP_ASSIST] = {"sweep assist", "assist", 'X', THREAD_TRACK, {"freed_bytes"}},
    [PA_TRACE_RELEASE] = {"release", "release", 'X', THREAD_TRACK, {"heap_bytes", "metadata_bytes", "reason"}},
    [PA_TRACE_GROW] = {"grow", "heap", 'X', THREAD_TRACK, {"bytes", "address"}},
    [PA_TRACE_SPAN_ALLOC] = {"span alloc", "span", 'i', THREAD_TRACK, {"address", "bytes"}},
    [PA_TRACE_SPAN_FREE] = {"span free", "span", 'i', THREAD_TRACK, {"address", "bytes"}},
    [PA_TRACE_FORCED] = {"forced collection", "gc", 'i', THREAD_TRACK, {""}},
    [PA_TRACE_OVER_LIMIT] = {"over the memory limit", "heap", 'i', THREAD_TRACK, {"limit_bytes", "backed_bytes"}},
    [PA_TRACE_IN_USE] = {"heap in use", "heap", 'C', THREAD_TRACK, {"in_use"}},
    [PA_TRACE_MEMORY] = {"heap memory", "heap", 'C', THREAD_TRACK, {"in_use", "free", "released"}},
    [PA_TRACE_HEAP] = {"managed heap", "gc", 'C', THREAD_TRACK, {"live", "goal"}},
};

static const char reasons[][12] = {"background", "tick", "limit", "asked"};

/* ---- Sorting: heapsort ---- */

typedef bool (*before)(const pa_trace_event *a, const pa_trace_event *b);

static bool is_earlier(const pa_trace_event *a, const pa_trace_event *b)
{
    if (a->time_ns != b->time_ns)
        return a->time_ns < b->time_ns;
    return a->duration_ns != b->duration_ns ? a->duration_ns > b->duration_ns : a->kind < b->kind;
}

static bool is_of_lower_thread(const pa_trace_event *a, const pa_trace_event *b)
{
    return a->thread < b->thread;
}

static void sift(pa_trace_event *e, size_t at, size_t count, before less)
{
    pa_trace_event moving = e[at];
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        child += child + 1 < count && less(&e[child], &e[child + 1]);
        if (!less(&moving, &e[child]))
            break;
        e[at] = e[child];
    }
    e[at] = moving;
}

static void sort(pa_trace_event *e, size_t count, before less)
{
    for (size_t i = count / 2; i-- > 0;)
        sift(e, i, count, less);
    for (size_t n = count; n-- > 1;) {
        pa_trace_event last = e[n];
        e[n] = e[0];
        e[0] = last;
        sift(e, 0, n, less);
    }
}

void pa_trace_sort_by_time(pa_trace_event *events, size_t count)
{
    sort(events, count, is_earlier);
}

/* ---- Writing ---- */

static void add_number(pa_json *w, const char *name, uint64_t value)
{
    pa_json_key(w, name);
    pa_json_uint(w, value);
}

static void add_string(pa_json *w, const char *name, const char *value)
{
    pa_json_key(w, name);
    pa_json_string(w, value);
}

static void add_microseconds(pa_json *w, const char *name, uint64_t ns)
{
    enum { DECIMALS_ROOM = 4 };
    add_number(w, name, ns / 1000);
    pa_json_reserve(w, DECIMALS_ROOM);
    pa_text_char(&w->text, '.');
    for (uint64_t digit = 100; digit; digit /= 10)
        pa_text_char(&w->text, (char)('0' + ns / digit % 10));
}

/* On a line of its own: people look at these files, too. */
static void begin_event(pa_json *w, const char *name, char ph, uint32_t track)
{
    const char type[] = {ph, '\0'};
    pa_json_item(w);
    pa_json_newline(w);
    pa_json_open(w, '{');
    add_string(w, "name", name);
    add_string(w, "ph", type);
    add_number(w, "pid", (uint64_t)getpid());
    add_number(w, "tid", track);
}

static void begin_arguments(pa_json *w)
{
    pa_json_key(w, "args");
    pa_json_open(w, '{');
}

static void end_arguments_and_event(pa_json *w)
{
    pa_json_close(w, '}');
    pa_json_close(w, '}');
}

static void add_argument(pa_json *w, const char *name, uint64_t value)
{
    pa_json_key(w, name);
    if (strcmp(name, "address") == 0) {
        char room[32];
        pa_text t = PA_TEXT(room);
        pa_text_str(&t, "0x");
        pa_text_uint(&t, value, 16);
        pa_json_string(w, pa_text_cstr(&t));
    } else if (strcmp(name, "reason") == 0) {
        pa_json_string(w, value < sizeof reasons / sizeof *reasons ? reasons[value] : "?");
    } else if (strcmp(name, "forced") == 0) {
        pa_json_bool(w, value != 0);
    } else {
        pa_json_uint(w, value);
    }
}

static void add_event(pa_json *w, const pa_trace_event *e)
{
    const form *f = &forms[e->kind];
    begin_event(w, f->name, f->ph, f->track == THREAD_TRACK ? e->thread : f->track);
    add_string(w, "cat", f->category);
    add_microseconds(w, "ts", e->time_ns);
    if (f->ph == 'X')
        add_microseconds(w, "dur", e->duration_ns);
    if (f->ph == 'i')
        add_string(w, "s", "t");
    begin_arguments(w);
    for (int i = 0; i < 3 && f->args[i][0]; i++)
        if (e->kind != PA_TRACE_HEAP || e->args[i] != UINT64_MAX) /* no goal while the collector is off */
            add_argument(w, f->args[i], e->args[i]);
    end_arguments_and_event(w);
}

static void add_name(pa_json *w, const char *what, uint32_t track, const char *name)
{
    begin_event(w, what, 'M', track);
    begin_arguments(w);
    add_string(w, "name", name);
    end_arguments_and_event(w);
}

static void add_sort_index(pa_json *w, uint32_t track, int index)
{
    begin_event(w, "thread_sort_index", 'M', track);
    begin_arguments(w);
    pa_json_key(w, "sort_index");
    pa_json_int(w, index);
    end_arguments_and_event(w);
}

/* Its name, as long as it lives. */
static void add_thread(pa_json *w, uint32_t thread)
{
    char path_room[64], name[64];
    pa_text path = PA_TEXT(path_room);
    pa_text_str(&path, "/proc/self/task/");
    pa_text_uint(&path, thread, 10);
    pa_text_str(&path, "/comm");
    int fd = open(pa_text_cstr(&path), O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, name, sizeof name - 1);
    if (fd >= 0)
        close(fd);
    if (n > 0 && name[n - 1] == '\n')
        n--;
    if (n <= 0) {
        pa_text t = PA_TEXT(name);
        pa_text_str(&t, "thread ");
        pa_text_uint(&t, thread, 10);
        pa_text_cstr(&t);
    } else {
        name[n] = '\0';
    }
    add_name(w, "thread_name", thread, name);
}

static void add_other_data(pa_json *w, uint64_t lost)
{
    char room[64];
    pa_text producer = PA_TEXT(room);
    pa_text_str(&producer, "pyalloc ");
    pa_text_str(&producer, pa_version());
    pa_json_key(w, "otherData");
    pa_json_open(w, '{');
    add_string(w, "producer", pa_text_cstr(&producer));
    add_string(w, "clock", "CLOCK_MONOTONIC");
    add_number(w, "lost_events", lost);
    pa_json_close(w, '}');
}

int pa_trace_json_write(int fd, pa_trace_event *events, size_t count, uint64_t lost)
{
    pa_json w;
    char room[16384];
    int saved_errno = errno;
    pa_json_begin(&w, fd, room, sizeof room);
    pa_json_open(&w, '{');
    add_string(&w, "displayTimeUnit", "ms");
    add_other_data(&w, lost);
    pa_json_key(&w, "traceEvents");
    pa_json_open(&w, '[');
    add_name(&w, "process_name", (uint32_t)getpid(), program_invocation_short_name);
    add_name(&w, "thread_name", PHASE_TRACK, "collector: phases");
    add_sort_index(&w, PHASE_TRACK, -2);
    add_name(&w, "thread_name", STOP_TRACK, "collector: stops");
    add_sort_index(&w, STOP_TRACK, -1);
    for (size_t i = 0; i < count && w.error == 0; i++)
        if (events[i].kind < PA_TRACE_KINDS)
            add_event(&w, &events[i]);
    sort(events, count, is_of_lower_thread);
    for (size_t i = 0; i < count && w.error == 0; i++)
        if (i == 0 || events[i].thread != events[i - 1].thread)
            add_thread(&w, events[i].thread);
    pa_json_close(&w, ']');
    pa_json_close(&w, '}');
    pa_json_newline(&w);
    pa_json_flush(&w);
    errno = saved_errno;
    return w.error;
}
