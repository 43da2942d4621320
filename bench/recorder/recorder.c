/* recorder.c - a preloaded library that writes down what a program asks of malloc.
 *
 *     cc -O2 -shared -fPIC -pthread recorder.c -o recorder.so
 *     PYALLOC_RECORD=events.raw LD_PRELOAD=$PWD/recorder.so program ...
 *
 * or, in one step with the conversion to a compact trace, `python -m pyalloc._bench.record`.
 *
 * Calls are passed on to glibc under its own second names (__libc_malloc and so on), so no look-up with
 * dlsym is needed, which may itself allocate.  Each call is one event of 16 bytes, two for realloc (block
 * before, block after) and for aligned allocation (alignment, block):
 *
 *     word 0:  bits 0..3 kind, 4..15 thread number, 16..63 address
 *     word 1:  size, alignment, or 0
 *
 * Global order: one spin lock is held around the real call *and* the writing of its event.  That slows
 * threads down but leaves no doubt: an address is never seen in use twice.  Without it a block freed inside
 * realloc could be handed to another thread whose malloc is written down first.
 *
 * The file is mapped through a window of 4 MiB that moves on; the kernel keeps what was written, however
 * the program ends, and the tail is zeros, which the reader takes for the end.  The recorder itself
 * never allocates.
 *
 * Which process is recorded: the file is opened with O_EXCL, so the first one that gets there, and no other;
 * a forked child stops recording.  PYALLOC_RECORD_EXE=cc1 waits for the process whose program has that
 * name (a compiler driver starts several); PYALLOC_RECORD_FOLLOW=1 gives each process, forked or
 * executed, a file of its own with the suffix .PID (.PID.1 and so on after an exec).  PYALLOC_RECORD_MAX=N
 * stops after N events.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

enum { EV_MALLOC = 1, EV_CALLOC, EV_ALIGN, EV_ALIGNED, EV_REALLOC_FROM, EV_REALLOC_TO, EV_FREE };
enum { WINDOW_EVENTS = 1 << 18, MAX_THREADS = 4096 };

typedef struct event {
    uint64_t who_what;
    uint64_t value;
} event;

static atomic_flag lock = ATOMIC_FLAG_INIT;
static bool ready, recording; /* under lock */
static event *window;         /* under lock, as all below */
static size_t window_used;
static uint64_t window_base, events_left = UINT64_MAX;
static int file = -1;
static unsigned threads_seen;
static __thread unsigned thread_number __attribute__((tls_model("initial-exec"))); /* 0: not yet given */

static void acquire(void)
{
    while (atomic_flag_test_and_set_explicit(&lock, memory_order_acquire))
        ;
}

static void release(void)
{
    atomic_flag_clear_explicit(&lock, memory_order_release);
}

static void give_up(const char *why)
{
    dprintf(2, "pyalloc recorder: %s: %s\n", why, strerror(errno));
    recording = false;
}

static void next_window(void)
{
    size_t bytes = WINDOW_EVENTS * sizeof(event);
    if (window != NULL)
        munmap(window, bytes);
    window = NULL;
    window_used = 0;
    if (ftruncate(file, (off_t)(window_base + bytes)) != 0) {
        give_up("cannot extend the file");
        return;
    }
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, (off_t)window_base);
    if (p == MAP_FAILED) {
        give_up("cannot map the file");
        return;
    }
    window = p;
    window_base += bytes;
}

static bool right_program(void)
{
    const char *wanted = getenv("PYALLOC_RECORD_EXE");
    char path[4096];
    if (wanted == NULL)
        return true;
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0)
        return false;
    path[n] = '\0';
    const char *slash = strrchr(path, '/');
    return strcmp(slash == NULL ? path : slash + 1, wanted) == 0;
}

static void open_file(void)
{
    const char *path = getenv("PYALLOC_RECORD"), *most = getenv("PYALLOC_RECORD_MAX");
    char own[4096];
    if (path == NULL || !right_program())
        return;
    int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC;
    if (getenv("PYALLOC_RECORD_FOLLOW") == NULL) {
        file = open(path, flags, 0644);
    } else {
        snprintf(own, sizeof own, "%s.%ld", path, (long)getpid());
        file = open(own, flags, 0644);
        for (int again = 1; file < 0 && errno == EEXIST && again < 1000; again++) { /* after an exec */
            snprintf(own, sizeof own, "%s.%ld.%d", path, (long)getpid(), again);
            file = open(own, flags, 0644);
        }
    }
    if (file < 0)
        return;
    /* out of the way of programs that count on low numbers or close them */
    int high = fcntl(file, F_DUPFD_CLOEXEC, 900);
    if (high >= 0) {
        close(file);
        file = high;
    }
    if (most != NULL)
        events_left = strtoull(most, NULL, 10);
    recording = true;
    next_window();
}

