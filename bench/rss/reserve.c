/* reserve.c - maps one arena's worth through pyalloc and touches its pages one by one; prints a series as
 * JSON.
 *
 *     reserve MIB STEPS HUGE       HUGE: 0 forbids transparent huge pages in the block, 1 leaves the system's policy
 */
#include <sys/mman.h>
#include <unistd.h>

#include "include/pyalloc.h"
#include "observe.h"

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    size_t nbytes = (size_t)atol(argv[1]) << 20, steps = (size_t)atol(argv[2]);
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = nbytes / page;
    pa_free(pa_malloc(1)); /* the heap's own tables are there */
    rss_bytes();
    uint64_t rss0 = rss_bytes(), faults0 = minor_faults();
    char *p = pa_calloc(1, nbytes);
    if (!p)
        give_up("pa_calloc");
    if (atoi(argv[3]) == 0)
        madvise(p, nbytes, MADV_NOHUGEPAGE);
    printf("{\"os_page\": %zu, \"reserved\": [%llu, %llu], \"series\": [", page,
           (unsigned long long)(rss_bytes() - rss0), (unsigned long long)(minor_faults() - faults0));
    uint64_t rss1 = rss_bytes(), faults1 = minor_faults();
    for (size_t step = 0, done = 0; step < steps; step++) {
        for (size_t end = pages * (step + 1) / steps; done < end; done++)
            ((volatile char *)p)[done * page] = 1;
        uint64_t faults = minor_faults() - faults1; /* before rss_bytes makes some of its own */
        printf("%s[%zu, %llu, %llu]", step ? ", " : "", done, (unsigned long long)(rss_bytes() - rss1),
               (unsigned long long)faults);
    }
    pa_free(p);
    pa_free_os_memory();
    printf("], \"released\": %lld}\n", (long long)(rss_bytes() - rss1));
    return 0;
}
