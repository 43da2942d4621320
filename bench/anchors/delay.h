/* delay.h - what the long operations of a thread were made of, by the kernel's books on that thread.
 *
 * Of an operation's wall time, part is processor time (CLOCK_THREAD_CPUTIME_ID), part is waiting for a processor
 * while the thread could run (the second number of /proc/thread-self/schedstat), and the rest is sleep, if the thread
 * gave its processor up of its own accord (ru_nvcsw), or else what the hypervisor took. The books are read every
 * ANCHOR_LOOK_EVERY operations, 2 us each, and after a long one, so the parts of a long operation include at most that
 * many ordinary ones before it. A short sleep in one of those would make a sleep of a long theft: where the machine's
 * own count of stolen time (/proc/stat, in steps of 10 ms, read every ANCHOR_STEAL_NS and after what seems a long
 * sleep) grew by as much, it was a theft.
 *
 * A look belongs to the operation that follows. To read a thread's processor time brings its books up to date, which is
 * when the kernel finds that its slice is over: at the end of that system call it waits for its next turn, and were
 * looks not timed, most waiting would be between operations and in no figure.
 */
#ifndef PA_BENCH_DELAY_H
#define PA_BENCH_DELAY_H

#include <fcntl.h>
#include <unistd.h>

#include "anchor.h"

enum { ANCHOR_LOOK_EVERY = 64, ANCHOR_LONG_NS = 1000000, ANCHOR_STEAL_NS = 100000000, ANCHOR_TICK_NS = 10000000 };

typedef struct anchor_parts {
    uint64_t wall_ns, cpu_ns, waited_ns, stolen_ns;
} anchor_parts;

typedef struct anchor_delays {
    int fd;                     /* schedstat; < 0: not to be had */
    uint32_t until_look;
    anchor_parts last;          /* since the thread began; stolen_ns: how often it slept */
    uint64_t count;             /* long operations */
    anchor_parts sum, longest;
    uint64_t own_max_ns;        /* the longest but for waiting and what was stolen */
    anchor_parts own;           /* its parts */
    uint64_t stolen_ticks, stolen_read_ns; /* of the whole machine, and when that was read */
} anchor_delays;

/* Time that the hypervisor took from all processors, in ticks of 10 ms (USER_HZ). */
static inline uint64_t anchor_stolen_ticks(void)
{
    char text[256];
    unsigned long long stolen = 0;
    int fd = open("/proc/stat", O_RDONLY);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (length > 0) {
        text[length] = 0;
        sscanf(text, "cpu %*u %*u %*u %*u %*u %*u %*u %llu", &stolen);
    }
    if (fd >= 0)
        close(fd);
    return stolen;
}

