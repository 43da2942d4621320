/* idle.c - a burst of blocks, most of them freed, and then what happens to resident memory, signals and threads.
 *
 *     idle ticks|still|fork|signals|early|off|shrink|refused|sleepers-trim|sleepers-ticks|sleepers-still
 *          |exit-last|exit-first|holes-trim|holes-ticks
 *
 * ticks: slow paths are called now and then. still: nothing is called. fork: a child does the same again.
 * off: nothing is released, with ticks as above.
 * signals: signals sent to the process must come to the main thread. early: a small program frees a little.
 * shrink: a huge block is cut, the only call that frees. refused: the first tries to start the thread fail.
 * exit: a thread's blocks are freed by itself and by the main thread. first: it exits, and the main thread's frees find
 * spans without an owner. last: it frees the rest while our thread sleeps, in calls that give no span back, and exits.
 * sleepers: the burst is that of threads that free it, or whose blocks others free, and then sleep for ever; memory
 * comes back by malloc_trim, by slow paths of the main thread, or by the background thread.
 * holes: every tenth block of the burst survives, so that no run of them empties; memory of the others comes back by
 * malloc_trim or by ticks, the survivors keep their bytes, and the others' places are used again.
 * Prints "ok"; a wrong answer is one line and exit code 1. Waits have deadlines.
 */
