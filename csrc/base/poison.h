/* poison.h - telling AddressSanitizer which heap memory nobody may touch: free and uncarved slots, free pages.
 *
 * Nothing in builds without it.  Arenas are poisoned when they are mapped; who hands a block or an object out
 * unpoisons its slot, who takes it back poisons it again.  Explicit spans link free blocks through their first words,
 * so these are read and written by the functions below, which are not instrumented.
 */
#ifndef PA_POISON_H
#define PA_POISON_H

#include "base/config.h"

#if PA_ASAN

void __asan_poison_memory_region(void const volatile *addr, size_t nbytes);
void __asan_unpoison_memory_region(void const volatile *addr, size_t nbytes);
#define PA_POISON(addr, nbytes) __asan_poison_memory_region((const void *)(addr), nbytes)
#define PA_UNPOISON(addr, nbytes) __asan_unpoison_memory_region((const void *)(addr), nbytes)
#define PA_LINK static __attribute__((noinline, unused, no_sanitize_address))

#else

#define PA_POISON(addr, nbytes) ((void)0)
#define PA_UNPOISON(addr, nbytes) ((void)0)
#define PA_LINK PA_INLINE

#endif

/* The first word of a free block: the next one. */
PA_LINK void *pa_link_get(const void *block) { return *(void *const *)block; }
PA_LINK void pa_link_set(void *block, void *next) { *(void **)block = next; }
/* The same where other threads may look; relaxed. */
PA_LINK void *pa_link_get_shared(const void *block) { return __atomic_load_n((void *const *)block, __ATOMIC_RELAXED); }
PA_LINK void pa_link_set_shared(void *block, void *next)
{
    __atomic_store_n((void **)block, next, __ATOMIC_RELAXED);
}

#endif
