/* scavenge.c - drives the release of idle memory from a thread of our own.
 *
 * Owns the thread, its pace and the word it sleeps on.  What to release is heap/decay.c's policy; this is when.
 * While something is free beyond what an idle heap may keep, or near the memory limit, the thread looks every
 * PYALLOC_DECAY_MS and works in pieces, paced by what they cost in its own processor time (heap/pace.h): at most
 * 2 % of one processor averaged over 5 s, 1 % once less than 256 MiB is left.  Otherwise it sleeps without a
 * timeout until a free makes it so again (pa_decay.notify): an idle process has no wake-ups.  When the OS refuses
 * what is free (locked memory), it sleeps until more is free than that.
 *
 * The thread starts from a slow path, outside every lock, with all signals blocked, and never allocates.  A
 * piece is released under the decay lock, which fork takes: a child never sees pages that are on their way.
 */
#include "gc/scavenge.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "base/options.h"
#include "base/text.h"
#include "heap/mheap.h"
#include "sys/clock.h"
#include "sys/thread.h"
#include "world/proc.h"

enum { FIRST_PAGES = 512 /* 4 MiB */, PERCENT = 2, PERCENT_LATER = 1 };
#define LITTLE_LEFT_BYTES (256 * PA_MIB)

static struct {
    /* Bumped by whoever has news; the thread's futex. */
    _Atomic uint32_t word;
    /* Set by the one starter, cleared in a fork child and when the OS gives no thread. */
    _Atomic bool running;
    _Atomic bool enabled;   /* somebody asked for the thread; set once */
    _Atomic uint64_t looks, cpu_ns; /* written by the thread, read racily */
    bool fork_handled;      /* written by the starter only */
    pa_pace pace;           /* the thread's */
    uint64_t next_look_ns;  /* the thread's */
} the;

/* Free and backed pages that even an idle heap may keep. */
static uint64_t idle_allowance_pages(pa_heap *h)
{
    uint64_t inuse_bytes = atomic_load_explicit(&h->inuse_pages, memory_order_relaxed) << PA_PAGE_SHIFT;
    return (pa_decay_allowance(inuse_bytes, inuse_bytes) + PA_DECAY_LEAST_BYTES) >> PA_PAGE_SHIFT;
}

/* True when nothing will have to be released unless more is freed; then asks to be told of that. stuck: the OS
 * refused everything. *left_bytes: what the heap has too much in the end, without another peak. */
static bool may_sleep(pa_heap *h, bool stuck, uint64_t *left_bytes)
{
    pa_lock_acquire(&h->lock);
    uint64_t allowed = idle_allowance_pages(h), free_backed = h->pages.free_pages - h->pages.scavenged_pages;
    bool limited = pa_limit_above_goal_locked(h) >= PA_DECAY_LEAST_BYTES &&
                   free_backed >= PA_DECAY_LEAST_BYTES >> PA_PAGE_SHIFT;
    bool idle = stuck || (free_backed <= allowed && !limited);
    if (stuck && allowed < free_backed)
        allowed = free_backed;
    h->decay.notify_above_pages = idle ? allowed : 0;
    h->decay.stuck = stuck;
    *left_bytes = free_backed > allowed ? (free_backed - allowed) << PA_PAGE_SHIFT : 0;
    pa_lock_release(&h->lock);
    return idle;
}

/* Go's line: work since the last line, bytes of address space released now, share of the backed heap in use. */
static void trace(pa_heap *h, uint64_t piece_bytes)
{
    static uint64_t eager_before; /* the thread's */
    char room[160];
    pa_lock_acquire(&h->lock);
    uint64_t released_pages = h->pages.scavenged_pages;
    uint64_t inuse_pages = atomic_load_explicit(&h->inuse_pages, memory_order_relaxed);
    uint64_t backed_pages = (h->arena_count << (PA_ARENA_SHIFT - PA_PAGE_SHIFT)) - released_pages;
    uint64_t eager_bytes = h->release.bytes[PA_RELEASE_LIMIT];
    pa_lock_release(&h->lock);
    pa_text t = PA_TEXT(room);
    pa_text_str(&t, "scav ");
    pa_text_uint(&t, piece_bytes / PA_KIB, 10);
    pa_text_str(&t, " KiB work (bg), ");
    pa_text_uint(&t, (eager_bytes - eager_before) / PA_KIB, 10);
    pa_text_str(&t, " KiB work (eager), ");
    pa_text_uint(&t, (released_pages << PA_PAGE_SHIFT) / PA_KIB, 10);
    pa_text_str(&t, " KiB now, ");
    pa_text_uint(&t, backed_pages ? inuse_pages * 100 / backed_pages : 100, 10);
    pa_text_str(&t, "% util");
    pa_text_write_line(&t, STDERR_FILENO);
    eager_before = eager_bytes;
}

