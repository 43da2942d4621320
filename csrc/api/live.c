/* live.c - figures of the heap for another process that asks: the page, the thread that answers, and the viewer's side.
 *
 * Owns the page, a shared mapping of an unnamed file, and the thread.  The thread sleeps in futex(2) on the page's
 * `request` word without a timeout: a process that nobody looks at has no wake-ups, and no path of malloc or free
 * knows of all this.  When a viewer counts the word up and wakes it, it takes a snapshot on its own stack and copies it
 * out under a seqlock, of which it is the only writer.  It never reads anything else from the page, so that whoever
 * writes there can spoil figures and nothing more; the file's size is sealed, so it cannot be made to fault either.
 *
 * fork: the mapping is not inherited (MADV_DONTFORK), and the child closes the descriptor, if it still is that file:
 * two processes never write one page.  The child gets its own at its first slow path (pa_decay.errand) and not before,
 * because most children exec at once, and some, such as those that call unshare(2), must not have a second thread.
 *
 * Starting: whoever turns `running` on does it; no lock, since to start a thread allocates.  The collector's fork
 * handlers are installed before ours, so that its child handler and the heap's have run when ours does.
 */
#include "api/live.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/text.h"
#include "gc/gc.h"
#include "include/pyalloc.h"
#include "sys/clock.h"
#include "sys/thread.h"
#include "sys/vm.h"
#include "world/proc.h"

enum { LEAST_FD = 200 }; /* above what shells and their scripts number themselves */

static const char magic[8] = "pyalive";

_Static_assert(sizeof(pa_live_figures) % sizeof(uint64_t) == 0, "copied by words");
_Static_assert(offsetof(pa_live_page, figures) % sizeof(uint64_t) == 0, "of words");

static struct {
    _Atomic bool running;   /* turned on by the one starter; off again in a fork child, and when it came to nothing */
    bool fork_handled;      /* the starter's */
    int fd;                 /* the starter's, and a fork child's */
    dev_t device;
    ino_t inode;
} the = {.fd = -1};

/* ---- The seqlock: words of its data are relaxed, `seq` and fences order them ---- */

static _Atomic uint32_t *word(uint32_t *field)
{
    return (_Atomic uint32_t *)field;
}

static void store_words(pa_live_figures *to, const pa_live_figures *from)
{
    for (size_t i = 0; i < sizeof *to / sizeof(uint64_t); i++)
        __atomic_store_n((uint64_t *)to + i, ((const uint64_t *)from)[i], __ATOMIC_RELAXED);
}

static void load_words(pa_live_figures *to, const pa_live_figures *from)
{
    for (size_t i = 0; i < sizeof *to / sizeof(uint64_t); i++)
        ((uint64_t *)to)[i] = __atomic_load_n((const uint64_t *)from + i, __ATOMIC_RELAXED);
}

