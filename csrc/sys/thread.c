/* thread.c - Linux's side of thread.h: pthread_create, futex(2), membarrier(2), sched_getaffinity(2), sched_setattr(2).
 *
 * Slices: sched_setattr(2) on threads of the ordinary policies; the structure is the kernel's first version of it.
 * Owns nothing.  A futex word is any 32-bit atomic of the caller's; wake-ups may be spurious, so callers
 * loop.  Threads are started with all signals blocked: the program's handlers never run on them.
 */
#include "sys/thread.h"

#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"

enum { STACK_BYTES = 256 * 1024 };

bool pa_thread_start(void *(*body)(void *argument), void *argument, const char *name)
{
    int saved_errno = errno;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return false;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    bool ok = pthread_create(&thread, &attributes, body, argument) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (ok)
        pthread_setname_np(thread, name);
    errno = saved_errno;
    return ok;
}

unsigned pa_thread_processors(void)
{
    int saved_errno = errno;
    cpu_set_t set;
    unsigned n = 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        n = (unsigned)CPU_COUNT(&set);
    errno = saved_errno;
    return n;
}

/* sched_setattr's structure, as Linux 3.14 has it; the C library declares one in its newest versions only. */
typedef struct sched_attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
} sched_attributes;

static bool set_slice(uint64_t slice_ns)
{
    sched_attributes a = {.size = sizeof a};
    if (syscall(SYS_sched_getattr, 0, &a, sizeof a, 0) != 0 || (a.policy != SCHED_OTHER && a.policy != SCHED_BATCH))
        return false;
    a.runtime = slice_ns;
    if (syscall(SYS_sched_setattr, 0, &a, 0) != 0)
        return false;
    a.runtime = 0; /* older kernels take it for nothing and say 0 */
    return syscall(SYS_sched_getattr, 0, &a, sizeof a, 0) == 0 && a.runtime == slice_ns;
}

bool pa_thread_set_slice(uint64_t slice_ns)
{
    int saved_errno = errno;
    bool ok = set_slice(slice_ns);
    errno = saved_errno;
    return ok;
}

static void wait_on(_Atomic uint32_t *word, int operation, uint32_t expected, int64_t timeout_ns)
{
    int saved_errno = errno;
    struct timespec limit = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    syscall(SYS_futex, word, operation, expected, timeout_ns < 0 ? NULL : &limit, NULL, 0);
    errno = saved_errno;
}

static void wake_all(_Atomic uint32_t *word, int operation)
{
    int saved_errno = errno;
    syscall(SYS_futex, word, operation, INT32_MAX, NULL, NULL, 0);
    errno = saved_errno;
}

void pa_thread_wait(_Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns)
{
    wait_on(word, FUTEX_WAIT_PRIVATE, expected, timeout_ns);
}

void pa_thread_wake_all(_Atomic uint32_t *word)
{
    wake_all(word, FUTEX_WAKE_PRIVATE);
}

void pa_thread_wait_shared(_Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns)
{
    wait_on(word, FUTEX_WAIT, expected, timeout_ns);
}

void pa_thread_wake_all_shared(_Atomic uint32_t *word)
{
    wake_all(word, FUTEX_WAKE);
}

void pa_thread_yield(void)
{
    sched_yield();
}

static long membarrier(int command)
{
    int saved_errno = errno;
    long result = syscall(SYS_membarrier, command, 0, 0);
    errno = saved_errno;
    return result;
}

bool pa_thread_membarrier_register(void)
{
    return membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0;
}

bool pa_thread_try_membarrier(void)
{
    return membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0;
}

void pa_thread_membarrier(void)
{
    PA_CHECK(pa_thread_try_membarrier());
}