static uint64_t interval_ns(void)
{
    return (uint64_t)(pa_the_options.decay_ms ? pa_the_options.decay_ms : 500) * 1000000;
}

static uint64_t refusals_of(pa_heap *h)
{
    pa_lock_acquire(&h->lock);
    uint64_t refusals = h->release.refusals;
    pa_lock_release(&h->lock);
    return refusals;
}

/* A look when it is time and the last one is done with, and one piece, as large as the pace allows. *stuck: there was
 * a piece and the OS refused all of it. Returns the bytes released; *rest_ns: until there is something to do. */
static uint64_t work(pa_heap *h, uint64_t now_ns, unsigned percent, bool *stuck, uint64_t *rest_ns)
{
    pa_decay *d = &h->decay;
    pa_lock_acquire(&d->lock);
    if (d->owed_bytes == 0 && now_ns >= the.next_look_ns) {
        pa_decay_look(d, now_ns, pa_decay_view_of(h));
        the.next_look_ns = now_ns + interval_ns();
    }
    uint64_t most = d->owed_bytes < PA_DECAY_PIECE_BYTES ? d->owed_bytes : PA_DECAY_PIECE_BYTES;
    uint64_t piece = pa_decay_take(d, pa_pace_bytes(&the.pace, now_ns, percent, most));
    uint64_t refusals = refusals_of(h);
    uint64_t released = piece ? pa_release_pages(h, piece, PA_RELEASE_BACKGROUND) : 0;
    bool in_vain = piece && released == 0; /* refused, or taken by the program since the look */
    *stuck = in_vain && refusals_of(h) != refusals;
    if (in_vain)
        d->owed_bytes = 0;
    uint64_t until_look_ns = the.next_look_ns > now_ns ? the.next_look_ns - now_ns : 0;
    *rest_ns = d->owed_bytes ? pa_pace_rest_ns(&the.pace, now_ns, percent) : until_look_ns;
    pa_lock_release(&d->lock);
    return released;
}

static void *scavenger(void *argument)
{
    pa_heap *h = argument;
    bool stuck = false;
    uint64_t cpu_ns = pa_clock_thread_cpu_ns();
    for (;;) {
        uint64_t left_bytes, rest_ns;
        uint32_t seen = atomic_load(&the.word);
        bool flushed = pa_idle_look(h, NULL, pa_clock_now_ns());
        if (may_sleep(h, stuck, &left_bytes) && flushed) {
            stuck = false;
            pa_lock_acquire(&h->decay.lock); /* keeps fork out */
            pa_release_headers(h);
            pa_release_tails(h);
            pa_lock_release(&h->decay.lock);
            pa_thread_wait(&the.word, seen, -1);
            continue;
        }
        atomic_fetch_add_explicit(&the.looks, 1, memory_order_relaxed);
        unsigned percent = left_bytes < LITTLE_LEFT_BYTES ? PERCENT_LATER : PERCENT;
        uint64_t released = work(h, pa_clock_now_ns(), percent, &stuck, &rest_ns);
        if (released && pa_the_options.scavtrace > 0)
            trace(h, released);
        /* Everything that the thread does counts, whether it released something or not. */
        uint64_t cpu_now_ns = pa_clock_thread_cpu_ns();
        pa_pace_spent(&the.pace, pa_clock_now_ns(), cpu_now_ns - cpu_ns, released);
        atomic_fetch_add_explicit(&the.cpu_ns, cpu_now_ns - cpu_ns, memory_order_relaxed);
        cpu_ns = cpu_now_ns;
        if (rest_ns && !stuck)
            pa_thread_wait(&the.word, seen, (int64_t)rest_ns);
    }
    return NULL;
}

