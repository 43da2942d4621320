/* giveback.c - one burst through plain malloc, dropped in random order, then nothing; whoever watches sees
 * what stays.
 *
 *     giveback MIB IDLE_SECONDS TRIM       TRIM: 1 calls malloc_trim(0) after the last free, where there is one
 *
 * Writes a line at each stage: start, peak, freed; goes on from the first two at a line on standard input.
 * Sizes are drawn from 64 B to 64 KiB, each doubling as likely.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "observe.h"

extern int malloc_trim(size_t) __attribute__((weak));

static void say(const char *stage)
{
    if (printf("%s\n", stage) < 0 || fflush(stdout) != 0)
        exit(1);
}

static size_t draw_size(uint64_t *random)
{
    uint64_t r = next_random(random);
    size_t low = (size_t)64 << r % 10;
    return low + (size_t)(r >> 32) % low;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    size_t nbytes = (size_t)atol(argv[1]) << 20, capacity = nbytes / 64, n = 0, total = 0;
    char **blocks = mmap(NULL, capacity * sizeof *blocks, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint64_t random = 1;
    if (blocks == MAP_FAILED)
        give_up("mmap");
    free(malloc(1));
    say("start");
    getchar(); /* until somebody has looked */
    while (total < nbytes) {
        size_t size = draw_size(&random);
        char *p = malloc(size);
        if (!p)
            give_up("malloc");
        for (size_t i = 0; i < size; i += 4096)
            ((volatile char *)p)[i] = 1;
        blocks[n++] = p;
        total += size;
    }
    say("peak");
    getchar();
    while (n) {
        size_t i = (size_t)next_random(&random) % n;
        free(blocks[i]);
        blocks[i] = blocks[--n];
    }
    munmap(blocks, capacity * sizeof *blocks);
    if (atoi(argv[3]) && malloc_trim)
        malloc_trim(0);
    say("freed");
    usleep((useconds_t)(atof(argv[2]) * 1e6));
    return 0;
}
