/* idle.c - a burst of blocks, most of them freed, and then what happens to resident memory, signals and threads.
 *
 *     idle ticks|still|fork|signals|early|off
 *
 * ticks: slow paths are called now and then. still: nothing is called. fork: a child does the same again.
 * off: nothing is released, with ticks as above.
 * signals: signals sent to the process must come to the main thread. early: a small program frees a little.
 * Prints "ok"; a wrong answer is one line and exit code 1. Waits have deadlines.
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REQUIRE(cond) \
    ((cond) ? (void)0 : (dprintf(2, "line %d: not so: %s (rss %ld)\n", __LINE__, #cond, rss()), _exit(1)))

enum { BLOCK_BYTES = 20000, BLOCKS = 6000, KEPT = 600, MIB = 1 << 20 };

static char *blocks[BLOCKS];
static volatile pid_t handled_by;

static long rss(void)
{
    long size = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%ld %ld", &size, &resident) != 2)
        resident = 0;
    if (f)
        fclose(f);
    return resident * getpagesize();
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

/* Context switches of all threads but the first. */
static long switches_of_others(void)
{
    long total = 0;
    DIR *d = opendir("/proc/self/task");
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[300], line[200];
        if (e->d_name[0] == '.' || atoi(e->d_name) == getpid())
            continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", e->d_name);
        FILE *f = fopen(path, "r");
        while (f && fgets(line, sizeof line, f))
            if (strncmp(line, "voluntary_ctxt_switches:", 24) == 0)
                total += atol(line + 24);
        if (f)
            fclose(f);
    }
    closedir(d);
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
