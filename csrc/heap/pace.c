/* pace.c - the sliding window of pace.h.
 *
 * Owns nothing.  The last five seconds' work is kept in slots of a quarter of a second; what the window still has
 * room for, divided by what a MiB cost lately, is how much may be released at once.  So a process that was quiet
 * may release a lot in one go, and no five seconds cost more than their share, which a bucket that is filled at
 * a constant rate would let happen (its content and its rate add up).
 *
 * Invariant: total_ns is the sum of the slots; slots older than the window are 0.
 * Compare Go's scavenger, which sleeps in proportion to the time it worked (runtime/mgcscavenge.go).
 */
#include "heap/pace.h"

enum { FIRST_NS_PER_MIB = 200000, MIN_NS_PER_MIB = 1000, MEASURED_FROM_BYTES = 256 * 1024 };

/* Forgets what lies before the window. A clock that runs backwards stands still here. */
static void advance(pa_pace *p, uint64_t now_ns)
{
    uint64_t slot = now_ns / PA_PACE_SLOT_NS;
    if (slot <= p->newest)
        return;
    uint64_t gone = slot - p->newest < PA_PACE_SLOTS ? slot - p->newest : PA_PACE_SLOTS;
    for (uint64_t i = 1; i <= gone; i++) {
        uint64_t *old = &p->work_ns[(p->newest + i) % PA_PACE_SLOTS];
        p->total_ns -= *old;
        *old = 0;
    }
    p->newest = slot;
}

static uint64_t cost_of(const pa_pace *p, uint64_t nbytes)
{
    uint64_t ns_per_mib = p->ns_per_mib ? p->ns_per_mib : FIRST_NS_PER_MIB;
    return (uint64_t)((double)nbytes / (double)PA_MIB * (double)ns_per_mib);
}

/* A two-hundredth of it stays for what is measured only after it happened. */
static uint64_t window_share_ns(unsigned percent)
{
    return PA_PACE_WINDOW_NS / 20000 * 199 * percent;
}

/* Work that must be affordable before anything is begun; never more than a whole share, so that a machine on which a
 * MiB costs that much does not wait for ever. */
static uint64_t least_ns(const pa_pace *p, unsigned percent)
{
    uint64_t ns = cost_of(p, PA_PACE_LEAST_BYTES);
    return ns < window_share_ns(percent) ? ns : window_share_ns(percent);
}

uint64_t pa_pace_bytes(pa_pace *p, uint64_t now_ns, unsigned percent, uint64_t most)
{
    advance(p, now_ns);
    uint64_t share_ns = window_share_ns(percent), left_ns = p->total_ns < share_ns ? share_ns - p->total_ns : 0;
    if (left_ns && cost_of(p, most) <= left_ns) /* what costs less than a nanosecond waits for its share, too */
        return most;
    if (left_ns < least_ns(p, percent))
        return 0;
    uint64_t affordable = (uint64_t)((double)most * (double)left_ns / (double)cost_of(p, most));
    uint64_t least = most < PA_PACE_LEAST_BYTES ? most : PA_PACE_LEAST_BYTES;
    return affordable < least ? least : affordable;
}

uint64_t pa_pace_rest_ns(pa_pace *p, uint64_t now_ns, unsigned percent)
{
    advance(p, now_ns);
    uint64_t share_ns = window_share_ns(percent), most_ns = share_ns - least_ns(p, percent);
    uint64_t total_ns = p->total_ns, oldest = p->newest + 1; /* of the window, by number less PA_PACE_SLOTS */
    for (; total_ns > most_ns; oldest++)
        total_ns -= p->work_ns[oldest % PA_PACE_SLOTS];
    /* The slot before `oldest` was the last that had to go; it goes when the clock reaches its next lap. */
    uint64_t free_at_ns = (oldest - 1) * PA_PACE_SLOT_NS;
    return total_ns == p->total_ns || free_at_ns <= now_ns ? 0 : free_at_ns - now_ns;
}

void pa_pace_spent(pa_pace *p, uint64_t now_ns, uint64_t work_ns, uint64_t nbytes)
{
    advance(p, now_ns);
    p->work_ns[p->newest % PA_PACE_SLOTS] += work_ns;
    p->total_ns += work_ns;
    if (nbytes < MEASURED_FROM_BYTES)
        return;
    uint64_t cost = (uint64_t)((double)work_ns * (double)PA_MIB / (double)nbytes);
    uint64_t known = p->ns_per_mib ? p->ns_per_mib : cost;
    /* Dearer than known counts at once for half, cheaper for a quarter: rather too careful. */
    known = cost > known ? (known + cost) / 2 : (3 * known + cost) / 4;
    p->ns_per_mib = known > MIN_NS_PER_MIB ? known : MIN_NS_PER_MIB;
}
