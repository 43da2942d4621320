/* release.c - fills memory, gives it back one way or the other, looks, and uses it again; prints one JSON
 * object.
 *
 *     release MIB WAY PRESSURE     WAY: dontneed, free (raw madvise on a mapping), or pyalloc (malloc family and
 *                                  pa_free_os_memory; the environment says which advice it gives)
 *                                  PRESSURE: MiB mapped and touched after the memory was given back, to make the
 *                                  kernel want pages (inside a memory cgroup)
 */
#include <sys/mman.h>
#include <unistd.h>

#include "include/pyalloc.h"
#include "observe.h"

enum { BLOCK_BYTES = 1 << 20 };

static char **blocks;
static size_t count;

static void touch(char *p)
{
    for (size_t i = 0; i < BLOCK_BYTES; i += 4096)
        ((volatile char *)p)[i] = 1;
}

static void take(int raw, char *mapping)
{
    for (size_t i = 0; i < count; i++) {
        blocks[i] = raw ? mapping + i * BLOCK_BYTES : pa_malloc(BLOCK_BYTES);
        if (!blocks[i])
            give_up("pa_malloc");
        touch(blocks[i]);
    }
}

static void pressure(size_t nbytes)
{
    if (nbytes == 0)
        return;
    volatile char *p = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        give_up("mmap");
    for (size_t i = 0; i < nbytes; i += 4096)
        p[i] = 1;
    munmap((void *)p, nbytes);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    count = (size_t)atol(argv[1]);
    int raw = strcmp(argv[2], "pyalloc") != 0, lazily = strcmp(argv[2], "free") == 0;
    size_t nbytes = count * BLOCK_BYTES;
    blocks = mmap(NULL, count * sizeof *blocks, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *mapping = raw ? mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : NULL;
    if (blocks == MAP_FAILED || mapping == MAP_FAILED)
        give_up("mmap");
    if (raw)
        madvise(mapping, nbytes, MADV_NOHUGEPAGE);
    pa_free(pa_malloc(1));
    uint64_t rss0 = rss_bytes();
    take(raw, mapping);
    uint64_t full = rss_bytes(), from_ns = cpu_ns();
    if (raw) {
        if (madvise(mapping, nbytes, lazily ? MADV_FREE : MADV_DONTNEED))
            give_up("madvise");
    } else {
        for (size_t i = 0; i < count; i++)
            pa_free(blocks[i]);
        pa_free_os_memory();
    }
    uint64_t release_ns = cpu_ns() - from_ns, rss_after = rss_bytes(), lazy_after = lazy_free_bytes();
    pressure((size_t)atol(argv[3]) << 20);
    uint64_t rss_pressed = rss_bytes(), lazy_pressed = lazy_free_bytes(), faults = minor_faults();
    from_ns = cpu_ns();
    take(raw, mapping);
    uint64_t again_ns = cpu_ns() - from_ns;
    printf("{\"full\": %lld, \"rss_after\": %lld, \"lazy_after\": %llu, \"rss_pressed\": %lld, \"lazy_pressed\": %llu,"
           " \"release_ns_per_page\": %.1f, \"again_ns_per_page\": %.1f, \"faults_per_page\": %.4f}\n",
           (long long)(full - rss0), (long long)(rss_after - rss0), (unsigned long long)lazy_after,
           (long long)(rss_pressed - rss0), (unsigned long long)lazy_pressed,
           (double)release_ns / ((double)nbytes / 4096), (double)again_ns / ((double)nbytes / 4096),
           (double)(minor_faults() - faults) / ((double)nbytes / 4096));
    return 0;
}
