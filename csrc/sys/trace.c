/* trace.c - rings of events in memory of their own, written without locks.
 *
 * Owns the rings; `lock` (rank TRACE, the last before leaves) is for starting, stopping and reading.  The rings are
 * mapped when a trace starts and no allocator is asked for anything, so every layer may record, under any lock.
 *
 * Ring 0 is for what is rare and says what the rest means (cycles, stops, releases, growth), so that a storm of spans
 * cannot push it out; threads are spread over the others by their id.  Not one ring a thread: the memory is what was
 * asked for, however many threads come and go, and nothing has to be found through thread-local storage, of which
 * the library has 8 bytes (docs/decisions/025).
 *
 * A writer takes the next place of its ring by an addition, and claims it by a compare-and-swap of the place's
 * sequence number, 2n + 1 while event n is being written and 2n + 2 when it is whole.  A place that somebody is
 * at, or that a later event has, means that a writer was a whole lap late: the event is lost, and counted.  A reader
 * copies a place and believes it when the number was even and is still the same (a seqlock a place).
 *
 * Stopping: a writer counts itself in its ring, then looks whether tracing is on; who stops clears that, then waits for
 * the counts.  Both sequentially consistent, so one of the two sees the other, and memory goes only when nobody is
 * writing.  A fork child has no writers; it gives up the rings.
 */
#include "sys/trace.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/lock.h"
#include "sys/thread.h"
#include "sys/vm.h"

enum { RINGS = 8, LEAST_PLACES = 16 };
#define MOST_BYTES ((size_t)4 << 30)

/* All words are relaxed but seq, which orders them; see the essay. */
typedef struct PA_ALIGNED(64) place {
    _Atomic uint64_t seq;
    _Atomic uint64_t time_ns, duration_ns, thread_kind;
    _Atomic uint64_t args[3];
} place;

typedef struct PA_ALIGNED(64) ring {
    _Atomic uint64_t next;      /* events that were given a place, ever; relaxed, only its atomicity matters */
    _Atomic uint32_t writers;   /* at work in this ring; see the essay */
    place *places;              /* capacity of them; changed under lock while tracing is off and nobody writes */
} ring;

_Atomic bool pa_trace_on;

static struct {
    pa_lock lock;
    ring rings[RINGS];
    size_t capacity;            /* places a ring, a power of two; 0: no rings. As `places` */
    size_t nbytes;              /* mapped */
} trace = {.lock = PA_LOCK_INIT(TRACE)};

static bool is_rare(pa_trace_kind kind)
{
    return kind != PA_TRACE_SPAN_ALLOC && kind != PA_TRACE_SPAN_FREE && kind != PA_TRACE_ASSIST &&
           kind != PA_TRACE_ASSIST_WAIT && kind != PA_TRACE_SWEEP_ASSIST && kind != PA_TRACE_IN_USE;
}

static void write_down(ring *r, uint32_t thread, pa_trace_kind kind, const uint64_t words[5])
{
    uint64_t n = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed);
    place *p = &r->places[n & (trace.capacity - 1)];
    uint64_t seq = atomic_load_explicit(&p->seq, memory_order_relaxed);
    if ((seq & 1) || seq > 2 * n ||
        !atomic_compare_exchange_strong_explicit(&p->seq, &seq, 2 * n + 1, memory_order_acquire, memory_order_relaxed))
        return; /* lost: `next` has counted it */
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&p->time_ns, words[0], memory_order_relaxed);
    atomic_store_explicit(&p->duration_ns, words[1], memory_order_relaxed);
    atomic_store_explicit(&p->thread_kind, (uint64_t)thread << 32 | (uint32_t)kind, memory_order_relaxed);
    for (int i = 0; i < 3; i++)
        atomic_store_explicit(&p->args[i], words[2 + i], memory_order_relaxed);
    atomic_store_explicit(&p->seq, 2 * n + 2, memory_order_release);
}

PA_COLD void pa_trace_record(pa_trace_kind kind, uint64_t time_ns, uint64_t duration_ns, uint64_t a, uint64_t b,
                             uint64_t c)
{
    int saved_errno = errno;
    uint32_t thread = (uint32_t)syscall(SYS_gettid);
    ring *r = &trace.rings[is_rare(kind) ? 0 : 1 + thread % (RINGS - 1)];
    atomic_fetch_add(&r->writers, 1);
    if (atomic_load(&pa_trace_on))
        write_down(r, thread, kind, (const uint64_t[5]){time_ns, duration_ns, a, b, c});
    atomic_fetch_sub_explicit(&r->writers, 1, memory_order_release);
    errno = saved_errno;
}

