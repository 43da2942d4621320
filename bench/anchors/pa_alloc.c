/* pa_alloc.c - what an allocation costs with pyalloc while collections go on, one thread.
 *
 *   pa_alloc kind=bytes|pointers size=16 count=50000000
 *   pa_alloc kind=bytes size=16 marking=1 n=2000000 seconds=3
 *
 * The first form allocates count objects, each dropped by the next; kind=pointers makes every word a pointer.
 * The second has n linked objects live (pa_heap.h) and another thread that asks for collections with pauses in
 * between, at GOGC=1000, so that the allocating thread has next to nothing to assist with. It takes the time of
 * batches and sorts them by the phase of the collector before and after: while marking, outside, or neither.
 */
#include "pa_heap.h"

enum { BATCH = 512, MAX_BATCHES = 1 << 20, REST_MS = 100 };

typedef struct batches {
    double *ns;
    size_t count;
} batches;

static atomic_bool ending;

static void *collect(void *unused)
{
    (void)unused;
    while (!atomic_load(&ending)) {
        pa_gc();
        nanosleep(&(struct timespec){.tv_nsec = REST_MS * 1000000L}, NULL);
    }
    return NULL;
}

/* Inlined for each kind, so that the loop calls the library and nothing else. */
static void allocate(const pa_type *type, size_t size, uint64_t count, void *volatile *slot)
{
    if (type)
        for (uint64_t i = 0; i < count; i++)
            *slot = pa_new(type);
    else
        for (uint64_t i = 0; i < count; i++)
            *slot = pa_new_bytes(size);
    pa_must(*slot, "out of memory");
}

static uint32_t phase(void)
{
    pa_gc_stats stats;
    pa_read_gc_stats(&stats);
    return stats.phase;
}

static void add(batches *to, uint64_t ns)
{
    if (to->count < MAX_BATCHES)
        to->ns[to->count++] = (double)ns / BATCH;
}

static double mean(const batches *of)
{
    double sum = 0;
    for (size_t i = 0; i < of->count; i++)
        sum += of->ns[i];
    return of->count ? sum / (double)of->count : 0;
}

/* Inside. */
static void compare(const pa_type *type, size_t size, double seconds, void *volatile *slot)
{
    batches marking = {malloc(MAX_BATCHES * sizeof(double)), 0}, outside = {malloc(MAX_BATCHES * sizeof(double)), 0};
    pa_must(marking.ns && outside.ns, "out of memory");
    pthread_t thread;
    pa_must(!pthread_create(&thread, NULL, collect, NULL), "no thread");
    uint64_t deadline = anchor_now_ns() + (uint64_t)(1e9 * seconds), stopped;
    do {
        uint32_t before = phase();
        uint64_t started = anchor_now_ns();
        allocate(type, size, BATCH, slot);
        stopped = anchor_now_ns();
        if (before == phase() && (before == 0 || before == 2))
            add(before ? &marking : &outside, stopped - started);
    } while (stopped < deadline);
    atomic_store(&ending, true);
    pa_leave();         /* the last pa_gc may need a stop */
    pthread_join(thread, NULL);
    pa_must(pa_enter(), "cannot enter");
    double mean_marking = mean(&marking), mean_outside = mean(&outside);    /* the median sorts */
    printf(", \"batches_marking\": %zu, \"batches_outside\": %zu, \"ns_marking\": %.3f, \"ns_outside\": %.3f, "
           "\"mean_ns_marking\": %.3f, \"mean_ns_outside\": %.3f",
           marking.count, outside.count, anchor_median(marking.ns, marking.count),
           anchor_median(outside.ns, outside.count), mean_marking, mean_outside);
}

int main(int argc, char **argv)
{
    size_t size = (size_t)anchor_number(argc, argv, "size", 16);
    uint64_t count = (uint64_t)anchor_number(argc, argv, "count", 50e6);
    bool pointers = !strcmp(anchor_text(argc, argv, "kind", "bytes"), "pointers");
    bool while_marking = anchor_number(argc, argv, "marking", 0) != 0;
    uint32_t n = (uint32_t)anchor_number(argc, argv, "n", 2e6);
    double seconds = anchor_number(argc, argv, "seconds", 3);
    if (size < 1 || size > 1024 || (pointers && size % 8) || n < 4)
        anchor_die("size 1..1024, a multiple of 8 for pointers; n at least 4");
    const pa_type *type = NULL;
    if (pointers) {
        size_t offsets[128];
        for (size_t i = 0; i < size / 8; i++)
            offsets[i] = 8 * i;
        type = pa_type_new(size, offsets, size / 8);
        pa_must(type, "no type");
    }
    static pa_forest forest[1];
    static pa_stops stops;
    if (while_marking) {
        pa_set_gc_percent(1000);
        pa_heap_build(forest, 1, n, 32, true);
    }
    pa_stops_begin(&stops);
    void *slots[1];
    pa_frame frame;
    pa_must(pa_enter(), "cannot enter");
    pa_frame_push(&frame, slots, 1);
    allocate(type, size, count / 20, slots);     /* to warm up */
    printf("{\"collector\": \"pyalloc\", \"program\": \"alloc\", \"kind\": \"%s\", \"size\": %zu",
           pointers ? "pointers" : "bytes", size);
    double cpu_s = anchor_cpu_s();
    uint64_t started = anchor_now_ns();
    if (while_marking)
        compare(type, size, seconds, slots);
    else
        allocate(type, size, count, slots);
    double wall_s = 1e-9 * (double)(anchor_now_ns() - started);
    cpu_s = anchor_cpu_s() - cpu_s;
    if (!while_marking)
        printf(", \"ns_alloc\": %.4f, \"cpu_ns_alloc\": %.4f", 1e9 * wall_s / (double)count,
               1e9 * cpu_s / (double)count);
    pa_frame_pop(&frame);
    pa_leave();
    printf(", \"wall_s\": %.6f, \"cpu_s\": %.6f", wall_s, cpu_s);
    pa_stops_end(&stops);
    printf("}\n");
    return 0;
}
