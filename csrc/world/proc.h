/* proc.h - P: what the runtime keeps for one thread (Go: runtime2.go, type p).
 *
 * A thread gets a P at its first slow path and gives it back when it exits.  One thread-local pointer
 * (8 bytes, initial-exec) leads to its mcache, the first member of its P.  Threads without a P point
 * at one of two constant mcaches full of empty spans: every fast path misses there.
 */
#ifndef PA_PROC_H
#define PA_PROC_H

#include "heap/mcache.h"
#include "world/gcproc.h"

typedef struct pa_proc {
    pa_mcache cache;            /* first: a P's address is its mcache's, the `owner` of spans */
    struct pa_proc *next_all;   /* every P ever made; published with release, never unlinked */
    struct pa_proc *next_free;  /* under the list's lock */
    _Atomic bool attached;      /* a thread has it; written under the list's lock, read racily */
} pa_proc;

typedef struct pa_procs {
    pa_lock lock;               /* rank PROC_LIST */
    pa_proc *all, *free;
    uint64_t count, attached_count; /* without the orphan; written under lock, read racily */
    pa_lock orphan_lock;        /* rank PROC_LIST, after lock: one orphan call at a time */
    pa_proc *orphan;            /* serves threads without a P; made under lock, used under orphan_lock only */
    pa_workpool workpool;       /* the collector's grey objects */
    uint8_t marking;            /* pa_marking that new Ps start with; changes in stops, under lock */
} pa_procs;

extern PA_HIDDEN PA_TLS pa_mcache *pa_current_mcache;

/* Not attached yet / exited: never written once a thread points there. */
extern PA_HIDDEN const pa_mcache pa_mcache_unattached;
extern PA_HIDDEN pa_mcache pa_mcache_exited;

PA_INLINE bool pa_mcache_is_real(const pa_mcache *c)
{
    return c != &pa_mcache_unattached && c != &pa_mcache_exited;
}

/* The process's Ps and the heap under them. */
extern PA_HIDDEN pa_heap pa_the_heap;
extern PA_HIDDEN pa_procs pa_the_procs;

/* The calling thread's mcache, attached if it never was. A constant one when the thread has exited or
 * memory is out (errno untouched). */
pa_mcache *pa_proc_attach(void);

/* Runs body on the orphan mcache, alone, and gives back all it holds afterwards. NULL body result is
 * passed through. For threads without a P. */
void *pa_proc_with_orphan(void *(*body)(pa_mcache *c, void *argument), void *argument);

/* Installs the fork handlers; once, by the first thread that is attached. */
void pa_fork_install(void);

#endif
