/* misuse.c - pointers that must not be freed, one a run, named by argv[1].
 *
 * Prints the offending address on stdout first; the library must end the process with one line on stderr
 * that names that
 * address.  "fine" names run what is allowed and return 0.  tests/stress/test_stress.py holds the expected words.
 */
#include "stress.h"

static void *freed_by_other(void *p)
{
    pa_free(p);
    return NULL;
}

static void in_thread(void *(*body)(void *), void *p)
{
    pthread_t id;
    REQUIRE(pthread_create(&id, NULL, body, p) == 0);
    REQUIRE(pthread_join(id, NULL) == 0);
}

static void *allocate_16(void *out)
{
    *(void **)out = pa_malloc(16);
    return NULL;
}

static void free_it(void *p)
{
    printf("%p\n", p);
    fflush(stdout);
    pa_free(p);
}

typedef void *(*picker)(void);

static void *foreign_stack(void)
{
    static _Thread_local char here[64]; /* storage like a stack's: never from a heap */
    volatile char on_stack = 0;
    return on_stack ? (void *)here : (void *)__builtin_frame_address(0);
}

static void *foreign_libc(void)
{
    return malloc(100);
}
static void *foreign_static(void)
{
    return (void *)stats_now;
}
static void *interior_small(void)
{
    return (char *)pa_malloc(100) + 16;
}
static void *interior_large(void)
{
    return (char *)pa_malloc(PA_MIB) + 8192;
}
static void *interior_large_end(void)
{
    return (char *)pa_malloc(PA_MIB) + PA_MIB - 16;
}
static void *misaligned(void)
{
    return (char *)pa_malloc(64) + 1;
}

static void *double_small(void)
{
    void *p = pa_malloc(64);
    pa_free(p);
    return p;
}

static void *double_large(void)
{
    void *p = pa_malloc(PA_MIB);
    pa_free(p);
    return p;
}

static void *double_huge(void) /* too large to be kept by the thread: its pages go back at once */
{
    void *p = pa_malloc(64 * PA_MIB);
    pa_free(p);
    return p;
}

static void *double_last_of_span(void) /* the free that empties a span takes it away */
{
    void *p = NULL;
    in_thread(allocate_16, &p);
    pa_free(p);
    pa_free_os_memory();
    return p;
}

static void *double_after_trim(void)
{
    void *p = pa_malloc(20000);
    pa_free(p);
    pa_free_os_memory();
    return p;
}

static void *large_in_other_thread(void)
{
    void *p = pa_malloc(PA_MIB);
    pa_free(p);
    in_thread(freed_by_other, (printf("%p\n", p), fflush(stdout), p));
    return p;
}

static void *never_carved(void)
{
    char *p = pa_malloc(64); /* the first block of a fresh 8 KiB span; 4 KiB are carved at a time */
    return p + 4096 + 1024;
}

static void *above_user_space(void)
{
    return (void *)(((uintptr_t)1 << 47) + 4096);
}
static void *kernel_address(void)
{
    return (void *)0xffffffff81000000u;
}
static void *non_canonical(void)
{
    return (void *)0x8000000000000000u;
}
static void *low_address(void)
{
    return (void *)16;
}

static void *other_arena_page(void) /* in our arena, but in no span */
{
    char *p = pa_malloc(16);
    return (void *)(pa_round_down((uintptr_t)p, PA_ARENA_BYTES) + PA_ARENA_BYTES - 4096);
}

static const struct {
    const char *name;
    picker pick;
} cases[] = {
#define CASE(name) {#name, name}
    CASE(foreign_stack),         CASE(foreign_libc),       CASE(foreign_static),      CASE(interior_small),
    CASE(interior_large),        CASE(interior_large_end), CASE(misaligned),          CASE(double_small),
    CASE(double_large),          CASE(double_huge),        CASE(double_last_of_span), CASE(double_after_trim),
    CASE(large_in_other_thread), CASE(never_carved),       CASE(above_user_space),    CASE(kernel_address),
    CASE(non_canonical),         CASE(low_address),        CASE(other_arena_page),
};

/* Two frees of one block by a thread that does not own it: seen at the latest when the owner collects. */
static void double_remote(void)
{
    void *p = pa_malloc(64), *q = pa_malloc(64);
    printf("%p\n", p);
    fflush(stdout);
    in_thread(freed_by_other, p);
    in_thread(freed_by_other, p);
    for (long i = 0; i < 1000000; i++)
        q = pa_malloc(64);
    REQUIRE(q);
}

static void *free_twice(void *p)
{
    pa_free(p);
    pa_free(p);
    return NULL;
}

/* Both by one thread that does not own it, one right after the other: seen at once. */
static void double_in_outbox(void)
{
    void *p = pa_malloc(64);
    printf("%p\n", p);
    fflush(stdout);
    in_thread(free_twice, p);
}

/* A thread that does not own the span frees a block that was never handed out: seen when the owner collects. */
static void never_carved_remote(void)
{
    char *p = never_carved();
    printf("%p\n", (void *)p);
    fflush(stdout);
    in_thread(freed_by_other, p);
    void *seen = NULL;
    for (long i = 0; i < 2000; i++) { /* handed out now, and again when the tail gets there? */
        void *q = pa_malloc(64);
        if (q == p) {
            REQUIRE(!seen, "%p was handed out twice", q);
            seen = q;
        }
    }
}

static void realloc_foreign(void)
{
    void *p = foreign_libc();
    printf("%p\n", p);
    fflush(stdout);
    p = pa_realloc(p, 200);
    REQUIRE(p);
}

static void usable_size_of_interior(void)
{
    void *p = interior_small();
    printf("%p\n", p);
    fflush(stdout);
    printf("%zu\n", pa_usable_size(p));
}

static void fine(void)
{
    pa_free(NULL);
    pa_free_sized(NULL, 5);
    pa_free_aligned_sized(NULL, 16, 5);
    REQUIRE(pa_usable_size(NULL) == 0);
    for (uintptr_t shift = 0; shift < 64; shift++)
        for (uintptr_t low = 0; low < 3; low++)
            REQUIRE(!pa_owns((void *)(((uintptr_t)1 << shift) + low * 4096 - 1)));
    REQUIRE(!pa_owns(foreign_stack()) && !pa_owns(foreign_libc()) && !pa_owns((void *)UINTPTR_MAX));
    void *p = pa_malloc(16);
    REQUIRE(pa_owns(p));
    for (uintptr_t shift = 0; shift < 64; shift++) /* again with tables in place */
        pa_owns((void *)((uintptr_t)1 << shift));
    for (uintptr_t a = 0; a < (uintptr_t)1 << 48; a += (uintptr_t)1 << 33)
        pa_owns((void *)a);
    pa_free(p);
    heap_must_be_empty();
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "list") == 0) {
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            printf("%s\n", cases[i].name);
        return 0;
    }
    if (strcmp(name, "fine") == 0)
        return fine(), 0;
    if (strcmp(name, "double_remote") == 0)
        return double_remote(), 3;
    if (strcmp(name, "double_in_outbox") == 0)
        return double_in_outbox(), 3;
    if (strcmp(name, "never_carved_remote") == 0)
        return never_carved_remote(), 3;
    if (strcmp(name, "realloc_foreign") == 0)
        return realloc_foreign(), 3;
    if (strcmp(name, "usable_size_of_interior") == 0)
        return usable_size_of_interior(), 3;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (strcmp(name, cases[i].name) == 0) {
            free_it(cases[i].pick());
            return 3; /* it let that pass */
        }
    }
    fprintf(stderr, "no such case: %s\n", name);
    return 2;
}
