/* growing.c - a block that realloc doubles from 64 KiB to 256 MiB, over arena boundaries: it must stay where it is,
 * keep its bytes, and need no second copy of itself. Prints the peak of resident memory in KiB. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_BYTES = 64 << 10, LAST_BYTES = 256 << 20 };

/* VmHWM begins with the program; getrusage's ru_maxrss would be that of the process that started it, if larger. */
static int print_peak_kib(void)
{
    char line[256];
    long kib = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "VmHWM: %ld", &kib) == 1)
            return printf("%ld\n", kib);
    return 0;
}

int main(void)
{
    unsigned char *start = malloc(FIRST_BYTES), *p = start;
    memset(p, 1, FIRST_BYTES);
    for (size_t n = FIRST_BYTES, seed = 2; n < LAST_BYTES; n *= 2, seed++) {
        p = realloc(p, 2 * n);
        if (!p || p != start)
            return fprintf(stderr, "moved at %zu bytes\n", 2 * n), 1;
        memset(p + n, (int)seed, n);
    }
    for (size_t n = FIRST_BYTES, seed = 2; n < LAST_BYTES; n *= 2, seed++)
        for (size_t k = n; k < 2 * n; k += 4096)
            if (p[k] != seed)
                return fprintf(stderr, "byte %zu is %u\n", k, p[k]), 1;
    free(p);
    return print_peak_kib() ? 0 : 1;
}