/* The processor's clock last: what is waited for at the end of its call is to be found by the next reading. */
static inline anchor_parts anchor_books(const anchor_delays *d)
{
    char text[64];
    unsigned long long waited = 0;
    struct timespec cpu;
    struct rusage usage;
    uint64_t wall_ns = anchor_now_ns();
    ssize_t length = d->fd < 0 ? -1 : pread(d->fd, text, sizeof text - 1, 0);
    if (length > 0) {
        text[length] = 0;
        sscanf(text, "%*u %llu", &waited);
    }
    getrusage(RUSAGE_THREAD, &usage);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
    return (anchor_parts){wall_ns, (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec, waited,
                          (uint64_t)usage.ru_nvcsw};
}

/* In the thread itself. */
static inline void anchor_delays_begin(anchor_delays *d)
{
    *d = (anchor_delays){.fd = open("/proc/thread-self/schedstat", O_RDONLY), .until_look = ANCHOR_LOOK_EVERY};
    d->stolen_ticks = anchor_stolen_ticks();
    d->last = anchor_books(d);
    d->stolen_read_ns = d->last.wall_ns;
}

static inline void anchor_delays_add(anchor_delays *d, uint64_t op_ns, anchor_parts parts)
{
    d->count++;
    d->sum.wall_ns += op_ns;
    d->sum.cpu_ns += parts.cpu_ns;
    d->sum.waited_ns += parts.waited_ns;
    d->sum.stolen_ns += parts.stolen_ns;
    uint64_t not_own_ns = parts.waited_ns + parts.stolen_ns, own_ns = op_ns > not_own_ns ? op_ns - not_own_ns : 0;
    parts.wall_ns = op_ns;
    if (op_ns > d->longest.wall_ns)
        d->longest = parts;
    if (own_ns > d->own_max_ns) {
        d->own_max_ns = own_ns;
        d->own = parts;
    }
}

/* What lies between two readings of the books. */
static inline anchor_parts anchor_between(const anchor_parts *from, const anchor_parts *to)
{
    anchor_parts p = {to->wall_ns - from->wall_ns, to->cpu_ns - from->cpu_ns, to->waited_ns - from->waited_ns, 0};
    if (to->stolen_ns == from->stolen_ns && p.wall_ns > p.cpu_ns + p.waited_ns) /* it did not sleep */
        p.stolen_ns = p.wall_ns - p.cpu_ns - p.waited_ns;
    return p;
}

/* Did the hypervisor take that much meanwhile, give or take a tick? */
static inline bool anchor_was_stolen(anchor_delays *d, uint64_t rest_ns)
{
    uint64_t before = d->stolen_ticks;
    d->stolen_ticks = anchor_stolen_ticks();
    return (d->stolen_ticks - before + 1) * ANCHOR_TICK_NS >= rest_ns && d->stolen_ticks > before;
}

/* After each operation. */
static inline void anchor_delays_look(anchor_delays *d, uint64_t op_ns)
{
    if (op_ns < ANCHOR_LONG_NS && --d->until_look)
        return;
    anchor_parts now = anchor_books(d);
    if (op_ns >= ANCHOR_LONG_NS) {
        anchor_parts parts = anchor_between(&d->last, &now);
        uint64_t known_ns = parts.cpu_ns + parts.waited_ns + parts.stolen_ns;
        if (op_ns > known_ns + ANCHOR_TICK_NS / 2 && anchor_was_stolen(d, op_ns - known_ns))
            parts.stolen_ns += op_ns - known_ns;
        anchor_delays_add(d, op_ns, parts);
    } else if (now.wall_ns - d->stolen_read_ns > ANCHOR_STEAL_NS) {
        d->stolen_ticks = anchor_stolen_ticks();
        d->stolen_read_ns = now.wall_ns;
    }
    d->last = now;
    d->until_look = ANCHOR_LOOK_EVERY;
}

static inline void anchor_delays_end(anchor_delays *d)
{
    if (d->fd >= 0)
        close(d->fd);
}

static inline void anchor_delays_merge(anchor_delays *into, const anchor_delays *from)
{
    into->count += from->count;
    into->sum.wall_ns += from->sum.wall_ns;
    into->sum.cpu_ns += from->sum.cpu_ns;
    into->sum.waited_ns += from->sum.waited_ns;
    into->sum.stolen_ns += from->sum.stolen_ns;
    if (from->longest.wall_ns > into->longest.wall_ns)
        into->longest = from->longest;
    if (from->own_max_ns > into->own_max_ns) {
        into->own_max_ns = from->own_max_ns;
        into->own = from->own;
    }
}

static inline void anchor_print_parts(const char *name, const anchor_parts *p)
{
    printf(", \"%s\": [%.1f, %.1f, %.1f, %.1f]", name, 1e-3 * (double)p->wall_ns, 1e-3 * (double)p->cpu_ns,
           1e-3 * (double)p->waited_ns, 1e-3 * (double)p->stolen_ns);
}

static inline void anchor_print_delays(const anchor_delays *d)
{
    printf(", \"long_ops\": %llu, \"long_ms\": %.3f, \"long_cpu_ms\": %.3f, \"long_waited_ms\": %.3f, "
           "\"long_stolen_ms\": %.3f, \"own_max_us\": %.1f",
           (unsigned long long)d->count, 1e-6 * (double)d->sum.wall_ns, 1e-6 * (double)d->sum.cpu_ns,
           1e-6 * (double)d->sum.waited_ns, 1e-6 * (double)d->sum.stolen_ns, 1e-3 * (double)d->own_max_ns);
    anchor_print_parts("longest_us", &d->longest);
    anchor_print_parts("own_us", &d->own);
}

#endif
