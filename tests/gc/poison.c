/* poison.c - uses of memory that is not the program's: AddressSanitizer must see each of them.
 *
 *     poison CASE | allowed | list
 *
 * Every case ends with one bad access; before it prints "now".  allowed: accesses next to those, which are fine.
 */
#include "gc_test.h"

static volatile unsigned char sink;

static void touch(const volatile void *p)
{
    printf("now\n");
    fflush(stdout);
    sink = *(const volatile unsigned char *)p;
}

static void use_at(size_t nbytes, size_t offset)
{
    char *p = must(pa_malloc(nbytes));
    char *keep = must(pa_malloc(nbytes));
    memset(p, 1, nbytes);
    pa_free(p);
    touch(p + offset);
    pa_free(keep);
}

static void freed_first_word(void) { use_at(64, 0); }
static void freed_middle(void) { use_at(64, 40); }
static void freed_8_bytes(void) { use_at(8, 3); }
static void freed_large(void) { use_at(200000, 150000); }
static void freed_huge(void) { use_at(8 * PA_MIB, 5 * PA_MIB); }

static void *free_it(void *p)
{
    pa_free(p);
    return NULL;
}

static void freed_by_other_thread(void)
{
    char *p = must(pa_malloc(100));
    join(start(free_it, p));
    touch(p + 60);
}

static void freed_write(void)
{
    char *p = must(pa_malloc(48));
    pa_free(p);
    printf("now\n");
    fflush(stdout);
    *(volatile char *)(p + 47) = 1;
}

static void behind_the_last_block(void)
{
    char *p = must(pa_malloc(1000)); /* the first of its span: the next slot was carved and never handed out */
    touch(p + pa_usable_size(p) + 8);
}

static void shrunk(void)
{
    char *p = must(pa_malloc(300000));
    char *q = must(pa_realloc(p, 100000));
    touch(q + 200000);
}

static void *flushed(void *out)
{
    char *p = must(pa_malloc(40000));
    pa_free(p);
    *(char **)out = p;
    return NULL; /* the thread's exit gives its spans back */
}

static void free_pages(void)
{
    char *p;
    join(start(flushed, &p));
    touch(p + 20000);
}

/* A managed object that nothing leads to any more. */
static char *collected(size_t nbytes)
{
    enter();
    void *slots[1];
    pa_frame frame;
    pa_frame_push(&frame, slots, 1);
    slots[0] = must(pa_new_bytes(nbytes)); /* keeps the span */
    char *p = must(nbytes < 1000 ? pa_new_bytes(nbytes) : pa_new_pointers(nbytes / 8));
    memset(p, 0, nbytes);
    pa_gc();
    memset(slots[0], 1, nbytes);
    pa_frame_pop(&frame);
    pa_leave();
    return p;
}

static void swept_small(void) { touch(collected(64) + 8); }
static void swept_tiny(void) { touch(collected(16) + 15); }
static void swept_large(void) { touch(collected(100000) + 77777); }

static void never_handed_out(void)
{
    enter();
    char *p = must(pa_new_bytes(512));
    touch(p + 512);
}

static void allowed(void)
{
    for (size_t n = 1; n < 400000; n = n * 5 / 4 + 1) {
        char *p = must(pa_malloc(n)), *q = must(pa_calloc(1, n)), *r = must(pa_memalign(256, n));
        memset(p, 1, pa_usable_size(p));
        memset(q, 1, pa_usable_size(q));
        memset(r, 1, pa_usable_size(r));
        p = must(pa_realloc(p, n * 2));
        memset(p, 1, pa_usable_size(p));
        p = must(pa_realloc(p, n / 2 + 1));
        memset(p, 1, pa_usable_size(p));
        pa_free(p);
        join(start(free_it, q));
        pa_free(r);
        enter();
        void *slots[3];
        pa_frame frame;
        pa_frame_push(&frame, slots, 3);
        for (int round = 0; round < 3; round++) {
            memset(slots[0] = must(pa_new_bytes(n)), round, n);
            require_zero(slots[1] = must(pa_new_pointers(n)), n);
            memset(slots[2] = must(pa_new_conservative(n)), 0, n);
            if (n % 3 == 0)
                pa_gc();
            memset(slots[0], 2, n);
            require_zero(slots[1], n);
        }
        pa_frame_pop(&frame);
        pa_leave();
    }
    pa_gc(); /* and whatever cycle was under way */
    check_heap();
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
#define CASE(name) {#name, name}
    CASE(freed_first_word), CASE(freed_middle), CASE(freed_8_bytes), CASE(freed_large), CASE(freed_huge),
    CASE(freed_by_other_thread), CASE(freed_write), CASE(behind_the_last_block), CASE(shrunk), CASE(free_pages),
    CASE(swept_small), CASE(swept_tiny), CASE(swept_large), CASE(never_handed_out), CASE(allowed),
};

int main(int argc, char **argv)
{
    REQUIRE(argc == 2, "which case?");
    bool found = false;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (strcmp(argv[1], "list") == 0)
            printf("%s\n", cases[i].name);
        if (strcmp(argv[1], cases[i].name) == 0) {
            found = true;
            cases[i].run();
        }
    }
    REQUIRE(found || strcmp(argv[1], "list") == 0, "no such case");
    return 0;
}
