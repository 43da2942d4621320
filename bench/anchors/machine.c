/* machine.c - the control of pa_mutate's longest operation: threads that only compute, without any allocator.
 *
 *   machine threads=2 seconds=10
 *   machine threads=2 seconds=10 helpers=1 share=0.5 chunk_us=120 slice_us=100 nice=0
 *
 * Each operation is about a microsecond of arithmetic, timed as pa_mutate's are. A helper does what a fractional
 * marker does: chunks of work until it is a quarter of a millisecond ahead of its share of one processor, then sleep.
 * slice_us asks the scheduler for slices of that length for the helpers (Linux 6.12), nice makes them yield.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "delay.h"

typedef struct spinner {
    pthread_t thread;
    uint64_t seed, deadline_ns;
    anchor_histogram latency;
    anchor_delays delays;
} spinner;

typedef struct helper {
    pthread_t thread;
    double share;
    uint64_t chunk_ns, slice_ns, cpu_ns;
    int nice;
} helper;

static atomic_bool ending;

static void *spin(void *argument)
{
    spinner *s = argument;
    anchor_delays_begin(&s->delays);
    uint64_t now = anchor_now_ns(), before;
    do {
        for (int i = 0; i < 400; i++)
            __asm__ volatile("" ::"r"(anchor_random(&s->seed)));
        before = now;
        now = anchor_now_ns();
        anchor_record(&s->latency, now - before);
        anchor_delays_look(&s->delays, now - before);
    } while (now < s->deadline_ns);
    anchor_delays_end(&s->delays);
    return NULL;
}

static uint64_t thread_cpu_ns(void)
{
    struct timespec cpu;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
    return (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec;
}

static void schedule(const helper *h)
{
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } a = {.size = 48, .nice = h->nice, .runtime = h->slice_ns};
    if (syscall(SYS_sched_setattr, 0, &a, 0) != 0)
        fprintf(stderr, "machine: sched_setattr: %s\n", strerror(errno));
}

static void *help(void *argument)
{
    helper *h = argument;
    uint64_t seed = 5, start_ns = anchor_now_ns();
    schedule(h);
    while (!atomic_load(&ending)) {
        uint64_t end_ns = thread_cpu_ns() + h->chunk_ns;
        while (thread_cpu_ns() < end_ns)
            for (int i = 0; i < 1000; i++)
                __asm__ volatile("" ::"r"(anchor_random(&seed)));
        int64_t ahead_ns = (int64_t)((double)thread_cpu_ns() / h->share) - (int64_t)(anchor_now_ns() - start_ns);
        if (ahead_ns > 250000)
            nanosleep(&(struct timespec){.tv_nsec = ahead_ns < 1000000 ? ahead_ns : 1000000}, NULL);
    }
    h->cpu_ns = thread_cpu_ns();
    return NULL;
}

int main(int argc, char **argv)
{
    static spinner spinners[ANCHOR_MAX_THREADS];
    static helper helpers[ANCHOR_MAX_THREADS];
    int threads = (int)anchor_number(argc, argv, "threads", 2), count = (int)anchor_number(argc, argv, "helpers", 0);
    double seconds = anchor_number(argc, argv, "seconds", 10);
    if (threads < 1 || threads > ANCHOR_MAX_THREADS || count > ANCHOR_MAX_THREADS)
        anchor_die("threads 1..64, helpers 0..64");
    uint64_t deadline_ns = anchor_now_ns() + (uint64_t)(1e9 * seconds);
    for (int i = 0; i < count; i++) {
        helpers[i] = (helper){.share = anchor_number(argc, argv, "share", 0.5),
                              .chunk_ns = (uint64_t)(1e3 * anchor_number(argc, argv, "chunk_us", 120)),
                              .slice_ns = (uint64_t)(1e3 * anchor_number(argc, argv, "slice_us", 0)),
                              .nice = (int)anchor_number(argc, argv, "nice", 0)};
        if (pthread_create(&helpers[i].thread, NULL, help, &helpers[i]))
            anchor_die("no thread");
    }
    for (int i = 0; i < threads; i++) {
        spinners[i].deadline_ns = deadline_ns;
        spinners[i].seed = (uint64_t)i;
        if (pthread_create(&spinners[i].thread, NULL, spin, &spinners[i]))
            anchor_die("no thread");
    }
    static anchor_histogram latency;
    static anchor_delays delays;
    for (int i = 0; i < threads; i++) {
        pthread_join(spinners[i].thread, NULL);
        anchor_merge(&latency, &spinners[i].latency);
        anchor_delays_merge(&delays, &spinners[i].delays);
    }
    atomic_store(&ending, true);
    double helped = 0;
    for (int i = 0; i < count; i++) {
        pthread_join(helpers[i].thread, NULL);
        helped += 1e-9 * (double)helpers[i].cpu_ns;
    }
    printf("{\"program\": \"machine\", \"mops\": %.6f, \"helpers_share\": %.3f",
           1e-6 * (double)latency.count / seconds, helped / seconds);
    anchor_print_latency(&latency);
    anchor_print_delays(&delays);
    printf("}\n");
    return 0;
}
