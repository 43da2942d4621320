/* sample.c - taking a sample: whose block, from which stack.
 *
 * Owns the interpreter's walker: `walker` is stored last (release) and read first (acquire), so that who sees it sees
 * the ranges, which are written once.  Everything else is the thread's own or behind the profile's lock.  Called with
 * no lock held; what a walk allocates is not sampled (pa_sampling_is_due).
 *
 * A stack has native frames, innermost first, down to the interpreter's loop, and from there the lines of interpreted
 * code: how the loop was called and what lies below it is the same in every stack and says nothing.  Without a walker,
 * or in a thread that runs no interpreted code, all frames are native.
 */
#include "api/sample.h"

#include <errno.h>

#include "base/poison.h"
#include "heap/profile.h"
#include "heap/special.h"
#include "sys/symbols.h"
#include "sys/unwind.h"

enum { NATIVE_MAX = 32, PLACES_MAX = PA_PROFILE_DEPTH_MAX - NATIVE_MAX };

typedef struct stack {
    uint64_t frames[PA_PROFILE_DEPTH_MAX];
    unsigned depth;
} stack;

static struct {
    _Atomic(pa_profile_walker) walker;
    pa_code_range loop, module; /* the function, and the program or library that it is in */
} interpreter;

void pa_sample_set_walker(pa_profile_walker walker, const void *loop)
{
    if (walker && !atomic_load_explicit(&interpreter.walker, memory_order_relaxed)) {
        interpreter.loop = pa_function_range(loop);
        interpreter.module = pa_module_range(loop);
    }
    atomic_store_explicit(&interpreter.walker, walker, memory_order_release);
}

/* ---- Stacks ---- */

static pa_profile_answer add_place(void *context, uint64_t key, const pa_profile_line *line)
{
    stack *places = context;
    uint64_t frame = line ? pa_profile_place_of(line->function, line->function_bytes, line->file, line->file_bytes,
                                                line->line, line->function_line, key)
                          : pa_profile_place_by_key(key);
    if (frame)
        places->frames[places->depth++] = frame;
    else if (!line)
        return PA_PROFILE_UNKNOWN;
    return places->depth < PLACES_MAX ? PA_PROFILE_MORE : PA_PROFILE_ENOUGH;
}

/* How many native frames stand above the interpreter's loop. Compilers cut seldom used parts out of functions: where
 * the loop was not found, those outside the interpreter do. */
static size_t above_loop(const pa_unwinding *native)
{
    for (size_t i = 0; !native->ended && i < native->count; i++)
        if (pa_code_range_has(&interpreter.module, native->out[i]))
            return i;
    return native->count;
}

PA_INLINE void take_stack(stack *out)
{
    uintptr_t frames[NATIVE_MAX];
    pa_unwinding native = {.out = frames, .capacity = NATIVE_MAX};
    stack places = {.depth = 0};
    pa_profile_walker walker = atomic_load_explicit(&interpreter.walker, memory_order_acquire);
    if (walker)
        walker(add_place, &places);
    if (places.depth)
        native.until = interpreter.loop;
    pa_unwind(&native);
    size_t count = places.depth ? above_loop(&native) : native.count;
    out->depth = 0;
    for (size_t i = 0; i < count; i++)
        out->frames[out->depth++] = native.out[i];
    for (unsigned i = 0; i < places.depth; i++)
        out->frames[out->depth++] = places.frames[i];
}

PA_INLINE uint32_t write_down(uint32_t round, size_t nbytes)
{
    stack s;
    int saved_errno = errno;
    take_stack(&s);
    uint32_t record = pa_profile_add(round, nbytes, s.frames, s.depth);
    errno = saved_errno;
    return record;
}

/* ---- Explicit blocks ---- */

void *pa_sample_block(pa_mcache *c, unsigned size_class)
{
    uint32_t round = pa_sampling_is_due(c, pa_class_object_bytes[size_class]);
    if (!round)
        return NULL;
    pa_span *s = pa_mcache_take_sampled(c, size_class);
    if (s)
        pa_span_set_sample(s, write_down(round, pa_class_object_bytes[size_class]));
    else
        pa_profile_lose(0);
    pa_sampling_resume(c);
    return s ? (void *)s->base : NULL;
}

void pa_sample_large(pa_mcache *c, pa_span *s)
{
    size_t nbytes = pa_span_bytes(s);
    if (!pa_sampling_count(c, nbytes))
        return;
    uint32_t round = pa_sampling_is_due(c, nbytes);
    if (!round)
        return;
    pa_span_set_sample(s, write_down(round, nbytes));
    pa_sampling_resume(c);
}

void pa_sample_resized(pa_mcache *c, pa_span *s)
{
    pa_sample_freed(s);
    if (pa_racy_load(&c->sampling))
        pa_sample_large(c, s);
}

bool pa_sample_freed(pa_span *s)
{
    uint32_t record = pa_span_take_sample(s);
    if (record)
        pa_profile_drop(record);
    return record != 0;
}

/* ---- Managed objects ---- */

static void sample_object(pa_proc *p, pa_span *s, uint32_t idx, size_t nbytes)
{
    int64_t left = pa_owner_get(&p->cache.sample_left);
    pa_owner_set(&p->cache.sample_left, INT64_MAX / 2); /* as pa_sampling_is_due */
    uint32_t record = write_down(pa_profile_round_racy(), nbytes);
    if (record && !pa_special_add_sample(p->cache.heap, s, idx, record))
        pa_profile_lose(record);
    pa_owner_set(&p->cache.sample_left, left);
}

void pa_sample_object(pa_proc *p, pa_managed_sampler *m, pa_span *s, uint32_t idx)
{
    size_t nbytes = pa_span_element_bytes(s);
    if (pa_sampling_take(m, s, nbytes))
        sample_object(p, s, idx, nbytes);
}
