/* gc_test.h - what the collector's test programs share: options, modes, entering, objects that know themselves.
 *
 * Options are written name=value in any order.  Only the public interface is used here, so that the plain build
 * tests what users get; white-box parts stand in the programs under #if PA_WHITEBOX.
 */
#ifndef PA_GC_TEST_H
#define PA_GC_TEST_H

#include <inttypes.h>
#include <time.h>

#include "base/config.h"
#include "ctest.h"
#include "include/pyalloc.h"

/* ---- Options ---- */

static inline long option(int argc, char **argv, const char *name, long otherwise)
{
    size_t n = strlen(name);
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], name, n) == 0 && argv[i][n] == '=')
            return strtol(argv[i] + n + 1, NULL, 0);
    return otherwise;
}

/* The word behind name=, or NULL. */
static inline const char *word_option(int argc, char **argv, const char *name)
{
    size_t n = strlen(name);
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], name, n) == 0 && argv[i][n] == '=')
            return argv[i] + n + 1;
    return NULL;
}

static inline double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- Modes ---- */

enum { MODES = PA_GC_CONCURRENT + 1 };

static const char *const mode_names[MODES] = {"serial", "parallel", "concurrent-1.5", "concurrent-1.6",
                                              "concurrent"};

static inline void set_mode(int mode)
{
    REQUIRE(pa_set_gc_mode(mode) >= 0, "mode %d", mode);
    pa_gc_stats s;
    pa_read_gc_stats(&s);
    REQUIRE(s.mode == mode, "%d is on, not %d", s.mode, mode);
}

static inline pa_gc_stats gc_stats(void)
{
    pa_gc_stats s;
    pa_read_gc_stats(&s);
    return s;
}

/* ---- Inside ---- */

static inline void enter(void) { REQUIRE(pa_enter(), "errno %d", errno); }

static inline void *must(void *p)
{
    REQUIRE(p, "errno %d", errno);
    return p;
}

/* A slot that several threads use: what they store with pa_store. */
static inline void *load(void *const *slot) { return __atomic_load_n(slot, __ATOMIC_ACQUIRE); }

/* A slot that is written plainly while the collector may read it: the same instruction as a plain store, and a
 * word that TSan can see. */
static inline void store_plainly(void **slot, void *value) { __atomic_store_n(slot, value, __ATOMIC_RELAXED); }
static inline void *load_plainly(void *const *slot) { return __atomic_load_n(slot, __ATOMIC_RELAXED); }

static inline pthread_t start(void *(*body)(void *), void *argument)
{
    pthread_t id;
    int error = pthread_create(&id, NULL, body, argument);
    REQUIRE(error == 0, "%s", strerror(error));
    return id;
}

static inline void join(pthread_t id) { REQUIRE(pthread_join(id, NULL) == 0); }

/* ---- Another thread that collects all the time ---- */

typedef struct collecting {
    pthread_t id;
    atomic_bool stop;
    atomic_ulong cycles;
} collecting;

static void *collect_always(void *argument)
{
    collecting *c = argument;
    while (!atomic_load_explicit(&c->stop, memory_order_relaxed)) {
        pa_gc();
        atomic_fetch_add(&c->cycles, 1);
    }
    return NULL;
}

static inline void start_collecting(collecting *c)
{
    atomic_init(&c->stop, false);
    atomic_init(&c->cycles, 0);
    c->id = start(collect_always, c);
}

static inline unsigned long stop_collecting(collecting *c)
{
    atomic_store(&c->stop, true);
    join(c->id);
    return atomic_load(&c->cycles);
}

/* ---- Objects that know themselves: id and a check word over it, to be met at every access ---- */

typedef struct node {
    uint64_t id;
    uint64_t check;
    void *slots[];
} node;

enum { NODE_SLOTS_MAX = 16 };

static inline uint64_t check_of(uint64_t id) { return (id ^ 0x5bd1e995a3c2f17bu) * 0x9e3779b97f4a7c15u | 1; }

/* The type of a node with so many slots. */
static inline const pa_type *node_type(size_t slots)
{
    size_t offsets[NODE_SLOTS_MAX];
    REQUIRE(slots <= NODE_SLOTS_MAX);
    for (size_t i = 0; i < slots; i++)
        offsets[i] = offsetof(node, slots) + i * sizeof(void *);
    const pa_type *type = pa_type_new(sizeof(node) + slots * sizeof(void *), offsets, slots);
    REQUIRE(type, "errno %d", errno);
    return type;
}

static inline node *new_node(const pa_type *type, uint64_t id)
{
    node *n = must(pa_new(type));
    require_zero(n, pa_type_bytes(type));
    n->id = id;
    n->check = check_of(id);
    return n;
}

/* p is a node, whole, and not one that was freed and made anew as something else. */
static inline node *met(void *p)
{
    node *n = p;
    REQUIRE(n && n->check == check_of(n->id), "%p: id %#" PRIx64 " check %#" PRIx64, p, n ? n->id : 0,
            n ? n->check : 0);
    return n;
}

static inline node *met_as(void *p, uint64_t id)
{
    node *n = met(p);
    REQUIRE(n->id == id, "%p is %#" PRIx64 ", not %#" PRIx64, p, n->id, id);
    return n;
}

/* ---- The heap ---- */

/* No other thread may be inside or in the allocator, and no collection asked for meanwhile. */
static inline void check_heap(void)
{
    char broken[300];
    REQUIRE(pa_heap_check(broken, sizeof broken) == 0, "%s", broken);
}

/* No roots are left and no thread is inside: nothing managed may be alive after two cycles. */
static inline void managed_heap_must_be_empty(void)
{
    pa_gc();
    pa_gc();
    pa_gc_stats s = gc_stats();
    REQUIRE(s.heap_marked_bytes == 0, "%" PRIu64 " bytes marked", s.heap_marked_bytes);
    REQUIRE(s.heap_live_bytes == 0, "%" PRIu64 " bytes live", s.heap_live_bytes);
    REQUIRE(s.mallocs == s.frees, "%" PRIu64 " allocated %" PRIu64 " freed", s.mallocs, s.frees);
    REQUIRE(s.weak_handles == 0, "%" PRIu64 " weak handles", s.weak_handles);
    REQUIRE(s.phase == 0, "phase %u", s.phase);
    check_heap();
}

#endif
