/* controls.c - a live set that is renewed object by object, under one setting of GOGC and the memory limit.
 *
 *     controls LIVE_MIB CHURN_MIB GOGC LIMIT_MIB       GOGC: -1 is off; LIMIT_MIB: 0 is none
 *
 * The live set is a table of 1 KiB pointer arrays, each of which leads to a 64-byte leaf. An operation
 * replaces one of them. Prints one JSON object; RSS is the highest of readings every 8 MiB, less that before
 * the first object.
 */
#include "include/pyalloc.h"
#include "observe.h"

enum { OBJECT_BYTES = 1024, LEAF_BYTES = 64, POLL_BYTES = 8 << 20 };

static uint64_t top_rss, top_inuse, base_rss;

static void look(void)
{
    pa_mem_stats s;
    uint64_t rss = rss_about_bytes() - base_rss;
    pa_read_mem_stats(&s);
    top_rss = rss > top_rss ? rss : top_rss;
    top_inuse = s.heap_inuse > top_inuse ? s.heap_inuse : top_inuse;
}

/* Replaces object i of the table. Inside. */
static void replace(pa_handle *table, size_t i)
{
    void *slots[2]; /* the object, its leaf */
    pa_frame frame;
    pa_frame_push(&frame, slots, 2);
    slots[0] = pa_new_pointers(OBJECT_BYTES / sizeof(void *));
    slots[1] = pa_new_bytes(LEAF_BYTES);
    if (!slots[0] || !slots[1])
        give_up("pa_new");
    pa_store((void **)slots[0] + i % (OBJECT_BYTES / sizeof(void *)), slots[1]);
    pa_store((void **)pa_handle_get(table) + i, slots[0]);
    pa_frame_pop(&frame);
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    size_t objects = ((size_t)atol(argv[1]) << 20) / (OBJECT_BYTES + LEAF_BYTES);
    uint64_t churn_bytes = (uint64_t)atol(argv[2]) << 20, random = 3, done = 0;
    pa_set_gc_percent(atoi(argv[3]));
    if (atol(argv[4]))
        pa_set_memory_limit((int64_t)atol(argv[4]) << 20);
    base_rss = rss_about_bytes();
    if (!pa_enter())
        give_up("pa_enter");
    void *array = pa_new_pointers(objects);
    pa_handle *table = array ? pa_handle_new(array) : NULL;
    if (!table)
        give_up("pa_new_pointers");
    for (size_t i = 0; i < objects; i++)
        replace(table, i);
    pa_leave();
    pa_gc();
    pa_gc_stats before, after;
    pa_read_gc_stats(&before);
    uint64_t from_ns = now_ns(), from_cpu_ns = cpu_ns();
    top_rss = top_inuse = 0;
    for (uint64_t next_look = 0; done < churn_bytes;) {
        if (done >= next_look) {
            look();
            next_look += POLL_BYTES;
        }
        pa_enter();
        for (int k = 0; k < 1000; k++, done += OBJECT_BYTES + LEAF_BYTES)
            replace(table, (size_t)next_random(&random) % objects);
        pa_leave();
    }
    uint64_t wall_ns = now_ns() - from_ns, all_ns = cpu_ns() - from_cpu_ns;
    look();
    pa_read_gc_stats(&after);
    uint64_t gc_ns = after.assist_ns - before.assist_ns + after.background_ns - before.background_ns + after.idle_ns -
                     before.idle_ns + after.stopped_ns - before.stopped_ns;
    printf("{\"live_mib\": %.1f, \"cycles\": %llu, \"gc_cpu_ms\": %.2f, \"cpu_ms\": %.2f, \"wall_ms\": %.2f,"
           " \"rss_mib\": %.1f, \"inuse_mib\": %.1f, \"pause_total_ms\": %.3f}\n",
           (double)after.heap_marked_bytes / 0x1p20, (unsigned long long)(after.cycles - before.cycles),
           (double)gc_ns * 1e-6, (double)all_ns * 1e-6, (double)wall_ns * 1e-6,
           (double)top_rss / 0x1p20, (double)top_inuse / 0x1p20,
           (double)(after.pause_total_ns - before.pause_total_ns) * 1e-6);
    return 0;
}