static void ask_to_be_told(pa_heap *h)
{
    pa_lock_acquire(&h->lock);
    h->decay.notify_above_pages = FIRST_PAGES;
    h->decay.refused = h->decay.stuck = false;
    pa_lock_release(&h->lock);
}

/* The OS gave no thread: asked again when twice as much is free, so not every free asks. */
static void ask_to_be_told_later(pa_heap *h)
{
    pa_lock_acquire(&h->lock);
    uint64_t free_backed = h->pages.free_pages - h->pages.scavenged_pages;
    h->decay.notify_above_pages = 2 * (free_backed > FIRST_PAGES ? free_backed : FIRST_PAGES);
    h->decay.refused = true;
    pa_lock_release(&h->lock);
}

/* The child has the forking thread only. Runs after world/fork.c's handler, which was installed first. */
static void child(void)
{
    atomic_store(&the.running, false);
    atomic_store(&pa_the_heap.decay.background, false);
    the.pace = (pa_pace){0};
    the.next_look_ns = 0;
    pa_the_heap.decay.owed_bytes = 0; /* the parent's thread was to do it */
    ask_to_be_told(&pa_the_heap);
}

/* Starts or wakes the thread. No lock held. */
static void start_or_wake(void)
{
    pa_decay *d = &pa_the_heap.decay;
    if (atomic_exchange(&the.running, true)) {
        atomic_fetch_add(&the.word, 1);
        pa_thread_wake_all(&the.word);
        return;
    }
    int saved_errno = errno; /* free keeps it */
    if (!the.fork_handled)
        the.fork_handled = pthread_atfork(NULL, NULL, child) == 0;
    bool started = the.fork_handled && pa_thread_start(scavenger, &pa_the_heap, "pyalloc-scav");
    atomic_store_explicit(&d->background, started, memory_order_release);
    atomic_store(&the.running, started); /* if not: slow paths go on releasing */
    if (!started)
        ask_to_be_told_later(&pa_the_heap);
    errno = saved_errno;
}

/* From slow paths, which may belong to a thread without a P: it holds the orphan's lock, and to start a thread
 * allocates. */
static void notify(void)
{
    if (pa_mcache_is_real(pa_current_mcache))
        start_or_wake();
    else /* somebody else will */
        atomic_fetch_or_explicit(&pa_the_heap.decay.notify_due, PA_DUE_IDLE, memory_order_release);
}

void pa_scavenge_after_sweep(void)
{
    if (atomic_fetch_and_explicit(&pa_the_heap.decay.notify_due, ~(uint32_t)PA_DUE_IDLE, memory_order_acquire) &
        PA_DUE_IDLE)
        start_or_wake();
}

void pa_scavenge_enable(void)
{
    if (atomic_exchange(&the.enabled, true))
        return;
    pa_the_heap.decay.notify = notify;
    ask_to_be_told(&pa_the_heap);
}

void pa_scavenge_limit_changed(void)
{
    pa_heap *h = &pa_the_heap;
    pa_lock_acquire(&h->decay.lock);
    pa_lock_acquire(&h->lock);
    h->decay.stuck = false;
    uint64_t over_bytes = pa_limit_over_slow_locked(h);
    pa_lock_release(&h->lock);
    if (over_bytes)
        pa_limit_obey(h, over_bytes);
    pa_lock_release(&h->decay.lock);
    pa_decay_notify(&h->decay);
}

bool pa_scavenge_is_running(void)
{
    return atomic_load(&the.running);
}

uint64_t pa_scavenge_looks(void)
{
    return atomic_load_explicit(&the.looks, memory_order_relaxed);
}

uint64_t pa_scavenge_cpu_ns(void)
{
    return atomic_load_explicit(&the.cpu_ns, memory_order_relaxed);
}
