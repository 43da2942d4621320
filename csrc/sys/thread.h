/* thread.h - threads of our own, sleeping and waking, processors, membarrier.
 *
 * All functions are thread-safe and keep errno.
 */
#ifndef PA_THREAD_H
#define PA_THREAD_H

#include "base/atomics.h"
#include "base/config.h"

/* Starts a detached thread with every signal blocked and a small stack. False when the OS refuses. */
bool pa_thread_start(void *(*body)(void *argument), void *argument, const char *name);
/* Processors that this process may run on, >= 1. Asked of the OS each time. */
unsigned pa_thread_processors(void);
/* The calling thread gets a processor for slice_ns at a time (0.1 to 100 ms), the sooner the shorter (Linux 6.12,
 * EEVDF); policy and niceness stay. False where the kernel knows no slices of one's own, refuses, or the policy has
 * none: then nothing is changed. Threads that it starts inherit it. */
bool pa_thread_set_slice(uint64_t slice_ns);
/* Sleeps while *word == expected, at most timeout_ns (< 0: for ever). May return early. */
void pa_thread_wait(_Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns);
void pa_thread_wake_all(_Atomic uint32_t *word);
/* The same for a word in memory that processes share. */
void pa_thread_wait_shared(_Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns);
void pa_thread_wake_all_shared(_Atomic uint32_t *word);
void pa_thread_yield(void);

/* membarrier(2), private expedited. Register once a process, and again in a fork child; false: not to be had. */
bool pa_thread_membarrier_register(void);
/* After this returns true, every thread of the process has passed a full barrier. Precondition: registered. False
 * where a sandbox that came later forbids it. */
bool pa_thread_try_membarrier(void);
/* The same for those who cannot do without. */
void pa_thread_membarrier(void);

#endif
