/* generations.c - what a generational or moving collector would save and cost, in operations of this heap.
 *
 *     generations STEP OPS
 *
 * STEP: empty and empty_alloc (the loops of stores and of allocations alone), store (a plain pointer store),
 * barrier_off and barrier_on (pa_store outside and inside a mark phase), cards (a store and the marking of a card, as
 * generational barriers do on every store), bump (a pointer bump with a limit check, zeroed), managed (pa_new),
 * explicit (pa_malloc and pa_free of the block before). Prints ns an operation.
 *
 * barrier_on keeps the mark phase open by allocating what it marks in steps: the loop runs while phase is 2
 * and counts only that.
 */
#include <sys/mman.h>

#include "include/pyalloc.h"
#include "observe.h"

enum { SLOTS = 1024, OBJECT_BYTES = 48, CARD_SHIFT = 9, BATCH = 1000, LIVE = 400000 };

static unsigned char *cards;
static char *bump_next, *bump_end;

static __attribute__((noinline)) void store_plain(void **slot, void *value)
{
    __atomic_store_n(slot, value, __ATOMIC_RELEASE);
}

static __attribute__((noinline)) void store_card(void **slot, void *value)
{
    __atomic_store_n(slot, value, __ATOMIC_RELEASE);
    cards[(uintptr_t)slot >> CARD_SHIFT & ((1 << 20) - 1)] = 1;
}

static __attribute__((noinline)) void *bump_alloc(size_t nbytes)
{
    if ((size_t)(bump_end - bump_next) < nbytes)
        bump_next = bump_end - (32 << 20); /* the nursery is empty again: copying out is not counted */
    void *p = bump_next;
    bump_next += nbytes;
    memset(p, 0, OBJECT_BYTES);
    return p;
}

static __attribute__((noinline)) void nothing(void **slot, void *value)
{
    __asm__ volatile("" : : "r"(slot), "r"(value) : "memory");
}

static const pa_type *the_type;

static void *managed_alloc(size_t nbytes)
{
    (void)nbytes;
    return pa_new(the_type);
}

static __attribute__((noinline)) void *no_object(size_t nbytes)
{
    __asm__ volatile("" : : "r"(nbytes) : "memory");
    return NULL;
}

static uint64_t timed_stores(void (*store)(void **, void *), void **slots, void *const *values, uint64_t ops)
{
    uint64_t from_ns = now_ns();
    for (uint64_t i = 0; i < ops; i++)
        store(&slots[i % SLOTS], values[i * 7 % SLOTS]);
    return now_ns() - from_ns;
}

static uint64_t timed_allocations(void *(*allocate)(size_t), uint64_t ops)
{
    uint64_t from_ns = now_ns();
    for (uint64_t i = 0; i < ops; i++)
        __asm__ volatile("" : : "r"(allocate(OBJECT_BYTES)) : "memory");
    return now_ns() - from_ns;
}

/* Batches of stores while the collector marks; *done counts those that lay wholly in a mark phase. */
static uint64_t timed_while_marking(void **slots, void *const *values, uint64_t ops, uint64_t *done)
{
    uint64_t ns = 0;
    pa_gc_stats s;
    while (*done < ops) {
        pa_read_gc_stats(&s);
        uint64_t cycle = s.cycles;
        if (s.phase != 2) {
            pa_new_bytes(4096); /* on to the trigger */
            continue;
        }
        uint64_t batch_ns = timed_stores(pa_store, slots, values, BATCH);
        pa_read_gc_stats(&s);
        if (s.phase == 2 && s.cycles == cycle) {
            ns += batch_ns;
            *done += BATCH;
        }
        pa_safepoint();
    }
    return ns;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    const char *step = argv[1];
    uint64_t ops = (uint64_t)atoll(argv[2]), ns = 0, done = ops;
    const pa_type *type = pa_type_new(OBJECT_BYTES, (size_t[]){0, 8}, 2);
    void *held[3]; /* slots, values, live */
    pa_frame frame;
    cards = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    bump_next = mmap(NULL, 32 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    bump_end = bump_next + (32 << 20);
    if (!pa_enter() || !type || cards == MAP_FAILED)
        give_up("start");
    pa_frame_push(&frame, held, 3);
    held[0] = pa_new_pointers(SLOTS);
    held[1] = pa_new_pointers(SLOTS);
    bool marks = strcmp(step, "barrier_on") == 0;
    held[2] = pa_new_pointers(marks ? LIVE : 1);
    for (size_t i = 0; i < SLOTS; i++)
        pa_store((void **)held[1] + i, pa_new(type));
    for (size_t i = 0; marks && i < LIVE; i++)
        pa_store((void **)held[2] + i, pa_new(type));
    if (!marks && strcmp(step, "managed") != 0)
        pa_set_gc_percent(-1);
    void **slots = held[0], **values = held[1];
    if (strcmp(step, "empty") == 0) {
        ns = timed_stores(nothing, slots, values, ops);
    } else if (strcmp(step, "store") == 0) {
        ns = timed_stores(store_plain, slots, values, ops);
    } else if (strcmp(step, "barrier_off") == 0) {
        ns = timed_stores(pa_store, slots, values, ops);
    } else if (strcmp(step, "cards") == 0) {
        ns = timed_stores(store_card, slots, values, ops);
    } else if (marks) {
        done = 0;
        ns = timed_while_marking(slots, values, ops, &done);
    } else if (strcmp(step, "empty_alloc") == 0) {
        ns = timed_allocations(no_object, ops);
    } else if (strcmp(step, "bump") == 0) {
        ns = timed_allocations(bump_alloc, ops);
    } else if (strcmp(step, "managed") == 0) {
        the_type = type;
        ns = timed_allocations(managed_alloc, ops);
    } else if (strcmp(step, "explicit") == 0) {
        uint64_t from_ns = now_ns();
        void *before = NULL;
        for (uint64_t i = 0; i < ops; i++) {
            pa_free(before);
            before = pa_malloc(OBJECT_BYTES);
        }
        ns = now_ns() - from_ns;
    } else {
        return 2;
    }
    pa_frame_pop(&frame);
    pa_leave();
    printf("{\"ops\": %llu, \"ns\": %.4f}\n", (unsigned long long)done, (double)ns / (double)done);
    return 0;
}
