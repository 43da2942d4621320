/* oom.c - managed objects without memory: NULL and ENOMEM, nothing lost, and everything works again afterwards.
 *
 *     oom case=fill MIB=300 [mode=4]      sets RLIMIT_AS that far above what is mapped
 *     oom case=fresh [mode=4]             expects to be started under a limit (ulimit -v)
 *     oom case=absurd                     sizes that cannot be
 *     oom case=workbufs shape=0..3 [mode=4] marking with the few work buffers that need no memory
 *     oom case=inject [most=400]          white-box: the n-th call to the OS fails and all after, for every n
 */
#include "gc_test.h"

#include <sys/resource.h>
#include <sys/wait.h>

#include "sys/vm.h"
#include "world/proc.h"

static const pa_type *type;
static volatile size_t huge = SIZE_MAX;
static unsigned long refused;

static void *checked(void *p)
{
    if (!p) {
        REQUIRE(errno == ENOMEM, "errno %d", errno);
        refused++;
    }
    errno = 0;
    return p;
}

/* ---- Sizes that cannot be ---- */

static void absurd(void)
{
    void *slots[1];
    pa_frame frame;
    type = node_type(1);
    enter();
    pa_frame_push(&frame, slots, 1);
    slots[0] = new_node(type, 1);
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 7, SIZE_MAX - 8191, (size_t)1 << 63, (size_t)1 << 62,
                                   PTRDIFF_MAX, (size_t)1 << 48, ((size_t)1 << 47) - 1};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    collecting other; /* also while marking: a refused size is not paid for */
    start_collecting(&other);
    for (size_t i = 0; i < SIZES || atomic_load(&other.cycles) < 20; i++, pa_safepoint()) {
        size_t n = sizes[i % SIZES] & huge;
        unsigned long before = refused;
        errno = 0;
        REQUIRE(!checked(pa_new_bytes(n)) && !checked(pa_new_conservative(n)) && !checked(pa_new_pointers(n)));
        REQUIRE(!checked(pa_new_array(type, n)) && !checked(pa_new_pointers(n / 8)));
        REQUIRE(!checked(pa_new_array(type, n / sizeof(node))));
        REQUIRE(refused == before + 6);
    }
    pa_leave();
    stop_collecting(&other);
    enter();
    /* count * bytes overflows to something small */
    size_t wraps = ((size_t)1 << 61) & huge;
    REQUIRE(!checked(pa_new_array(type, wraps)) && !checked(pa_new_pointers(wraps)));
    static const size_t good = 8, odd = 4, beyond = 16, twice[2] = {8, 8}, falling[2] = {8, 0};
    errno = 0;
    REQUIRE(!pa_type_new(0, NULL, 0) && errno == EINVAL);
    REQUIRE(!pa_type_new(20, &good, 1) && !pa_type_new(16, &odd, 1) && !pa_type_new(16, &beyond, 1));
    REQUIRE(!pa_type_new(24, twice, 2) && !pa_type_new(24, falling, 2) && errno == EINVAL);
    met_as(slots[0], 1);
    pa_gc();
    met_as(slots[0], 1);
    pa_frame_pop(&frame);
    pa_leave();
    managed_heap_must_be_empty();
}

/* ---- Until nothing is left ---- */

static void limit_above(size_t mib)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    REQUIRE(f && fscanf(f, "%lu", &pages) == 1);
    fclose(f);
    struct rlimit limit;
    limit.rlim_cur = limit.rlim_max = pages * (size_t)sysconf(_SC_PAGESIZE) + mib * PA_MIB;
    REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
}

/* A list of blocks of nbytes in *head until there is no memory; the first word of a block is the next. */
static size_t fill_with(void **slots, size_t nbytes)
{
    size_t blocks = 0;
    for (;; blocks++) {
        slots[1] = checked(pa_new_pointers(nbytes / sizeof(void *)));
        if (!slots[1])
            return blocks;
        require_zero(slots[1], nbytes < 4096 ? nbytes : 4096);
        pa_store(slots[1], slots[0]);
        slots[0] = slots[1];
    }
}

