/* Starts a program and reports its time and peak RSS: what the drop-in bars (_bench/dropin.py) measure with.
 *
 *   starter TIMES LIBRARY|- OUTPUT PROGRAM [ARGUMENTS]
 *
 * Prints "nanoseconds peak_kib status". The peak is the largest of the program and the descendants that it
 * waited for. A process's ru_maxrss starts at what its parent had resident when it was spawned, so the parent
 * must be this small one and not an interpreter, and a peak below some 1.5 MiB is this program's own and says
 * nothing. LIBRARY is preloaded into the program only, never into this one. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: starter TIMES LIBRARY|- OUTPUT PROGRAM [ARGUMENTS]\n");
        return 2;
    }
    if (strcmp(argv[2], "-") != 0 && setenv("LD_PRELOAD", argv[2], 1) != 0)
        return 2;
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 1, argv[3], O_WRONLY | O_CREAT | O_TRUNC, 0600);
    struct timespec from, to;
    long peak = 0;
    int status = 0;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (long left = strtol(argv[1], NULL, 10); left > 0 && status == 0; left--) {
        pid_t pid;
        struct rusage used;
        int error = posix_spawnp(&pid, argv[4], &files, NULL, argv + 4, environ);
        if (error != 0) {
            fprintf(stderr, "cannot start %s: %s\n", argv[4], strerror(error));
            return 2;
        }
        if (wait4(pid, &status, 0, &used) != pid)
            return 2;
        if (used.ru_maxrss > peak)
            peak = used.ru_maxrss;
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    long long ns = (to.tv_sec - from.tv_sec) * 1000000000LL + (to.tv_nsec - from.tv_nsec);
    printf("%lld %ld %d\n", ns, peak, status);
    return 0;
}
