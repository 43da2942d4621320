/* trace.c - a program that collects in a known way, for what its environment makes it print.
 *
 *     trace [live=16 MiB] [churn=200 MiB] [forced=2] [mode=4] [gogc=-2: leave] [fd=-2: leave]
 *
 * Builds a list of so many MiB, then makes so many MiB of garbage beside it, then collects.  Prints what
 * pa_read_gc_stats says at the end, one "name value" a line.
 */
#include "gc_test.h"

enum { BLOCK = 1024 };

int main(int argc, char **argv)
{
    long live = option(argc, argv, "live", 16), churn = option(argc, argv, "churn", 200),
         forced = option(argc, argv, "forced", 2), gogc = option(argc, argv, "gogc", -2),
         fd = option(argc, argv, "fd", -2);
    set_mode((int)option(argc, argv, "mode", PA_GC_CONCURRENT));
    if (gogc != -2)
        printf("previous_percent %d\n", pa_set_gc_percent((int)gogc));
    if (fd != -2)
        printf("previous_fd %d\n", pa_set_gctrace((int)fd));
    fflush(stdout);
    void *slots[1];
    pa_frame frame;
    enter();
    pa_frame_push(&frame, slots, 1);
    for (long i = 0; i < live * 1024; i++) {
        void **p = must(pa_new_pointers(BLOCK / sizeof(void *)));
        pa_store(p, slots[0]);
        slots[0] = p;
    }
    for (long i = 0; i < churn * 1024; i++)
        must(pa_new_bytes(BLOCK));
    for (long i = 0; i < forced; i++)
        pa_gc();
    pa_gc_stats s = gc_stats();
    printf("cycles %" PRIu64 "\nforced_cycles %" PRIu64 "\npauses %" PRIu64 "\nheap_live %" PRIu64
           "\nheap_marked %" PRIu64 "\nnext_gc %" PRIu64 "\ngc_percent %d\nprocessors %u\ntotal_alloc %" PRIu64
           "\npause_total_ns %" PRIu64 "\nmemory_limit %" PRId64 "\ncpu_fraction %f\n",
           s.cycles, s.forced_cycles, s.pause_count, s.heap_live_bytes, s.heap_marked_bytes, s.next_gc_bytes,
           s.gc_percent, s.processors, s.total_alloc_bytes, s.pause_total_ns, s.memory_limit, s.cpu_fraction);
    uint64_t pauses[16], ends[16];
    size_t n = pa_read_gc_pauses(pauses, ends, 16);
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        REQUIRE(i == 0 || ends[i] <= ends[i - 1], "newest first");
        sum += pauses[i];
    }
    REQUIRE(n <= 16 && (n == 16 || n == s.pause_count), "%zu of %" PRIu64, n, s.pause_count);
    REQUIRE(n < s.pause_count ? sum <= s.pause_total_ns : sum == s.pause_total_ns);
    REQUIRE(n == 0 || ends[0] <= s.last_gc_unix_ns + 1000000000u);
    pa_frame_pop(&frame);
    pa_leave();
    return 0;
}
