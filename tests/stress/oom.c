/* oom.c - running out of address space, and sizes that cannot be.
 *
 *     oom limit MIB      sets RLIMIT_AS that far above what is mapped, in a running process
 *     oom fresh          expects to be started under a limit (ulimit -v)
 *
 * Fills memory with blocks of one size after another until pa_malloc says NULL: errno must be ENOMEM, the heap
 * whole, and after everything is freed later calls work again.  Threads that start without memory are
 * served or told ENOMEM, and give back what they had.
 */
#include "stress.h"

#include <sys/resource.h>

static volatile size_t huge = SIZE_MAX; /* volatile: the compiler must not see that these cannot work */

static void expect_refused(void *p, int error, int line)
{
    REQUIRE(p == NULL, "line %d", line);
    REQUIRE(error == ENOMEM, "line %d: errno %d", line, error);
}

#define REFUSED(call)                                                                                          \
    do {                                                                                                       \
        errno = 0;                                                                                             \
        void *refused_ = (call);                                                                               \
        expect_refused(refused_, errno, __LINE__);                                                             \
    } while (0)

static void absurd_sizes(void)
{
    unsigned char *p = pa_malloc(100);
    REQUIRE(p);
    pattern_fill(p, 100, 1);
    static const size_t too_much[] = {
        SIZE_MAX,        SIZE_MAX - 1,          SIZE_MAX - 8191,          SIZE_MAX - 32768,
        (size_t)1 << 63, ((size_t)1 << 63) - 1, ((size_t)1 << 63) - 8192, (size_t)1 << 62,
        (size_t)1 << 48, (size_t)1 << 47,       ((size_t)1 << 47) - 1};
    for (size_t i = 0; i < sizeof too_much / sizeof *too_much; i++) {
        size_t n = too_much[i] & huge;
        REFUSED(pa_malloc(n));
        REFUSED(pa_calloc(1, n));
        REFUSED(pa_calloc(n, 1));
        REFUSED(pa_realloc(NULL, n));
        REFUSED(pa_realloc(p, n));
        REFUSED(pa_memalign(64, n));
        REFUSED(pa_memalign(8192, n));
        REFUSED(pa_memalign((size_t)1 << 30, n));
        REFUSED(pa_aligned_alloc(16, n));
        void *out = p;
        errno = 77;
        REQUIRE(pa_posix_memalign(&out, 64, n) == ENOMEM && out == p && errno == 77);
    }
    REFUSED(pa_calloc(huge / 2, 3));
    REFUSED(pa_calloc(3, huge / 2));
    REFUSED(pa_calloc((size_t)1 << 32, (size_t)1 << 32));
    REFUSED(pa_reallocarray(p, huge / 2, 3));
    REFUSED(pa_reallocarray(p, (size_t)1 << 32, (size_t)1 << 32));
    for (unsigned bit = 47; bit < 64; bit++) {
        REFUSED(pa_memalign((size_t)1 << bit, 1));
        REFUSED(pa_memalign((size_t)1 << bit, (size_t)1 << 62));
    }
    static const size_t no_alignment[] = {0, 3, 24, 8193, SIZE_MAX};
    for (size_t i = 0; i < sizeof no_alignment / sizeof *no_alignment; i++) {
        errno = 0;
        void *out = p;
        REQUIRE(pa_memalign(no_alignment[i], 8) == NULL && errno == EINVAL);
        REQUIRE(pa_posix_memalign(&out, no_alignment[i], 8) == EINVAL && out == p);
    }
    void *out = p;
    REQUIRE(pa_posix_memalign(&out, 4, 8) == EINVAL &&
            out == p); /* a power of two, but no multiple of a pointer */
    REQUIRE(pa_good_size(huge) == 0);
    pattern_verify(p, 100, 100, 1);
    pa_free(p);
    heap_must_be_whole();
}

typedef struct node {
    struct node *next;
    size_t nbytes;
} node;

