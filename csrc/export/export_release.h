/* export_release.h - heap/pace on numbers, and the refusals of madvise that tests inject. */
#ifndef PA_EXPORT_RELEASE_H
#define PA_EXPORT_RELEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* cffi: begin */

typedef struct pa_xpace pa_xpace;

pa_xpace *pa_xpace_new(void);
void pa_xpace_delete(pa_xpace *x);
uint64_t pa_xpace_bytes(pa_xpace *x, uint64_t now_ns, unsigned percent, uint64_t most);
uint64_t pa_xpace_rest_ns(pa_xpace *x, uint64_t now_ns, unsigned percent);
void pa_xpace_spent(pa_xpace *x, uint64_t now_ns, uint64_t work_ns, uint64_t nbytes);
uint64_t pa_xpace_ns_per_mib(const pa_xpace *x);
/* Is the sum of the slots what it says? */
bool pa_xpace_check(const pa_xpace *x);

/* 0: madvise works; 1: no MADV_FREE; 2: no madvise at all. */
void pa_xvm_inject_refusal(int refusal);
/* pa_vm_given: 0 refused, 1 zeroed, 2 lazily. */
int pa_xvm_release_lazily(uintptr_t addr, size_t nbytes);
/* Releases as the background thread would: bytes, dense runs first. */
size_t pa_xrelease(size_t goal_bytes);
/* The scavenger's thread is asked for, as in a Python process. */
void pa_xscavenge_enable(void);

/* cffi: end */

#endif