static void fill(int mode)
{
    void *slots[2];
    pa_frame frame;
    struct rlimit limit;
    REQUIRE(getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY, "start this under ulimit -v");
    set_mode(mode);
    type = node_type(1);
    enter();
    pa_frame_push(&frame, slots, 2);
    static const size_t sizes[] = {64 * PA_KIB, PA_MIB, 256, 20 * PA_MIB};
    size_t first_blocks[4];
    errno = 0;
    for (int round = 0; round < 8; round++) {
        size_t nbytes = sizes[round % 4];
        uint64_t before = gc_stats().forced_cycles;
        size_t blocks = fill_with(slots, nbytes), met_blocks = 0;
        REQUIRE(blocks * nbytes > PA_MIB, "only %zu blocks of %zu", blocks, nbytes);
        /* It goes on saying so. The first refusal of all collects, but while that is in vain not every one does. */
        enum { AGAIN = 300 };
        uint64_t forced = gc_stats().forced_cycles;
        REQUIRE(round > 0 || forced > before, "refused without a collection");
        for (int i = 0; i < AGAIN; i++)
            checked(pa_new_bytes(100000));
        REQUIRE(gc_stats().forced_cycles - forced < AGAIN, "a collection for each refused call");
        for (void *p = slots[0]; p; p = *(void **)p)
            met_blocks++;
        REQUIRE(met_blocks == blocks, "%zu of %zu blocks", met_blocks, blocks);
        slots[0] = slots[1] = NULL;
        pa_gc();
        check_heap();
        pa_gc_stats s = gc_stats();
        REQUIRE(s.heap_live_bytes == 0, "%" PRIu64 " bytes live", s.heap_live_bytes);
        new_node(type, 1); /* later calls work */
        if (round < 4)
            first_blocks[round] = blocks;
        else /* nothing was lost on the way; fragments may cost something */
            REQUIRE(blocks * 10 >= first_blocks[round % 4] * 8, "%zu blocks of %zu bytes, %zu at first", blocks,
                    nbytes, first_blocks[round % 4]);
    }
    REQUIRE(refused >= 8);
    pa_frame_pop(&frame);
    pa_leave();
    managed_heap_must_be_empty();
}

/* ---- Without memory for work buffers ---- */

enum { SHAPES = 4, SHAPE_NODES = 60000, FAN_OUT = 3000, LINK_SLOTS = 500, HUGE_SLOTS = 300000 };

/* A fresh object with count pointers, in slots[2]; slots[2..3] are ours. */
static void **make_pointers(void **slots, size_t count)
{
    return slots[2] = must(pa_new_pointers(count));
}

/* In slots[0]: a structure of SHAPE_NODES nodes of two pointers and 16 bytes of data, or thereabouts. */
static size_t build_shape(int shape, void **slots)
{
    size_t made = 0;
    slots[0] = slots[1] = NULL;
    if (shape == 0) { /* one wide object: all children grey at once */
        slots[0] = make_pointers(slots, SHAPE_NODES);
        for (; made < SHAPE_NODES; made++)
            pa_store((void **)slots[0] + made, must(new_node(type, (long)made)));
    } else if (shape == 1) { /* wide objects under wide objects */
        slots[0] = make_pointers(slots, FAN_OUT);
        for (size_t i = 0; i < FAN_OUT; i++) {
            void **inner = make_pointers(slots, SHAPE_NODES / FAN_OUT * 20);
            pa_store((void **)slots[0] + i, inner);
            for (size_t k = 0; k < SHAPE_NODES / FAN_OUT; k++, made++)
                pa_store((void **)slots[2] + k * 20, must(new_node(type, (long)made)));
        }
    } else if (shape == 2) { /* a list of wide objects */
        while (made < SHAPE_NODES) { /* the next in the last slot: the others stay grey meanwhile */
            void **link = make_pointers(slots, LINK_SLOTS);
            pa_store(link + LINK_SLOTS - 1, slots[0]);
            slots[0] = link;
            for (int k = 0; k < LINK_SLOTS - 1; k += 7)
                pa_store(link + k, must(new_node(type, (long)(made++))));
        }
    } else { /* large objects, scanned in oblets, below each other */
        for (int i = 0; i < 6; i++) {
            void **large = make_pointers(slots, HUGE_SLOTS);
            pa_store(large + HUGE_SLOTS - 1, slots[0]);
            slots[0] = large;
            for (size_t k = 0; k < SHAPE_NODES / 6; k++, made++)
                pa_store(large + k * 29, must(new_node(type, (long)made)));
        }
    }
    slots[2] = NULL;
    return made;
}

static void workbufs(int mode, int shape)
{
    void *slots[4];
    pa_frame frame;
    pa_workpool *pool = &pa_the_procs.workpool;
    set_mode(mode);
    pool->most = 1; /* the static ones are there */
    type = node_type(1);
    pa_gc_set_checkmark(true);
    enter();
    pa_frame_push(&frame, slots, 4);
    REQUIRE(build_shape(shape, slots) >= SHAPE_NODES);
    uint64_t live = 0;
    for (int round = 0; round < 4; round++) {
        uint64_t before = atomic_load(&pool->overflow_count);
        if (round == 3)
            pool->most = 0;
        pa_gc();
        bool overflowed = atomic_load(&pool->overflow_count) > before;
        REQUIRE(overflowed || round == 3, "there were buffers enough");
        check_heap();
        uint64_t now = gc_stats().heap_marked_bytes; /* the books are right too */
        REQUIRE(round == 0 || now == live, "%" PRIu64 " bytes live, then %" PRIu64, live, now);
        live = now;
    }
    slots[0] = NULL;
    pa_gc();
    REQUIRE(gc_stats().heap_marked_bytes < live / 10);
    pa_frame_pop(&frame);
    pa_leave();
    managed_heap_must_be_empty();
}

/* ---- Every call to the OS ---- */

#if PA_WHITEBOX

enum { THINGS = 40, CLEAN_IN_A_ROW = 3, PASSED = 0, REFUSED_SOME = 10 };