#include <dirent.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REQUIRE(cond) \
    ((cond) ? (void)0 : (dprintf(2, "line %d: not so: %s (rss %ld)\n", __LINE__, #cond, rss()), _exit(1)))

enum { BLOCK_BYTES = 20000, BLOCKS = 6000, KEPT = 600, MIB = 1 << 20 };

static char *blocks[BLOCKS];
static volatile pid_t handled_by;

/* Bytes of address space and resident ones. Allocates nothing: a call may be what starts the thread. */
static void sizes(long *size, long *resident)
{
    char text[200];
    int f = open("/proc/self/statm", O_RDONLY);
    ssize_t n = f < 0 ? 0 : read(f, text, sizeof text - 1);
    text[n > 0 ? n : 0] = '\0';
    *size = *resident = 0;
    if (sscanf(text, "%ld %ld", size, resident) == 2) {
        *size *= getpagesize();
        *resident *= getpagesize();
    }
    close(f);
}

static long rss(void)
{
    long size, resident;
    sizes(&size, &resident);
    return resident;
}

static int threads(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/task");
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

/* Context switches of all threads but the first. Allocates nothing: who asks whether a process is idle must not
 * keep it busy. */
static long switches_of_others(void)
{
    static DIR *d;
    long total = 0;
    if (!d)
        d = opendir("/proc/self/task");
    rewinddir(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[300], text[4096];
        if (e->d_name[0] == '.' || atoi(e->d_name) == getpid())
            continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", e->d_name);
        int fd = open(path, O_RDONLY);
        ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
        text[n > 0 ? n : 0] = '\0';
        const char *line = strstr(text, "\nvoluntary_ctxt_switches:");
        total += line ? atol(line + 25) : 0;
        close(fd);
    }
    return total;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void nap(void)
{
    struct timespec t = {.tv_nsec = 50 * 1000 * 1000};
    nanosleep(&t, NULL);
}

static void burst(void)
{
    for (int i = 0; i < BLOCKS; i++)
        memset(blocks[i] = malloc(BLOCK_BYTES), i, BLOCK_BYTES);
    for (int i = KEPT; i < BLOCKS; i++)
        free(blocks[i]);
}

static void end_of_burst(void)
{
    for (int i = 0; i < KEPT; i++)
        free(blocks[i]);
}

/* RSS must come down to the kept blocks and some, within 20 s; 5 s are usual. */
static void wait_for_release(int tick)
{
    double deadline = now() + 20;
    while (rss() > 36L * MIB) {
        REQUIRE(now() < deadline);
        nap();
        if (tick)
            free(malloc(9 * MIB));
    }
}

static void require_survivors(void)
{
    for (int i = 0; i < BLOCKS; i += BLOCKS / KEPT)
        for (int k = 0; k < BLOCK_BYTES; k++)
            REQUIRE(blocks[i][k] == (char)i);
}

static void holes(const char *how)
{
    long start = rss(), limit = start + (long)KEPT * BLOCK_BYTES / 10 * 13 + 2L * MIB, size, before, unused;
    for (int i = 0; i < BLOCKS; i++)
        memset(blocks[i] = malloc(BLOCK_BYTES), i, BLOCK_BYTES);
    for (int i = 0; i < BLOCKS; i++)
        if (i % (BLOCKS / KEPT) != 0)
            free(blocks[i]);
    REQUIRE(rss() > start + 90L * MIB);
    if (strcmp(how, "trim") == 0)
        REQUIRE(malloc_trim(0) == 1 && rss() <= limit);
    for (double deadline = now() + 20; rss() > limit; nap()) {
        void *p = NULL;
        REQUIRE(now() < deadline);
        REQUIRE(posix_memalign(&p, 64 << 10, 64 << 10) == 0); /* a slow path */
        free(p);
    }
    require_survivors();
    sizes(&before, &unused);
    for (int i = 0; i < BLOCKS; i++)
        if (i % (BLOCKS / KEPT) != 0)
            memset(blocks[i] = malloc(BLOCK_BYTES), i, BLOCK_BYTES);
    sizes(&size, &unused);
    REQUIRE(size == before); /* address space of the first time was enough */
    require_survivors();
}

/* No wake-ups for more than two intervals of release. */
static void wait_for_silence(void)
{
    double deadline = now() + 20, since = now();
    long seen = switches_of_others();
    while (now() - since < 1.2) {
        REQUIRE(now() < deadline);
        nap();
        if (switches_of_others() != seen) {
            seen = switches_of_others();
            since = now();
        }
    }
}

/* ---- Threads that fall asleep ---- */

enum { SLEEPERS = 8, LARGE = 40, LARGE_BYTES = 64 << 10, SMALL = 30000, SMALL_BYTES = 48 };
enum { SLEEPER_MAY_KEEP = 256 << 10 };

static struct sleeper {
    sem_t asleep;
    void *small[SMALL];
} sleepers[SLEEPERS];

static void *sleeper_main(void *argument)
{
    struct sleeper *s = argument;
    void *large[LARGE];
    sem_t never;
    sem_init(&never, 0, 0);
    for (int i = 0; i < LARGE; i++)
        memset(large[i] = malloc(LARGE_BYTES), i, LARGE_BYTES);
    for (int i = 0; i < SMALL; i++)
        memset(s->small[i] = malloc(SMALL_BYTES), i, SMALL_BYTES);
    for (int i = 0; i < LARGE; i++)
        free(large[i]);
    for (int i = 0; i < SMALL; i += 2)
        free(s->small[i]);
    sem_post(&s->asleep);
    for (;;)
        sem_wait(&never);
    return NULL;
}

static void put_to_sleep(void)
{
    for (int t = 0; t < SLEEPERS; t++) {
        pthread_t id;
        pthread_attr_t small_stack;
        pthread_attr_init(&small_stack);
        pthread_attr_setstacksize(&small_stack, 64 << 10);
        sem_init(&sleepers[t].asleep, 0, 0);
        REQUIRE(pthread_create(&id, &small_stack, sleeper_main, &sleepers[t]) == 0);
        sem_wait(&sleepers[t].asleep);
    }
    for (int t = 0; t < SLEEPERS; t++)
        for (int i = 1; i < SMALL; i += 2)
            free(sleepers[t].small[i]);
}

static void sleepers_come_back(const char *how)
{
    void *first = malloc(1 << 20); /* the threads' stacks and our table are not the heap's */
    memset(sleepers, 1, sizeof sleepers);
    free(memset(first, 1, 1 << 20));
    long before = rss();
    put_to_sleep();
    REQUIRE(rss() > before + SLEEPERS * (2L << 20));
    long limit = before + SLEEPERS * (SLEEPER_MAY_KEEP + (24L << 10)) + (2L << 20);
    if (strcmp(how, "trim") == 0)
        REQUIRE(malloc_trim(0) == 1);
    for (double deadline = now() + (strcmp(how, "trim") == 0 ? 0 : 20); rss() > limit; nap()) {
        REQUIRE(now() < deadline);
        void *p; /* an aligned block: no bin has one, and it is small beside what the heap may keep */
        if (strcmp(how, "ticks") == 0 && posix_memalign(&p, 64 << 10, 64 << 10) == 0)
            free(p);
    }
}

/* ---- The last free is an unusual one ---- */

static void shrink(void)
{
    long before = rss();
    char *p = malloc(256 * MIB);
    memset(p, 1, 256 * MIB);
    REQUIRE(threads() == 1);
    p = realloc(p, 16 * MIB);
    for (double deadline = now() + 20; rss() > before + 32L * MIB; nap())
        REQUIRE(now() < deadline);
    REQUIRE(threads() == 2 && p[16 * MIB - 1] == 1);
}

/* No thread without address space for its stack; when there is, the next that is freed starts it. */
static void refused(void)
{
    struct rlimit none, before;
    long size, resident;
    for (int i = 0; i < BLOCKS; i++)
        memset(blocks[i] = malloc(BLOCK_BYTES), i, BLOCK_BYTES);
    sizes(&size, &resident);
    REQUIRE(size > 0 && getrlimit(RLIMIT_AS, &before) == 0);
    none = (struct rlimit){.rlim_cur = (rlim_t)size, .rlim_max = before.rlim_max};
    REQUIRE(setrlimit(RLIMIT_AS, &none) == 0);
    for (int i = KEPT; i < KEPT + 1000; i++)
        free(blocks[i]);
    REQUIRE(threads() == 1 && setrlimit(RLIMIT_AS, &before) == 0);
    for (int i = KEPT + 1000; i < BLOCKS; i++)
        free(blocks[i]);
    wait_for_release(0);
    REQUIRE(threads() == 2);
}

enum { LEFT = 1 << 20, LEFT_BYTES = 64 };

static void *left[LEFT];
static sem_t filled, go;

static void *fill_and_exit(void *unused)
{
    for (int i = 0; i < LEFT; i++)
        memset(left[i] = malloc(LEFT_BYTES), 1, LEFT_BYTES);
    for (int i = 0; i < LEFT; i += 2) /* makes it the owner of the spans that it had filled */
        free(left[i]);
    sem_post(&filled);
    while (sem_wait(&go) != 0) {
    }
    for (int i = 3; i < LEFT && unused; i += 4)
        free(left[i]);
    return NULL;
}

static void others_come_to_an_end(int exit_last)
{
    pthread_t id;
    memset(left, 1, sizeof left);
    sem_init(&filled, 0, 0);
    sem_init(&go, 0, exit_last ? 0 : 1);
    long before = rss();
    REQUIRE(pthread_create(&id, NULL, fill_and_exit, exit_last ? left : NULL) == 0);
    while (sem_wait(&filled) != 0) {
    }
    if (!exit_last)
        REQUIRE(pthread_join(id, NULL) == 0);
    for (int i = 1; i < LEFT; i += exit_last ? 4 : 2)
        free(left[i]);
    if (exit_last) {
        wait_for_silence();
        REQUIRE(rss() > before + 50L * MIB);
        sem_post(&go);
        REQUIRE(pthread_join(id, NULL) == 0);
    }
    for (double deadline = now() + 20; rss() > before + 12L * MIB; nap())
        REQUIRE(now() < deadline);
}

static void handler(int signal_number)
{
    handled_by = gettid();
}

int main(int argc, char **argv)
{
    const char *which = argc > 1 ? argv[1] : "";
    if (strcmp(which, "early") == 0) {
        for (int i = 0; i < 100; i++)
            free(malloc(1000));
        REQUIRE(threads() == 1);
        puts("ok");
        return 0;
    }
    if (strncmp(which, "sleepers-", 9) == 0) {
        sleepers_come_back(which + 9);
        puts("ok");
        return 0;
    }
    if (strcmp(which, "shrink") == 0 || strcmp(which, "refused") == 0) {
        strcmp(which, "shrink") == 0 ? shrink() : refused();
        puts("ok");
        return 0;
    }
    if (strncmp(which, "holes-", 6) == 0) {
        holes(which + 6);
        puts("ok");
        return 0;
    }
    if (strncmp(which, "exit-", 5) == 0) {
        others_come_to_an_end(strcmp(which, "exit-last") == 0);
        puts("ok");
        return 0;
    }
    burst();
    REQUIRE(rss() > 90L * MIB);
    if (strcmp(which, "ticks") == 0) {
        wait_for_release(1);
        REQUIRE(threads() == 1);
    } else if (strcmp(which, "off") == 0) {
        for (double end = now() + 4; now() < end; nap())
            free(malloc(9 * MIB));
        REQUIRE(rss() > 90L * MIB);
    } else if (strcmp(which, "still") == 0) {
        wait_for_release(0);
        REQUIRE(threads() == 2);
        wait_for_silence();
        end_of_burst(); /* the thread wakes again */
        burst();
        wait_for_release(0);
    } else if (strcmp(which, "fork") == 0) {
        for (int i = 0; i < 2; i++) {
            pid_t child = fork();
            if (child == 0) {
                REQUIRE(threads() == 1);
                end_of_burst();
                burst();
                wait_for_release(0);
                REQUIRE(threads() == 2);
                _exit(7);
            }
            int status;
            REQUIRE(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
        }
        wait_for_release(0);
    } else if (strcmp(which, "signals") == 0) {
        signal(SIGUSR1, handler);
        wait_for_release(0);
        for (int i = 0; i < 100; i++) {
            handled_by = 0;
            kill(getpid(), SIGUSR1);
            REQUIRE(handled_by == getpid());
        }
    } else {
        return 2;
    }
    puts("ok");
    return 0;
}
