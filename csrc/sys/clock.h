/* clock.h - time from the OS, in nanoseconds. Thread-safe. */
#ifndef PA_CLOCK_H
#define PA_CLOCK_H

#include <stdint.h>
#include <time.h>

#include "base/atomics.h"
#include "base/config.h"

/* Test builds: what pa_clock_coarse_ns says, while it is not 0. */
extern PA_HIDDEN _Atomic uint64_t pa_clock_set_ns;

PA_INLINE uint64_t pa_clock_read_ns(clockid_t clock)
{
    struct timespec t = {0};
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Monotonic. */
PA_INLINE uint64_t pa_clock_now_ns(void) { return pa_clock_read_ns(CLOCK_MONOTONIC); }
/* Monotonic, of the last timer tick: a few ns to read, a few ms old. */
PA_INLINE uint64_t pa_clock_coarse_ns(void)
{
    uint64_t set = PA_WHITEBOX ? atomic_load_explicit(&pa_clock_set_ns, memory_order_relaxed) : 0;
    return set ? set : pa_clock_read_ns(CLOCK_MONOTONIC_COARSE);
}
/* Since 1970. */
PA_INLINE uint64_t pa_clock_unix_ns(void) { return pa_clock_read_ns(CLOCK_REALTIME); }
/* Processor time of the calling thread, of the whole process. */
PA_INLINE uint64_t pa_clock_thread_cpu_ns(void) { return pa_clock_read_ns(CLOCK_THREAD_CPUTIME_ID); }
PA_INLINE uint64_t pa_clock_process_cpu_ns(void) { return pa_clock_read_ns(CLOCK_PROCESS_CPUTIME_ID); }

#endif
