/* options.h - run-time options: PYALLOC_* in the environment.
 *
 * The two lists define every option once: name, type, default, documentation.  Values are read once, by
 * pa_options_load, which the library's constructor calls; code that runs before that (the loader allocates)
 * sees the defaults.  Nothing writes them afterwards, so they are read without any order.
 *
 * Types: BOOL 1/0 true/false yes/no on/off; MS milliseconds; COUNT a number; PERCENT a number or "off" (-1);
 * BYTES a number with an optional B, KiB, MiB, GiB or TiB, or "off" (INT64_MAX), as Go's GOMEMLIMIT; PATH any
 * text, its address, in the environment until who uses it copies it.
 */
#ifndef PA_OPTIONS_H
#define PA_OPTIONS_H

#include "base/config.h"

/* X(field, NAME, TYPE, value, default as text, Go's variable that holds when ours is absent or "", documentation) */
#define PA_OPTIONS(X)                                                                                        \
    X(background, "PYALLOC_BACKGROUND", BOOL, 0, "0", "",                                                    \
      "1: start a thread that gives idle memory back, once the heap has freed 4 MiB; 0: not even in Python")  \
    X(stats_at_exit, "PYALLOC_STATS_AT_EXIT", BOOL, 0, "0", "",                                              \
      "write a summary of the heap to stderr when the process exits")                                        \
    X(decay_ms, "PYALLOC_DECAY_MS", MS, 500, "500", "",                                                      \
      "least time between two releases of idle memory from slow paths, in ms; 0 turns them off")             \
    X(huge_pages, "PYALLOC_HUGE_PAGES", BOOL, 0, "0", "",                                                    \
      "1: ask for transparent huge pages in the whole heap; 0: only for large managed heaps and arrays")     \
    X(gogc, "PYALLOC_GOGC", PERCENT, 100, "100", "GOGC",                                                     \
      "growth of the managed heap that starts a collection, in percent of what is live, or off")             \
    X(memlimit, "PYALLOC_MEMLIMIT", BYTES, INT64_MAX, "off", "GOMEMLIMIT",                                   \
      "soft limit of the memory that pyalloc uses: bytes, 512MiB, or off")                                   \
    X(gc_workers, "PYALLOC_GC_WORKERS", COUNT, 0, "0", "",                                                   \
      "threads that may mark at once, 0: as many as there are processors")                                   \
    X(live, "PYALLOC_LIVE", BOOL, 0, "0", "",                                                                \
      "have figures for python -m pyalloc top at hand: a thread that sleeps until a viewer asks")            \
    X(trace, "PYALLOC_TRACE", PATH, 0, "", "",                                                               \
      "write an execution trace to this file when the process exits (JSON for Perfetto); %p: process id")    \
    X(trace_bytes, "PYALLOC_TRACE_BYTES", BYTES, 16 * 1024 * 1024, "16MiB", "",                              \
      "memory for that trace: 64 bytes an event, 8KiB to 4GiB; the oldest are overwritten")                  \
    X(report, "PYALLOC_REPORT", PATH, 0, "", "",                                                             \
      "write the heap as it was at its peak and at exit to this file (JSON lines); %p: process id")          \
    X(profile, "PYALLOC_PROFILE", PATH, 0, "", "",                                                           \
      "write a heap profile to this file when the process exits (gzip, for go tool pprof); %p: process id")  \
    X(profile_rate, "PYALLOC_PROFILE_RATE", BYTES, 512 * 1024, "512KiB", "",                                 \
      "bytes between two samples of that profile on average; 1 samples every block")

/* Keys of PYALLOC_DEBUG and GODEBUG, comma lists of key=number. X(field, value, documentation) */
#define PA_DEBUG_KEYS(X)                                                                                     \
    X(gctrace, 0, "1: one line to stderr for each collection")                                               \
    X(scavtrace, 0, "1: one line to stderr for each release of idle memory by the background thread")        \
    X(madvdontneed, 1, "1: released pages are given up at once (MADV_DONTNEED); 0: lazily (MADV_FREE)") \
    X(lockstat, 0, "1: count and time what locks cost, for the statistics at exit and pa_read_lock_stats")

typedef struct pa_options {
#define X(field, name, type, value, text, fallback, doc) int64_t field;
    PA_OPTIONS(X)
#undef X
#define X(field, value, doc) int64_t field;
    PA_DEBUG_KEYS(X)
#undef X
} pa_options;

enum {
    PA_OPTION_COUNT = 0
#define X(field, name, type, value, text, fallback, doc) +1
    PA_OPTIONS(X),
#undef X
    PA_DEBUG_KEY_COUNT = 0
#define X(field, value, doc) +1
    PA_DEBUG_KEYS(X)
#undef X
};

#define PA_OFF_PERCENT ((int64_t)-1)
#define PA_OFF_BYTES INT64_MAX

extern PA_HIDDEN pa_options pa_the_options;

/* Reads the environment, once; later calls do nothing. In a privileged program (setuid) the environment is
 * not trusted and the defaults stay. Unknown PYALLOC_ names, but for PYALLOC_BUILD_, _BENCH_ and _RECORD
 * which belong to tools, and values that are no values give one line each on stderr. Allocates nothing. */
void pa_options_load(void);

/* The same over any environment, into any options. Returns how many lines it wrote. */
unsigned pa_options_parse(pa_options *out, const char *const *environment);

/* For tables: row i of PA_OPTION_COUNT + PA_DEBUG_KEY_COUNT. */
typedef struct pa_option_row {
    const char *name, *type, *default_text, *doc;
    const char *source;  /* the variable that the value came from, "default" when there is none */
    int64_t value;       /* PA_OFF_* stand for off */
} pa_option_row;

bool pa_options_row(unsigned i, pa_option_row *out);

/* Did the environment set this field of pa_the_options? */
bool pa_options_is_set(const int64_t *field);

/* One value of a type by its name ("BOOL", ...); false when it is malformed. */
bool pa_option_value(const char *type, const char *text, int64_t *out);

#endif