/* The only writer. `seq` is the writer's own count: what stands in the page may be anybody's. */
static void publish(pa_live_page *page, uint32_t *seq, const pa_live_figures *figures)
{
    atomic_store_explicit(word(&page->seq), ++*seq, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    store_words(&page->figures, figures);
    atomic_store_explicit(word(&page->seq), ++*seq, memory_order_release);
}

static bool copy(pa_live_page *page, pa_live_figures *out)
{
    uint32_t seq = atomic_load_explicit(word(&page->seq), memory_order_acquire);
    if (seq & 1)
        return false;
    load_words(out, &page->figures);
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(word(&page->seq), memory_order_relaxed) == seq;
}

/* ---- The viewed process ---- */

static void *answer(void *argument)
{
    pa_live_page *page = argument;
    pa_live_figures figures;
    uint32_t answered = 0, seq = 0;
    for (;;) {
        uint32_t wanted = atomic_load(word(&page->request));
        if (wanted == answered) {
            pa_thread_wait_shared(word(&page->request), answered, -1);
            continue;
        }
        figures.time_ns = pa_clock_now_ns();
        pa_read_snapshot(&figures.snapshot);
        figures.cost_ns = pa_clock_now_ns() - figures.time_ns;
        publish(page, &seq, &figures);
        answered = wanted;
        atomic_store(word(&page->answered), answered);
        pa_thread_wake_all_shared(word(&page->answered));
    }
    return NULL;
}

static size_t mapped_bytes(void)
{
    return pa_round_up(sizeof(pa_live_page), pa_vm_page_size_bytes());
}

/* Out of the way of programs that number their descriptors themselves; as it is where that is not allowed. */
static int moved_up(int fd)
{
    int higher = fcntl(fd, F_DUPFD_CLOEXEC, LEAST_FD);
    if (higher < 0)
        return fd;
    close(fd);
    return higher;
}

static pa_live_page *open_page(int *error)
{
    int fd;
    pa_live_page *page = pa_vm_map_shared("pyalloc-live", mapped_bytes(), &fd, error);
    if (!page)
        return NULL;
    memcpy(page->magic, magic, sizeof magic);
    page->layout = PA_LIVE_LAYOUT;
    page->nbytes = sizeof *page;
    page->process = (uint32_t)getpid();
    strncpy(page->version, pa_version(), sizeof page->version - 1);
    struct stat st = {0};
    the.fd = moved_up(fd);
    fstat(the.fd, &st);
    the.device = st.st_dev;
    the.inode = st.st_ino;
    return page;
}

/* A program may have closed the descriptor and given its number to another file. */
static void close_page_file(void)
{
    struct stat st;
    if (the.fd >= 0 && fstat(the.fd, &st) == 0 && st.st_dev == the.device && st.st_ino == the.inode)
        close(the.fd);
    the.fd = -1;
}

static void start_in_child(void)
{
    if (pa_mcache_is_real(pa_current_mcache))
        pa_live_start();
    else /* the orphan's lock is held, and to start a thread allocates: somebody else will */
        pa_decay_repeat_errand(&pa_the_heap.decay);
}

static void child(void)
{
    int saved_errno = errno;
    if (atomic_exchange(&the.running, false)) {
        close_page_file();
        pa_decay_set_errand(&pa_the_heap.decay, start_in_child);
    }
    errno = saved_errno;
}

static int start(void)
{
    int error;
    pa_gc_configure();
    if (!the.fork_handled)
        the.fork_handled = pthread_atfork(NULL, NULL, child) == 0;
    if (!the.fork_handled)
        return ENOMEM;
    pa_live_page *page = open_page(&error);
    if (!page)
        return error;
    if (pa_thread_start(answer, page, "pyalloc-live"))
        return 0;
    pa_vm_unmap(page, mapped_bytes());
    close_page_file();
    return EAGAIN;
}

PA_EXPORT int pa_live_start(void)
{
    if (atomic_exchange(&the.running, true))
        return 0;
    int saved_errno = errno;
    int error = start();
    if (error)
        atomic_store(&the.running, false);
    errno = saved_errno;
    return error;
}

void pa_live_at_start(void)
{
    int error = pa_live_start();
    if (error == 0)
        return;
    char room[96];
    pa_text t = PA_TEXT(room);
    pa_text_str(&t, "pyalloc: PYALLOC_LIVE: no live view, error ");
    pa_text_int(&t, error);
    pa_text_write_line(&t, STDERR_FILENO);
}

/* ---- The viewer ---- */

static int check_page(const pa_live_page *page, size_t nbytes)
{
    if (nbytes < offsetof(pa_live_page, figures) || memcmp(page->magic, magic, sizeof magic) != 0)
        return EINVAL;
    bool same = page->layout == PA_LIVE_LAYOUT && page->nbytes == sizeof *page && nbytes >= sizeof *page;
    return same ? 0 : EPROTO;
}

static bool is_answered(pa_live_page *page, uint32_t request, uint32_t *seen)
{
    *seen = atomic_load(word(&page->answered));
    return (int32_t)(*seen - request) >= 0;
}

PA_EXPORT int pa_live_read(void *mapped, size_t nbytes, pa_live_figures *out, uint64_t timeout_ns)
{
    pa_live_page *page = mapped;
    int error = check_page(page, nbytes);
    if (error)
        return error;
    uint64_t started_ns = pa_clock_now_ns(), passed_ns = 0;
    uint32_t seen, request = atomic_fetch_add(word(&page->request), 1) + 1;
    pa_thread_wake_all_shared(word(&page->request));
    /* Another viewer's request may be written meanwhile: then the copy is tried again. */
    while (!is_answered(page, request, &seen) || !copy(page, out)) {
        passed_ns = pa_clock_now_ns() - started_ns;
        if (passed_ns >= timeout_ns)
            return ETIMEDOUT;
        if ((int32_t)(seen - request) < 0)
            pa_thread_wait_shared(word(&page->answered), seen, (int64_t)(timeout_ns - passed_ns));
        else
            pa_thread_yield();
    }
    return 0;
}
