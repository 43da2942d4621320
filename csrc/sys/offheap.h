/* offheap.h - memory for our own metadata, never from the heap it describes.
 *
 * Two forms, as in Go: a bump allocator that never frees (persistentalloc), and fixed-size free
 * lists on top of it (FixAlloc).  Objects of a fixalloc are type-stable: once handed out, the
 * memory always holds an object of that type, so that a late reader sees an old one, not garbage.
 */
#ifndef PA_OFFHEAP_H
#define PA_OFFHEAP_H

#include "base/lock.h"

typedef struct pa_offheap {
    pa_lock lock;
    uintptr_t next, end;  /* rest of the current block, under lock */
    uint64_t sys_bytes;   /* mapped so far; written under lock, read racily */
} pa_offheap;

/* Zeroed memory, align a power of two <= 4096; NULL when the OS refuses. Thread-safe. */
void *pa_offheap_alloc(pa_offheap *o, size_t nbytes, size_t align);

typedef struct pa_fixalloc {
    size_t object_bytes, align;
    void *free;             /* linked through the last word of each object */
    uint64_t inuse_count;   /* handed out now; read racily by statistics */
    uint64_t total_count;   /* ever carved */
} pa_fixalloc;

/* Caller holds the lock that guards f.  New objects are zeroed, recycled ones keep their contents
 * but for the last word.  NULL when the OS refuses. */
void *pa_fixalloc_alloc_locked(pa_fixalloc *f, pa_offheap *o);
void pa_fixalloc_free_locked(pa_fixalloc *f, void *object);

#endif
