/* firstpages.c - what of libpyalloc.so is resident in a program that only allocates.
 *
 * Takes and gives back blocks of many sizes, in two threads, and prints for each executable mapping of the library how
 * many KiB it has and how many of them are resident.  Shorter than half a second, so that no idle memory is looked for.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *work(void *unused)
{
    static const size_t sizes[] = {8, 24, 64, 200, 1000, 3000, 8192, 30000, 70000, 300000};
    enum { SIZES = sizeof sizes / sizeof *sizes, BLOCKS = 40 };
    for (int round = 0; round < 3; round++) {
        void *blocks[SIZES][BLOCKS];
        for (int b = 0; b < BLOCKS; b++)
            for (int i = 0; i < SIZES; i++)
                blocks[i][b] = b % 2 ? calloc(1, sizes[i]) : realloc(malloc(sizes[i] / 2), sizes[i]);
        for (int b = 0; b < BLOCKS; b++)
            for (int i = 0; i < SIZES; i++)
                free(blocks[i][b]);
    }
    return unused;
}

int main(void)
{
    static char text[1 << 18];
    pthread_t id;
    work(NULL);
    if (pthread_create(&id, NULL, work, NULL) != 0 || pthread_join(id, NULL) != 0)
        return 1;
    int fd = open("/proc/self/smaps", O_RDONLY);
    size_t length = 0;
    for (ssize_t n; (n = read(fd, text + length, sizeof text - 1 - length)) > 0;)
        length += (size_t)n;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        static long size_kib = -1, kib;
        unsigned long from, to;
        char rights[8], path[4096];
        if (sscanf(line, "%lx-%lx %7s %*s %*s %*s %4095s", &from, &to, rights, path) == 4)
            size_kib = strstr(path, "libpyalloc.so") && rights[2] == 'x' ? (long)(to - from) / 1024 : -1;
        else if (size_kib >= 0 && sscanf(line, "Rss: %ld kB", &kib) == 1)
            printf("%ld %ld\n", size_kib, kib);
    }
    return 0;
}
