/* gctrace.c - the line a cycle, in Go's format (GODEBUG=gctrace=1; runtime/mgc.go, package runtime's documentation).
 *
 * Owns nothing; formats into a local buffer and writes it with one write(2), so that lines of several writers do
 * not mix.  Times have two significant digits below 10 ms and are whole above.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "gc/gc.h"

typedef struct line {
    char text[512];
    size_t length;
} line;

__attribute__((format(printf, 2, 3))) static void add(line *l, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(l->text + l->length, sizeof l->text - l->length, format, arguments);
    va_end(arguments);
    if (n > 0)
        l->length += (size_t)n < sizeof l->text - l->length ? (size_t)n : sizeof l->text - l->length - 1;
}

/* Milliseconds, from tenths of microseconds downwards cut as Go does: 0.014, 0.59, 3.2, 419. */
static void add_ms(line *l, uint64_t ns)
{
    if (ns >= 10 * 1000 * 1000) {
        add(l, "%llu", (unsigned long long)(ns / 1000000));
        return;
    }
    uint64_t us = ns / 1000;
    if (us == 0) {
        add(l, "0");
        return;
    }
    int decimals = 3;
    while (us >= 100) {
        us /= 10;
        decimals--;
    }
    uint64_t one = decimals == 3 ? 1000 : decimals == 2 ? 100 : 10;
    add(l, "%llu.%0*llu", (unsigned long long)(us / one), decimals, (unsigned long long)(us % one));
}

static unsigned long long mib(uint64_t nbytes)
{
    return nbytes >> 20;
}

void pa_gctrace_write(int fd, const pa_cycle_record *r, uint64_t program_ns, unsigned processors, double cpu_share)
{
    line l = {.length = 0};
    add(&l, "gc %llu @%llu.%03llus %d%%: ", (unsigned long long)r->number,
        (unsigned long long)(program_ns / 1000000000), (unsigned long long)(program_ns / 1000000 % 1000),
        (int)(cpu_share * 100));
    add_ms(&l, r->sweep_stop_ns);
    add(&l, "+");
    add_ms(&l, r->mark_ns);
    add(&l, "+");
    add_ms(&l, r->mark_stop_ns);
    add(&l, " ms clock, ");
    add_ms(&l, r->sweep_stop_ns * processors);
    add(&l, "+");
    add_ms(&l, r->assist_cpu_ns);
    add(&l, "/");
    add_ms(&l, r->background_cpu_ns);
    add(&l, "/");
    add_ms(&l, r->idle_cpu_ns);
    add(&l, "+");
    add_ms(&l, r->mark_stop_ns * processors);
    add(&l, " ms cpu, %llu->%llu->%llu MB, %llu MB goal, %llu MB stacks, %llu MB globals, %u P%s\n",
        mib(r->heap_at_start), mib(r->heap_at_end), mib(r->heap_marked), mib(r->goal), mib(r->frame_bytes),
        mib(r->global_bytes), processors, r->forced ? " (forced)" : "");
    int saved_errno = errno;
    for (size_t done = 0; done < l.length;) {
        ssize_t n = write(fd, l.text + done, l.length - done);
        if (n <= 0 && errno != EINTR)
            break;
        done += n > 0 ? (size_t)n : 0;
    }
    errno = saved_errno;
}
