/* summary.c - the state of the heap as a few lines of text: malloc_stats, and PYALLOC_STATS_AT_EXIT.
 *
 * Owns nothing; the text is built on the stack, because this may be the process's last act, and asking for
 * memory would change what is reported.  Figures are those of pa_read_mem_stats (docs/statistics.md).
 */
#include "api/summary.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "include/pyalloc.h"

static void line(pa_text *t, const char *name, uint64_t value, const char *unit)
{
    pa_text_str(t, "  ");
    pa_text_padded(t, name, 24);
    pa_text_uint(t, value, 10);
    pa_text_str(t, unit);
    pa_text_char(t, '\n');
}

/* VmHWM: getrusage's ru_maxrss outlives exec, so it may be that of the process that started this one. */
uint64_t pa_summary_peak_rss_bytes(void)
{
    char room[4096];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, room, sizeof room - 1);
    if (fd >= 0)
        close(fd);
    room[n > 0 ? n : 0] = '\0';
    const char *at = strstr(room, "VmHWM:");
    uint64_t kib = 0;
    for (at = at ? at + strcspn(at, "0123456789\n") : ""; *at >= '0' && *at <= '9'; at++)
        kib = kib * 10 + (uint64_t)(*at - '0');
    return kib * PA_KIB;
}

static uint64_t mean(uint64_t sum, uint64_t count)
{
    return count ? sum / count : 0;
}

static void number(pa_text *t, const char *before, uint64_t value)
{
    pa_text_str(t, before);
    pa_text_uint(t, value, 10);
}

/* A line for each kind of lock; none unless PYALLOC_DEBUG=lockstat=1. */
static void write_locks(int fd)
{
    enum { KINDS = 24 };
    pa_lock_stats locks[KINDS];
    int n = pa_read_lock_stats(locks, KINDS);
    for (int i = 0; i < n; i++) {
        const pa_lock_stats *s = &locks[i];
        char room[256];
        pa_text t = PA_TEXT(room);
        pa_text_str(&t, "  lock ");
        pa_text_padded(&t, s->name, 19);
        number(&t, "", s->acquisitions);
        number(&t, " times, held ", mean(s->hold_ns, s->acquisitions));
        number(&t, " ns, at most ", s->hold_max_ns);
        number(&t, "; ", s->waits);
        number(&t, " waits of ", mean(s->wait_ns, s->waits));
        number(&t, " ns, at most ", s->wait_max_ns);
        pa_text_str(&t, "\n");
        pa_text_write(&t, fd);
    }
}

void pa_summary_write(int fd, const char *title)
{
    char room[2048];
    pa_text t = PA_TEXT(room);
    pa_mem_stats s;
    int saved_errno = errno;
    pa_read_mem_stats(&s);
    pa_text_str(&t, "pyalloc ");
    pa_text_str(&t, pa_version());
    pa_text_str(&t, ": ");
    pa_text_str(&t, title);
    pa_text_str(&t, ", process ");
    pa_text_uint(&t, (uint64_t)getpid(), 10);
    pa_text_str(&t, " (");
    pa_text_str(&t, program_invocation_short_name ? program_invocation_short_name : "?");
    pa_text_str(&t, ")\n");
    line(&t, "blocks in use", s.explicit_objects, "");
    line(&t, "bytes in blocks", s.explicit_alloc, " B");
    line(&t, "pages in use", s.heap_inuse, " B");
    line(&t, "of them kept empty", s.explicit_cached, " B");
    line(&t, "of them given back", s.explicit_hollow, " B");
    line(&t, "free and backed", s.heap_idle - s.heap_released, " B");
    line(&t, "released so far", s.heap_released_total, " B");
    line(&t, "metadata", s.sys - s.heap_sys, " B");
    line(&t, "address space of heap", s.heap_sys, " B");
    line(&t, "threads with a cache", s.threads, "");
    line(&t, "heap lock taken", s.mheap_lock_acquisitions, " times");
    line(&t, "peak RSS of process", pa_summary_peak_rss_bytes(), " B");
    pa_text_write(&t, fd);
    write_locks(fd);
    errno = saved_errno;
}