/* ---- Starting and stopping ---- */

static void forget_locked(void)
{
    if (trace.capacity)
        pa_vm_unmap(trace.rings[0].places, trace.nbytes);
    trace.capacity = trace.nbytes = 0;
    for (int i = 0; i < RINGS; i++) {
        trace.rings[i].places = NULL;
        atomic_store_explicit(&trace.rings[i].next, 0, memory_order_relaxed);
    }
}

static int open_locked(size_t nbytes)
{
    if (atomic_load(&pa_trace_on))
        return EBUSY;
    size_t places = nbytes / RINGS / sizeof(place);
    if (places < LEAST_PLACES || nbytes > MOST_BYTES)
        return EINVAL;
    forget_locked();
    places = (size_t)1 << pa_log2_floor(places);
    size_t mapped = pa_round_up(places * RINGS * sizeof(place), pa_vm_page_size_bytes());
    place *first = pa_vm_map(mapped);
    if (!first)
        return ENOMEM;
    for (int i = 0; i < RINGS; i++)
        trace.rings[i].places = first + (size_t)i * places;
    trace.capacity = places;
    trace.nbytes = mapped;
    atomic_store(&pa_trace_on, true);
    return 0;
}

int pa_trace_open(size_t nbytes)
{
    pa_lock_acquire(&trace.lock);
    int error = open_locked(nbytes);
    pa_lock_release(&trace.lock);
    return error;
}

bool pa_trace_close(void)
{
    pa_lock_acquire(&trace.lock);
    bool was_on = atomic_exchange(&pa_trace_on, false);
    for (int i = 0; i < RINGS; i++)
        while (atomic_load(&trace.rings[i].writers))
            pa_thread_yield();
    pa_lock_release(&trace.lock);
    return was_on;
}

void pa_trace_forget(void)
{
    pa_lock_acquire(&trace.lock);
    if (!atomic_load(&pa_trace_on))
        forget_locked();
    pa_lock_release(&trace.lock);
}

/* ---- Reading ---- */

static bool read_place(place *p, pa_trace_event *out)
{
    uint64_t seq = atomic_load_explicit(&p->seq, memory_order_acquire);
    if (seq == 0 || (seq & 1))
        return false;
    uint64_t thread_kind = atomic_load_explicit(&p->thread_kind, memory_order_relaxed);
    out->time_ns = atomic_load_explicit(&p->time_ns, memory_order_relaxed);
    out->duration_ns = atomic_load_explicit(&p->duration_ns, memory_order_relaxed);
    out->thread = (uint32_t)(thread_kind >> 32);
    out->kind = (uint32_t)thread_kind;
    for (int i = 0; i < 3; i++)
        out->args[i] = atomic_load_explicit(&p->args[i], memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&p->seq, memory_order_relaxed) == seq;
}

size_t pa_trace_copy(pa_trace_event *out, size_t capacity, uint64_t *lost)
{
    size_t count = 0;
    uint64_t recorded = 0;
    pa_lock_acquire(&trace.lock);
    for (int i = 0; i < RINGS && trace.capacity; i++) {
        ring *r = &trace.rings[i];
        uint64_t next = atomic_load_explicit(&r->next, memory_order_relaxed);
        uint64_t from = next > trace.capacity ? next - trace.capacity : 0;
        recorded += next;
        for (uint64_t n = next; n-- > from && count < capacity;)
            count += read_place(&r->places[n & (trace.capacity - 1)], &out[count]);
    }
    pa_lock_release(&trace.lock);
    /* A place may have been written again since `next` was read: then more are there than were counted. */
    *lost = recorded > count ? recorded - count : 0;
    return count;
}

size_t pa_trace_capacity(void)
{
    pa_lock_acquire(&trace.lock);
    size_t capacity = trace.capacity * RINGS;
    pa_lock_release(&trace.lock);
    return capacity;
}

/* ---- fork ---- */

void pa_trace_fork_prepare(void)
{
    pa_lock_acquire(&trace.lock);
}

void pa_trace_fork_parent(void)
{
    pa_lock_release(&trace.lock);
}

void pa_trace_fork_child(void)
{
    atomic_store(&pa_trace_on, false);
    for (int i = 0; i < RINGS; i++)
        atomic_store(&trace.rings[i].writers, 0);
    forget_locked();
    pa_lock_reset_child(&trace.lock);
}
