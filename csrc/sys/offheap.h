/* offheap.h - memory for our own metadata, never from the heap it describes.
 *
 * Two forms, as in Go: a bump allocator that never frees (persistentalloc), and fixed-size free
 * lists on top of it (FixAlloc).  Objects of a fixalloc are type-stable: once handed out, the
 * memory always holds an object of that type, so that a late reader sees an old one or zeros, not garbage.
 */
#ifndef PA_OFFHEAP_H
#define PA_OFFHEAP_H

#include "base/lock.h"

typedef struct pa_offheap {
    pa_lock lock;
    uintptr_t next, end;  /* rest of the current block, under lock */
    uint64_t sys_bytes;   /* mapped so far; written under lock, read racily */
} pa_offheap;

/* Zeroed memory, align a power of two <= 64 KiB; NULL when the OS refuses. Thread-safe. */
void *pa_offheap_alloc(pa_offheap *o, size_t nbytes, size_t align);

/* An OS page of objects; its record is never freed. */
typedef struct pa_fixpage {
    struct pa_fixpage *next, *prev;
    char *base;
    void *free;             /* freed objects, linked through the last word of each */
    uint32_t inuse_count, carved_count; /* objects from the start that were ever handed out since the page was given */
} pa_fixpage;

/* All under the owner's lock. */
typedef struct pa_fixalloc {
    size_t object_bytes, align;
    bool by_page;           /* objects are made in whole OS pages, which can be given back */
    void *free;             /* not by page: freed objects, linked as above */
    /* By page: with an object to be had and one in use; wholly free; wholly free and given back. */
    pa_fixpage *some, *idle, *bare;
    pa_fixpage *record;     /* for the next page; NULL: none yet */
    char *next_page;        /* pages_left pages that were never used */
    size_t pages_left;
    uint64_t inuse_count;   /* handed out now; read racily by statistics */
    uint64_t total_count;   /* those and the free ones whose memory is not given back */
} pa_fixalloc;

/* Caller holds the lock that guards f.  New objects are zeroed, recycled ones keep their contents or, where their
 * page was given back, are zeroed; all but the last word, which is the fixalloc's from first to last.  NULL when
 * the OS refuses. */
void *pa_fixalloc_alloc_locked(pa_fixalloc *f, pa_offheap *o);
void pa_fixalloc_free_locked(pa_fixalloc *f, void *object);
/* Gives wholly free pages back to the OS, until most_bytes are, with lock, which guards f, dropped meanwhile; how many
 * bytes. Caller keeps fork out. A late reader of a dead object sees zeros. */
size_t pa_fixalloc_release(pa_fixalloc *f, pa_lock *lock, size_t most_bytes);

#endif
