/* limiter.c - the bucket of limiter.h.
 *
 * Owns a pa_limiter of its caller's.  One second of processor time a processor may be spent above the half
 * before it limits; it limits until the bucket has leaked to nine tenths, so that it does not flap.
 * Without a cap, a memory limit below what is live would turn a program into one long collection.
 */
#include "gc/limiter.h"

static const uint64_t second_ns = 1000000000u;

void pa_limiter_init(pa_limiter *l, unsigned processors)
{
    *l = (pa_limiter){.capacity_ns = processors * second_ns};
}

void pa_limiter_add(pa_limiter *l, uint64_t gc_ns, uint64_t program_ns)
{
    if (gc_ns >= program_ns) {
        uint64_t more = gc_ns - program_ns;
        l->fill_ns = l->capacity_ns - l->fill_ns < more ? l->capacity_ns : l->fill_ns + more;
    } else {
        uint64_t less = program_ns - gc_ns;
        l->fill_ns = l->fill_ns < less ? 0 : l->fill_ns - less;
    }
    if (l->fill_ns == l->capacity_ns)
        l->limiting = true;
    else if (l->fill_ns < l->capacity_ns / 10 * 9)
        l->limiting = false;
}
