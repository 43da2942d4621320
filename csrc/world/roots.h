/* roots.h - where marking starts: handles and registered ranges. Frames hang on each P (world/gcproc.h). */
#ifndef PA_ROOTS_H
#define PA_ROOTS_H

#include "world/proc.h"

enum { PA_HANDLES_PER_CHUNK = 512 };

/* A handle: one slot of a chunk. */
struct pa_handle {
    /* The object; NULL: none, or the handle is free. Written through the barrier by who is inside; read by
     * markers (acquire). */
    _Atomic(void *) value;
    struct pa_handle *next; /* of a free list */
};

typedef struct pa_handle_chunk {
    struct pa_handle_chunk *next;
    struct pa_handle handles[PA_HANDLES_PER_CHUNK];
} pa_handle_chunk;

/* A registered range. */
typedef struct pa_root_range {
    struct pa_root_range *next;
    uintptr_t base, end;
    uint64_t id;            /* ascending along the list */
    int flags;
    void *fixalloc_word;
} pa_root_range;

typedef struct pa_roots {
    pa_lock lock;           /* rank ROOTS: everything here but deferred */
    pa_handle_chunk *chunks; /* newest first; published with release, never unlinked */
    struct pa_handle *free;
    uint64_t handle_count;  /* made, less those on the free lists and in the Ps' caches; read racily */
    /* Handles freed while the world was stopped; their objects stay until somebody empties this. Pushed by
     * anybody (release), taken whole (acquire). */
    _Atomic(struct pa_handle *) deferred;
    pa_root_range *ranges;
    pa_fixalloc range_records;
    uint64_t next_range_id, range_bytes, unbarriered_bytes;
} pa_roots;

extern PA_HIDDEN pa_roots pa_the_roots;

/* A handle slot with value NULL from p's cache; NULL when out of memory. p's thread, inside. */
struct pa_handle *pa_roots_take_handle(pa_proc *p);
/* Does a registered range lie in [base, base + nbytes), wholly or in part? */
bool pa_roots_has_range_in(uintptr_t base, size_t nbytes);
/* Is addr a handle's slot or in a barriered range? For checks: walks. */
bool pa_roots_has_slot(uintptr_t addr);
/* Gives a slot back whose value was cleared (with the barrier). p's thread, inside. */
void pa_roots_give_handle(pa_proc *p, struct pa_handle *handle);
/* Returns all of p's cached slots to the common list. */
void pa_roots_return_handles(pa_proc *p);
void pa_roots_defer_handle(struct pa_handle *handle);
struct pa_handle *pa_roots_take_deferred(void);

/* 0, EINVAL or ENOMEM. */
int pa_roots_add_range(uintptr_t base, size_t nbytes, int flags);
/* Takes a range out; false when base was not registered. Who marks must shade what *removed held. */
bool pa_roots_remove_range(uintptr_t base, pa_root_range *removed);
/* Visits the words of all ranges that have all of the flags, piece by piece under the lock: a range cannot go away
 * while it is read. */
typedef void (*pa_range_visitor)(void *context, const pa_root_range *r, uintptr_t from, uintptr_t to);
void pa_roots_visit_ranges(int flags, pa_range_visitor visit, void *context);

#endif
