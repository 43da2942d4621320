/* pa_common.h - what the pyalloc programs share: starting threads inside, and the lengths of all stops.
 *
 * Stores and polls are the inlined ones, as a C program would use them.
 * The library keeps the most recent stops only; a sampler thread, outside the heap, reads them often enough.
 */
#ifndef PA_BENCH_PA_COMMON_H
#define PA_BENCH_PA_COMMON_H

#include <pthread.h>
#include <stdatomic.h>

#include "anchor.h"
#include "pyalloc_inline.h"

enum { PA_STOPS_AT_ONCE = 1024, PA_SAMPLE_MS = 5 };

typedef struct pa_stops {
    anchor_histogram lengths;
    uint64_t seen, lost, cycles_before;
    /* The first capacity of them, for callers that want each: length and end (unix time). */
    uint64_t *length_ns, *end_ns;
    size_t stored, capacity;
    atomic_bool ending;
    pthread_t thread;
} pa_stops;

static inline void pa_must(bool good, const char *what)
{
    if (!good)
        anchor_die(what);
}

static inline void pa_stops_read(pa_stops *stops)
{
    static uint64_t length[PA_STOPS_AT_ONCE], end[PA_STOPS_AT_ONCE];
    pa_gc_stats stats;
    pa_read_gc_stats(&stats);
    uint64_t fresh = stats.pause_count - stops->seen;
    if (!fresh)
        return;
    size_t got = pa_read_gc_pauses(length, end, fresh < PA_STOPS_AT_ONCE ? (size_t)fresh : PA_STOPS_AT_ONCE);
    for (size_t i = got; i-- > 0;) {
        anchor_record(&stops->lengths, length[i]);
        if (stops->stored < stops->capacity) {
            stops->length_ns[stops->stored] = length[i];
            stops->end_ns[stops->stored++] = end[i];
        }
    }
    stops->lost += fresh - got;
    stops->seen = stats.pause_count;
}

static inline void *pa_stops_main(void *argument)
{
    pa_stops *stops = argument;
    while (!atomic_load(&stops->ending)) {
        pa_stops_read(stops);
        nanosleep(&(struct timespec){.tv_nsec = PA_SAMPLE_MS * 1000000L}, NULL);
    }
    return NULL;
}

static inline void pa_stops_begin(pa_stops *stops)
{
    pa_must(pa_abi_version() == PA_INLINE_ABI_VERSION, "pyalloc_inline.h is of another version than the library");
    pa_gc_stats stats;
    pa_read_gc_stats(&stats);
    stops->seen = stats.pause_count;
    stops->cycles_before = stats.cycles;
    pa_must(!pthread_create(&stops->thread, NULL, pa_stops_main, stops), "no thread");
}

/* Prints the fields of the stops, the peak RSS and the number of cycles since pa_stops_begin. */
static inline void pa_stops_end(pa_stops *stops)
{
    atomic_store(&stops->ending, true);
    pthread_join(stops->thread, NULL);
    pa_stops_read(stops);
    pa_gc_stats stats;
    pa_read_gc_stats(&stats);
    printf(", \"cycles\": %llu, \"stops_lost\": %llu", (unsigned long long)(stats.cycles - stops->cycles_before),
           (unsigned long long)stops->lost);
    anchor_print_stops(&stops->lengths);
    anchor_print_memory();
}

#endif
