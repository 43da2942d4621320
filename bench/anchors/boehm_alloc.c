/* boehm_alloc.c - what an allocation costs with the Boehm collector, one thread; see pa_alloc.c.
 *
 *   boehm_alloc kind=bytes|pointers size=16 count=50000000
 *
 * GC_MALLOC_ATOMIC does not clear; the program does, because the others promise zeroed memory.
 */
#include "boehm_common.h"

static void *volatile slot;

#define BYTES(SIZE)                                             \
    case SIZE:                                                  \
        for (uint64_t i = 0; i < count; i++) {                  \
            void *made = boehm_must(GC_MALLOC_ATOMIC(SIZE));    \
            memset(made, 0, SIZE);                              \
            slot = made;                                        \
        }                                                       \
        break

/* One loop a size, so that clearing is as good as the compiler can make it. */
static void allocate_bytes(size_t size, uint64_t count)
{
    switch (size) {
        BYTES(8);
        BYTES(16);
        BYTES(32);
        BYTES(64);
        BYTES(256);
        BYTES(1024);
    default:
        anchor_die("size 8, 16, 32, 64, 256, 1024");
    }
}

static void allocate(bool pointers, size_t size, uint64_t count)
{
    if (!pointers)
        allocate_bytes(size, count);
    else
        for (uint64_t i = 0; i < count; i++)
            slot = boehm_must(GC_MALLOC(size));
}

int main(int argc, char **argv)
{
    size_t size = (size_t)anchor_number(argc, argv, "size", 16);
    uint64_t count = (uint64_t)anchor_number(argc, argv, "count", 50e6);
    bool pointers = !strcmp(anchor_text(argc, argv, "kind", "bytes"), "pointers");
    boehm_start();
    allocate(pointers, size, count / 20);       /* to warm up */
    boehm_stops_begin();
    double cpu_s = anchor_cpu_s();
    uint64_t started = anchor_now_ns();
    allocate(pointers, size, count);
    double wall_s = 1e-9 * (double)(anchor_now_ns() - started);
    cpu_s = anchor_cpu_s() - cpu_s;
    printf("{\"collector\": \"boehm\", \"program\": \"alloc\", \"kind\": \"%s\", \"size\": %zu, \"ns_alloc\": %.4f, "
           "\"cpu_ns_alloc\": %.4f, \"wall_s\": %.6f, \"cpu_s\": %.6f",
           pointers ? "pointers" : "bytes", size, 1e9 * wall_s / (double)count, 1e9 * cpu_s / (double)count, wall_s,
           cpu_s);
    boehm_stops_end();
    printf("}\n");
    return 0;
}
