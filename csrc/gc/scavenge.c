/* scavenge.c - drives the release of idle memory from a thread of our own.
 *
 * Owns the thread and the word it sleeps on.  What to release is heap/decay.c's policy; this is when.  While
 * something is free beyond what an idle heap may keep, the thread looks every PYALLOC_DECAY_MS and works in
 * pieces, at most 2 % of one processor averaged over 5 s, 1 % once less than 256 MiB is left.  Otherwise it
 * sleeps without a timeout until a free makes it so again (pa_decay.notify): an idle process has no wake-ups.
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
#define AVERAGE_NS ((int64_t)5000000000)
#define LITTLE_LEFT_BYTES (256 * PA_MIB)

static struct {
    /* Bumped by whoever has news; the thread's futex. */
    _Atomic uint32_t word;
    /* Set by the one starter, cleared in a fork child and when the OS gives no thread. */
    _Atomic bool running;
    _Atomic uint64_t looks; /* written by the thread, read racily */
    bool fork_handled;      /* written by the starter only */
} the;

/* Free and backed pages that even an idle heap may keep. */
static uint64_t idle_allowance_pages(pa_heap *h)
{
    uint64_t inuse_bytes = atomic_load_explicit(&h->inuse_pages, memory_order_relaxed) << PA_PAGE_SHIFT;
    return (pa_decay_allowance(inuse_bytes, inuse_bytes) + PA_DECAY_LEAST_BYTES) >> PA_PAGE_SHIFT;
}

/* True when nothing will have to be released unless more is freed; then asks to be told of that. */
static bool may_sleep(pa_heap *h)
{
    pa_lock_acquire(&h->lock);
    uint64_t allowed = idle_allowance_pages(h);
    bool idle = h->pages.free_pages - h->pages.scavenged_pages <= allowed;
    h->decay.notify_above_pages = idle ? allowed : 0;
    pa_lock_release(&h->lock);
    return idle;
}

/* Go's line: work since the last line, bytes of address space released now, share of the backed heap in use. */
static void trace(pa_heap *h, uint64_t piece_bytes)
{
    char room[160];
    pa_lock_acquire(&h->lock);
    uint64_t released_pages = h->pages.scavenged_pages;
    uint64_t inuse_pages = atomic_load_explicit(&h->inuse_pages, memory_order_relaxed);
    uint64_t backed_pages = (h->arena_count << (PA_ARENA_SHIFT - PA_PAGE_SHIFT)) - released_pages;
    pa_lock_release(&h->lock);
    pa_text t = PA_TEXT(room);
    pa_text_str(&t, "scav ");
    pa_text_uint(&t, piece_bytes / PA_KIB, 10);
    pa_text_str(&t, " KiB work (bg), 0 KiB work (eager), ");
    pa_text_uint(&t, (released_pages << PA_PAGE_SHIFT) / PA_KIB, 10);
    pa_text_str(&t, " KiB now, ");
    pa_text_uint(&t, backed_pages ? inuse_pages * 100 / backed_pages : 100, 10);
    pa_text_str(&t, "% util");
    pa_text_write_line(&t, STDERR_FILENO);
}

/* One piece, and a look before it when the last is done. Returns the bytes released; *left_bytes: of that look. */
static uint64_t work(pa_heap *h, uint64_t now_ns, uint64_t *left_bytes)
{
    pa_decay *d = &h->decay;
    pa_lock_acquire(&d->lock);
    if (d->owed_bytes == 0)
        pa_decay_look(d, now_ns, pa_decay_view_of(h));
    uint64_t piece = pa_decay_take_piece(d, PA_DECAY_PIECE_BYTES), released = piece ? pa_mheap_release(h, piece) : 0;
    if (released == 0) /* nothing could be released: look again later */
        d->owed_bytes = 0;
    *left_bytes = d->owed_bytes;
    pa_lock_release(&d->lock);
    return released;
}

/* Processor time that may be used, saved up for at most 5 s; below 0: overdrawn. */
typedef struct budget {
    int64_t ns;
    uint64_t at_ns;
} budget;

/* work_ns were used up to now. Returns how long to rest until the budget is not overdrawn. */
static int64_t spend(budget *b, uint64_t now_ns, uint64_t work_ns, uint64_t left_bytes)
{
    int64_t percent = left_bytes < LITTLE_LEFT_BYTES ? PERCENT_LATER : PERCENT;
    int64_t most = AVERAGE_NS * percent / 100;
    int64_t passed = (int64_t)(now_ns - b->at_ns);
    b->ns += passed > AVERAGE_NS ? most : passed * percent / 100;
    b->ns = (b->ns < most ? b->ns : most) - (int64_t)work_ns;
    b->at_ns = now_ns;
    return b->ns < 0 ? -b->ns * 100 / percent : 0;
}

static void rest(int64_t ns, uint64_t left_bytes)
{
    int64_t interval_ns = (pa_the_options.decay_ms ? pa_the_options.decay_ms : 500) * 1000000;
    if (left_bytes == 0 && ns < interval_ns)
        ns = interval_ns;
    if (ns)
        pa_thread_wait(&the.word, atomic_load(&the.word), ns);
}

static void *scavenger(void *argument)
{
    pa_heap *h = argument;
    budget b = {.ns = AVERAGE_NS * PERCENT / 100, .at_ns = pa_clock_now_ns()};
    for (;;) {
        uint32_t seen = atomic_load(&the.word);
        if (pa_idle_look(h, NULL, pa_clock_now_ns()) && may_sleep(h)) {
            pa_thread_wait(&the.word, seen, -1);
            continue;
        }
        uint64_t left_bytes, from_ns = pa_clock_now_ns();
        atomic_fetch_add_explicit(&the.looks, 1, memory_order_relaxed);
        uint64_t released = work(h, from_ns, &left_bytes);
        if (released && pa_the_options.scavtrace > 0)
            trace(h, released);
        uint64_t now_ns = pa_clock_now_ns();
        rest(spend(&b, now_ns, now_ns - from_ns, left_bytes), left_bytes);
    }
    return NULL;
}

static void ask_to_be_told(pa_heap *h)
{
    pa_lock_acquire(&h->lock);
    h->decay.notify_above_pages = FIRST_PAGES;
    pa_lock_release(&h->lock);
}

/* The child has the forking thread only. Runs after world/fork.c's handler, which was installed first. */
static void child(void)
{
    atomic_store(&the.running, false);
    atomic_store(&pa_the_heap.decay.background, false);
    ask_to_be_told(&pa_the_heap);
}

/* Starts or wakes the thread. From slow paths, outside every lock; a thread without a P may hold the orphan's. */
static void notify(void)
{
    pa_decay *d = &pa_the_heap.decay;
    if (!pa_mcache_is_real(pa_current_mcache)) {
        atomic_store_explicit(&d->notify_due, true, memory_order_release); /* somebody else will */
        return;
    }
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
    errno = saved_errno;
}

void pa_scavenge_enable(void)
{
    pa_proc_attach(); /* the heap must be there */
    if (!pa_the_heap.initialised)
        return;
    pa_the_heap.decay.notify = notify;
    ask_to_be_told(&pa_the_heap);
}

bool pa_scavenge_is_running(void)
{
    return atomic_load(&the.running);
}

uint64_t pa_scavenge_looks(void)
{
    return atomic_load_explicit(&the.looks, memory_order_relaxed);
}