/* Takes blocks of a size until there are no more; returns them as a list. */
static node *fill(node *list, size_t nbytes, uint64_t *count)
{
    for (;;) {
        errno = 0;
        node *n = pa_malloc(nbytes);
        if (!n)
            break;
        n->next = list;
        n->nbytes = nbytes;
        list = n;
        ++*count;
    }
    REQUIRE(errno == ENOMEM, "errno %d", errno);
    return list;
}

static void fill_and_free(void)
{
    static const size_t sizes[] = {7 * PA_MIB, 900 * PA_KIB, 200 * PA_KIB, 32 * PA_KIB, 5000, 1024, 112, 16};
    node *list = NULL;
    uint64_t total = 0, sizes_served = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint64_t count = 0;
        list = fill(list, sizes[i], &count);
        total += count;
        sizes_served += count != 0;
        heap_must_be_whole();
        REQUIRE(stats_now().explicit_objects == total, "%" PRIu64 " %" PRIu64, stats_now().explicit_objects,
                total);
    }
    REQUIRE(total > 30 && sizes_served >= 3, "%" PRIu64 " blocks of %" PRIu64 " sizes", total, sizes_served);
    REFUSED(pa_malloc(PA_MIB));
    REFUSED(pa_realloc(list, PA_MIB));
    REQUIRE(pa_realloc(list, 1) != NULL || errno == ENOMEM); /* smaller never fails */
    while (list) {
        node *next = list->next;
        pa_free(list);
        list = next;
    }
    heap_must_be_empty();
}

static void *thread_without_memory(void *argument)
{
    void *blocks[64];
    for (size_t i = 0; i < 64; i++) {
        errno = 0;
        blocks[i] = pa_malloc(i * 700);
        REQUIRE(blocks[i] || errno == ENOMEM);
    }
    for (size_t i = 0; i < 64; i++)
        pa_free(blocks[i]);
    return NULL;
}

static void threads_without_memory(void)
{
    uint64_t count = 0;
    node *list = NULL;
    pthread_t id;
    pthread_attr_t small;
    REQUIRE(pthread_attr_init(&small) == 0 && pthread_attr_setstacksize(&small, 256 * 1024) == 0);
    list = fill(list, 64 * PA_KIB, &count);
    list = fill(list, 48, &count);
    for (int i = 0; i < 4; i++) {
        if (pthread_create(&id, &small, thread_without_memory, NULL) != 0)
            break; /* there is no room for the stack either */
        REQUIRE(pthread_join(id, NULL) == 0);
    }
    while (list) {
        node *next = list->next;
        pa_free(list);
        list = next;
    }
    heap_must_be_empty();
}

static size_t mapped_bytes(void)
{
    unsigned long size_pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    REQUIRE(f && fscanf(f, "%lu", &size_pages) == 1);
    fclose(f);
    return size_pages * (size_t)sysconf(_SC_PAGESIZE);
}

int main(int argc, char **argv)
{
    bool fresh = argc > 1 && strcmp(argv[1], "fresh") == 0;
    if (fresh) {
        struct rlimit r;
        REQUIRE(getrlimit(RLIMIT_AS, &r) == 0 && r.rlim_cur != RLIM_INFINITY, "start it under ulimit -v");
    } else {
        void *p = pa_malloc(1);
        REQUIRE(p);
        pa_free(p);
        size_t limit = mapped_bytes() + (size_t)argument(argc, argv, 2, 300) * PA_MIB;
        REQUIRE(setrlimit(RLIMIT_AS, &(struct rlimit){limit, limit}) == 0);
    }
    absurd_sizes();
    fill_and_free();
    threads_without_memory();
    fill_and_free();
    absurd_sizes();
    pa_mem_stats s = stats_now();
    printf("oom: %s, %" PRIu64 " arenas, window of %u bits\n", fresh ? "fresh" : "limit", s.arenas,
           pa_space.window_bits);
    return 0;
}