static void before_fork(void)
{
    acquire();
}

static void after_fork_parent(void)
{
    release();
}

static void after_fork_child(void)
{
    if (recording) {
        munmap(window, WINDOW_EVENTS * sizeof(event));
        close(file);
        window = NULL;
        window_base = 0;
        recording = false;
    }
    if (getenv("PYALLOC_RECORD_FOLLOW") != NULL)
        open_file();
    release();
}

/* The first allocation of a process comes before any constructor; pthread_atfork may allocate, so it
 * waits for the constructor. */
static void begin(void)
{
    acquire();
    if (__builtin_expect(!ready, 0)) {
        ready = true;
        open_file();
    }
    if (__builtin_expect(thread_number == 0, 0))
        thread_number = threads_seen < MAX_THREADS - 1 ? ++threads_seen : MAX_THREADS - 1;
}

__attribute__((constructor)) static void on_load(void)
{
    pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

static void note(unsigned kind, const void *p, uint64_t value)
{
    if (!recording)
        return;
    if (window_used == WINDOW_EVENTS) {
        next_window();
        if (!recording)
            return;
    }
    window[window_used++] =
        (event){(uint64_t)(uintptr_t)p << 16 | (uint64_t)(thread_number - 1) << 4 | kind, value};
}

/* Counts a call; false once PYALLOC_RECORD_MAX calls have been written. */
static bool wanted(void)
{
    if (!recording)
        return false;
    if (events_left == 0) {
        recording = false;
        return false;
    }
    events_left--;
    return true;
}

void *malloc(size_t nbytes)
{
    begin();
    void *p = __libc_malloc(nbytes);
    if (p != NULL && wanted())
        note(EV_MALLOC, p, nbytes);
    release();
    return p;
}

void *calloc(size_t count, size_t nbytes)
{
    begin();
    void *p = __libc_calloc(count, nbytes);
    if (p != NULL && wanted())
        note(EV_CALLOC, p, count * nbytes);
    release();
    return p;
}

void free(void *p)
{
    if (p == NULL)
        return;
    begin();
    if (wanted())
        note(EV_FREE, p, 0);
    __libc_free(p);
    release();
}

void *realloc(void *old, size_t nbytes)
{
    if (old == NULL)
        return malloc(nbytes);
    begin();
    void *p = __libc_realloc(old, nbytes);
    if (nbytes == 0 && p == NULL) { /* glibc: realloc(p, 0) frees p */
        if (wanted())
            note(EV_FREE, old, 0);
    } else if (p != NULL && wanted()) {
        note(EV_REALLOC_FROM, old, 0);
        note(EV_REALLOC_TO, p, nbytes);
    }
    release();
    return p;
}

void *reallocarray(void *old, size_t count, size_t nbytes)
{
    size_t total;
    if (__builtin_mul_overflow(count, nbytes, &total)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(old, total);
}

void *memalign(size_t align, size_t nbytes)
{
    begin();
    void *p = __libc_memalign(align, nbytes);
    if (p != NULL && wanted()) {
        note(EV_ALIGN, NULL, align);
        note(EV_ALIGNED, p, nbytes);
    }
    release();
    return p;
}

void *aligned_alloc(size_t align, size_t nbytes)
{
    return memalign(align, nbytes);
}

int posix_memalign(void **out, size_t align, size_t nbytes)
{
    if (align < sizeof(void *) || (align & (align - 1)) != 0)
        return EINVAL;
    int saved = errno;
    void *p = memalign(align, nbytes);
    errno = saved;
    if (p == NULL)
        return ENOMEM;
    *out = p;
    return 0;
}

void *valloc(size_t nbytes)
{
    return memalign((size_t)sysconf(_SC_PAGESIZE), nbytes);
}

void *pvalloc(size_t nbytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return memalign(page, (nbytes + page - 1) / page * page);
}