static void *in_thread(void *argument)
{
    errno = 0;
    if (!pa_enter()) {
        REQUIRE(errno == ENOMEM, "errno %d", errno);
        __atomic_fetch_add(&refused, 1, __ATOMIC_RELAXED);
        return argument;
    }
    for (size_t i = 0; i < 100; i++)
        if (!pa_new_bytes(i * 50 + 1))
            __atomic_fetch_add(&refused, 1, __ATOMIC_RELAXED);
    pa_leave();
    return argument;
}

static void scenario(void)
{
    static void *slots[THINGS];
    static void *range[64];
    pa_frame frame;
    errno = 0;
    if (!pa_enter()) {
        REQUIRE(errno == ENOMEM, "errno %d", errno);
        refused++;
        return;
    }
    pa_frame_push(&frame, slots, THINGS);
    size_t offset = 16;
    const pa_type *t = checked((void *)(uintptr_t)pa_type_new(24, &offset, 1));
    for (size_t i = 0; i < THINGS; i++) {
        size_t n = (i * i * i * 3 + 3) & ~(size_t)1;
        switch (i % 4) {
        case 0:
            slots[i] = t ? checked(pa_new_array(t, i * 20 + 1)) : NULL;
            break;
        case 1:
            slots[i] = checked(pa_new_bytes(n));
            break;
        case 2:
            slots[i] = checked(pa_new_pointers(n));
            break;
        default:
            slots[i] = checked(pa_new_conservative(n));
            break;
        }
        if (slots[i]) {
            pa_weak *w = checked(pa_weak_new(slots[i]));
            if (w)
                REQUIRE(pa_weak_get(w) == slots[i]);
            pa_weak_free(w);
            int error = pa_cleanup_add(slots[i], i);
            REQUIRE(error == 0 || error == ENOMEM, "%d", error);
            refused += error != 0;
        }
        pa_handle *h = checked(pa_handle_new(slots[i]));
        if (h)
            REQUIRE(pa_handle_get(h) == slots[i]);
        pa_handle_free(h);
    }
    int error = pa_roots_add(range, sizeof range, PA_ROOTS_CONSERVATIVE);
    REQUIRE(error == 0 || error == ENOMEM, "%d", error);
    refused += error != 0;
    for (size_t i = 2; i < THINGS; i += 4)
        if (slots[i])
            pa_store(slots[i], slots[i - 1]);
    pa_gc();
    for (size_t i = 2; i < THINGS; i += 4)
        REQUIRE(!slots[i] || *(void **)slots[i] == slots[i - 1]);
    pa_leave();
    join(start(in_thread, NULL));
    pa_gc();
    check_heap();
    REQUIRE(pa_enter());
    pa_frame_pop(&frame);
    pa_leave();
    if (!error)
        REQUIRE(pa_roots_remove(range) == 0);
    pa_gc();
    check_heap();
    uint64_t ids[THINGS];
    while (pa_cleanup_take(ids, THINGS)) {
    }
}

static void run_child(long nth)
{
    pa_vm_inject_failure(nth);
    scenario();
    unsigned long seen = refused;
    refused = 0;
    pa_vm_inject_failure(0);
    scenario();
    REQUIRE(refused == 0, "%lu refused by a kind OS after failure %ld", refused, nth);
    managed_heap_must_be_empty();
    _exit(seen ? REFUSED_SOME : PASSED);
}

static void inject(long most)
{
    long n = 1, clean = 0, failing = 0;
    for (; clean < CLEAN_IN_A_ROW; n++) {
        REQUIRE(n <= most, "still failing at call %ld", n);
        pid_t pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
            alarm(30);
            run_child(n);
        }
        int status;
        REQUIRE(waitpid(pid, &status, 0) == pid);
        REQUIRE(WIFEXITED(status) && (WEXITSTATUS(status) == PASSED || WEXITSTATUS(status) == REFUSED_SOME),
                "call %ld: %#x", n, (unsigned)status);
        bool some = WEXITSTATUS(status) == REFUSED_SOME;
        failing += some;
        clean = some ? 0 : clean + 1;
    }
    REQUIRE(failing >= 8, "only %ld calls could fail", failing);
    refused = (unsigned long)failing;
}
#else
static void inject(long most) { REQUIRE(!most, "no injection in this build"); }
#endif

int main(int argc, char **argv)
{
    const char *name = word_option(argc, argv, "case");
    int mode = (int)option(argc, argv, "mode", PA_GC_CONCURRENT);
    REQUIRE(name, "which case?");
    if (strcmp(name, "fill") == 0) {
        enter(); /* the first arena and the tables are there; only growth is refused */
        must(pa_new_bytes(100));
        pa_leave();
        limit_above((size_t)option(argc, argv, "MIB", 300));
        fill(mode);
    } else if (strcmp(name, "fresh") == 0) {
        fill(mode);
    } else if (strcmp(name, "workbufs") == 0) {
        workbufs(mode, (int)option(argc, argv, "shape", 0));
    } else if (strcmp(name, "absurd") == 0) {
        absurd();
    } else if (strcmp(name, "inject") == 0) {
        inject(option(argc, argv, "most", 400));
    } else {
        REQUIRE(false, "no such case");
    }
    printf("oom: %s: %lu refused\n", name, refused);
    return 0;
}
