/* trace.h - the execution trace: what happened when, in rings that overwrite the oldest (DESIGN section 8).
 *
 * Every layer may record; off, a place costs one load and one branch, and places are on slow paths only.  Kinds and
 * the meaning of their arguments: pa_trace_kind in include/pyalloc.h.
 */
#ifndef PA_TRACE_H
#define PA_TRACE_H

#include "base/atomics.h"
#include "include/pyalloc.h"
#include "sys/clock.h"

/* Whether events are recorded. Written under the trace's lock, sequentially consistent; read relaxed by who may have
 * something to record, so an event at the edge may be there or not, and again, sequentially consistent, by who counted
 * itself as a writer (trace.c). */
extern PA_HIDDEN _Atomic bool pa_trace_on;

PA_INLINE bool pa_trace_is_on(void)
{
    return PA_UNLIKELY(atomic_load_explicit(&pa_trace_on, memory_order_relaxed));
}

/* Records one event of the calling thread; lost while the ring's place is being written by somebody else. Takes no
 * lock, allocates nothing, keeps errno: any lock may be held. */
void pa_trace_record(pa_trace_kind kind, uint64_t time_ns, uint64_t duration_ns, uint64_t a, uint64_t b, uint64_t c);

/* The time when something begins, 0 while tracing is off; and its end. */
PA_INLINE uint64_t pa_trace_begin(void) { return pa_trace_is_on() ? pa_clock_now_ns() : 0; }
PA_INLINE void pa_trace_end(pa_trace_kind kind, uint64_t begin_ns, uint64_t a, uint64_t b, uint64_t c)
{
    if (PA_UNLIKELY(begin_ns))
        pa_trace_record(kind, begin_ns, pa_clock_now_ns() - begin_ns, a, b, c);
}
/* Something without a duration. */
PA_INLINE void pa_trace_note(pa_trace_kind kind, uint64_t a, uint64_t b, uint64_t c)
{
    if (pa_trace_is_on())
        pa_trace_record(kind, pa_clock_now_ns(), 0, a, b, c);
}

/* Rings in nbytes together, empty; then events are recorded. 0, EBUSY, EINVAL or ENOMEM. */
int pa_trace_open(size_t nbytes);
/* No event is recorded and none is being written when this returns; they stay readable. False when it was off. */
bool pa_trace_close(void);
/* Forgets the events and gives their memory back, unless tracing is on. */
void pa_trace_forget(void);
/* Copies up to capacity whole events, the newest of each ring, in no order; *lost: recorded and not among them. */
size_t pa_trace_copy(pa_trace_event *out, size_t capacity, uint64_t *lost);
/* How many events the rings hold at most; 0 when there are none. */
size_t pa_trace_capacity(void);

/* fork: the forking thread takes the lock, after every other; the child starts without a trace. */
void pa_trace_fork_prepare(void);
void pa_trace_fork_parent(void);
void pa_trace_fork_child(void);

#endif
