/* malloc_report.c - mallinfo, malloc_info and what else asks the C library's malloc about itself.
 *
 * A shim over api/, no state.  The figures of pa_read_mem_stats are put where glibc's manual pages have the
 * nearest thing; fields without a counterpart are 0.  mallopt's knobs are glibc's own and mean nothing here:
 * programs that set them must run, so every call succeeds.
 */
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <unistd.h>

#include "api/summary.h"
#include "base/config.h"
#include "base/text.h"
#include "include/pyalloc.h"

/* Bytes of heap that memory stands behind. */
static uint64_t backed_bytes(const pa_mem_stats *s)
{
    return s->heap_sys - s->heap_released - s->explicit_hollow;
}

PA_EXPORT struct mallinfo2 mallinfo2(void)
{
    pa_mem_stats s;
    pa_read_mem_stats(&s);
    return (struct mallinfo2){
        .arena = backed_bytes(&s),
        .uordblks = s.explicit_alloc,
        .fordblks = backed_bytes(&s) - s.explicit_alloc,
        .keepcost = s.heap_idle - s.heap_released,
    };
}

static int as_int(size_t n)
{
    return n < INT_MAX ? (int)n : INT_MAX;
}

PA_EXPORT struct mallinfo mallinfo(void)
{
    struct mallinfo2 wide = mallinfo2();
    return (struct mallinfo){
        .arena = as_int(wide.arena),
        .uordblks = as_int(wide.uordblks),
        .fordblks = as_int(wide.fordblks),
        .keepcost = as_int(wide.keepcost),
    };
}

/* pad is what glibc would leave at the top of its heap, which we have not. */
PA_EXPORT int malloc_trim(size_t pad)
{
    (void)pad;
    return pa_free_os_memory() > 0;
}

PA_EXPORT int mallopt(int parameter, int value)
{
    (void)parameter;
    (void)value;
    return 1;
}

PA_EXPORT void malloc_stats(void)
{
    pa_summary_write(STDERR_FILENO, "malloc_stats");
}

/* ---- malloc_info: glibc's elements; sizes are those of the classes ---- */

static void attribute(pa_text *t, const char *name, uint64_t value)
{
    pa_text_char(t, ' ');
    pa_text_str(t, name);
    pa_text_str(t, "=\"");
    pa_text_uint(t, value, 10);
    pa_text_char(t, '"');
}

static void element(pa_text *t, const char *name, const char *type, uint64_t size)
{
    pa_text_char(t, '<');
    pa_text_str(t, name);
    pa_text_str(t, " type=\"");
    pa_text_str(t, type);
    pa_text_char(t, '"');
    attribute(t, "size", size);
    pa_text_str(t, "/>\n");
}

/* Free blocks by class; returns how many there are, and their bytes. */
static uint64_t sizes(pa_text *t, uint64_t *bytes)
{
    pa_class_stats classes[128];
    int n = pa_read_class_stats(classes, sizeof classes / sizeof *classes);
    uint64_t count = 0;
    *bytes = 0;
    pa_text_str(t, "<sizes>\n");
    for (int c = 1; c < n; c++) {
        const pa_class_stats *one = &classes[c];
        uint64_t held = one->objects * one->object_bytes;
        uint64_t free_blocks = one->span_bytes > held ? (one->span_bytes - held) / one->object_bytes : 0;
        if (free_blocks == 0)
            continue;
        pa_text_str(t, "<size");
        attribute(t, "from", classes[c - 1].object_bytes + 1);
        attribute(t, "to", one->object_bytes);
        attribute(t, "total", free_blocks * one->object_bytes);
        attribute(t, "count", free_blocks);
        pa_text_str(t, "/>\n");
        count += free_blocks;
        *bytes += free_blocks * one->object_bytes;
    }
    pa_text_str(t, "</sizes>\n");
    return count;
}

static void totals(pa_text *t, const pa_mem_stats *s, uint64_t count, uint64_t bytes)
{
    pa_text_str(t, "<total type=\"rest\"");
    attribute(t, "count", count);
    attribute(t, "size", bytes);
    pa_text_str(t, "/>\n");
    element(t, "system", "current", backed_bytes(s));
    element(t, "system", "max", s->heap_sys);
    element(t, "aspace", "total", s->heap_sys);
    element(t, "aspace", "mprotect", s->heap_sys);
}

PA_EXPORT int malloc_info(int options, FILE *stream)
{
    char room[16384];
    pa_text t = PA_TEXT(room);
    pa_mem_stats s;
    uint64_t bytes;
    if (options != 0)
        return EINVAL;
    pa_read_mem_stats(&s);
    pa_text_str(&t, "<malloc version=\"1\">\n<heap nr=\"0\">\n");
    uint64_t count = sizes(&t, &bytes);
    totals(&t, &s, count, bytes);
    pa_text_str(&t, "</heap>\n");
    totals(&t, &s, count, bytes);
    pa_text_str(&t, "</malloc>\n");
    return fwrite(t.start, 1, t.len, stream) == t.len ? 0 : -1;
}
