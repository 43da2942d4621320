/* pa_generations.c - stops of one generation of the collector on a live heap of a given size.
 *
 *   pa_generations mode=0..4 live_mib=256 cycles=5 object=128 threads=2
 *
 * The heap of pa_heap.h in random order, its objects as large as said, mutated by threads while the main thread
 * asks for one full cycle after the other. Prints every stop (length, and end in unix time) and the time of each
 * pa_gc, so that the script can work out the utilisation that the stops leave to the mutators.
 */
#include "pa_heap.h"

enum { MAX_CYCLES = 1000, MAX_STOPS = 1 << 16, REST_MS = 20, STEADY_MS = 200 };

static uint64_t unix_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void rest(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

int main(int argc, char **argv)
{
    int mode = (int)anchor_number(argc, argv, "mode", PA_GC_CONCURRENT);
    double live_mib = anchor_number(argc, argv, "live_mib", 256);
    int cycles = (int)anchor_number(argc, argv, "cycles", 5);
    size_t object = (size_t)anchor_number(argc, argv, "object", 128);
    int threads = (int)anchor_number(argc, argv, "threads", 2);
    double count = live_mib * (1 << 20) / (double)object;
    if (object < 32 || object % 8 || cycles < 1 || cycles > MAX_CYCLES || threads < 1 ||
        threads > ANCHOR_MAX_THREADS || count < 4 * threads || count > 2e9)
        anchor_die("object 32.., a multiple of 8; cycles 1..1000; threads 1..64; 4 objects a thread at least");
    static pa_forest forests[ANCHOR_MAX_THREADS];
    static pa_stops stops;
    static anchor_histogram latency;
    static atomic_bool ending;
    static double cycle_ms[MAX_CYCLES];

    int percent = pa_set_gc_percent(-1);
    pa_heap_build(forests, threads, (uint32_t)count, object, true);
    pa_must(pa_set_gc_mode(mode) >= 0, "no such mode");
    pa_gc();
    pa_set_gc_percent(percent);
    stops.capacity = MAX_STOPS;
    stops.length_ns = malloc(MAX_STOPS * sizeof(uint64_t));
    stops.end_ns = malloc(MAX_STOPS * sizeof(uint64_t));
    pa_must(stops.length_ns && stops.end_ns, "out of memory");

    pa_heap_start(forests, threads, 3600, 0, &ending);
    rest(STEADY_MS);
    pa_stops_begin(&stops);
    uint64_t begin_unix = unix_ns();
    for (int i = 0; i < cycles; i++) {
        uint64_t started = anchor_now_ns();
        pa_gc();
        cycle_ms[i] = 1e-6 * (double)(anchor_now_ns() - started);
        rest(REST_MS);
    }
    uint64_t end_unix = unix_ns();
    atomic_store(&ending, true);
    double mops = pa_heap_join(forests, threads, &latency);
    printf("{\"collector\": \"pyalloc\", \"program\": \"generations\", \"mode\": %d, \"live_mib\": %.1f, "
           "\"object\": %zu, \"mops\": %.6f, \"begin_unix_ns\": %llu, \"end_unix_ns\": %llu",
           mode, live_mib, object, mops, (unsigned long long)begin_unix, (unsigned long long)end_unix);
    anchor_print_latency(&latency);
    pa_stops_end(&stops);
    printf(", \"cycle_ms\": [");
    for (int i = 0; i < cycles; i++)
        printf("%s%.3f", i ? ", " : "", cycle_ms[i]);
    printf("], \"stop_ns\": [");
    for (size_t i = 0; i < stops.stored; i++)
        printf("%s%llu", i ? ", " : "", (unsigned long long)stops.length_ns[i]);
    printf("], \"stop_end_unix_ns\": [");
    for (size_t i = 0; i < stops.stored; i++)
        printf("%s%llu", i ? ", " : "", (unsigned long long)stops.end_ns[i]);
    printf("], \"whole\": %s}\n", pa_heap_is_whole(forests, threads) ? "true" : "false");
    return 0;
}
