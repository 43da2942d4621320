/* pace.h - how much may be released now, so that releasing costs at most a share of one processor.
 *
 * Pure: no clock, no heap, no lock; the caller guards it and says what time it is.  Two are used: the background
 * thread's (gc/scavenge.c) and that of threads that release because of the memory limit (heap/release.c).
 */
#ifndef PA_PACE_H
#define PA_PACE_H

#include "base/config.h"

#define PA_PACE_WINDOW_NS ((uint64_t)5000000000)    /* the share is an average over any this long */
#define PA_PACE_SLOT_NS ((uint64_t)250000000)       /* work is remembered by slots of this length */
#define PA_PACE_LEAST_BYTES PA_MIB                  /* less is not begun unless less is wanted */
enum { PA_PACE_SLOTS = 21 }; /* one more than the window has: it may begin in the middle of a slot */

/* Zeroed is valid: nothing was done, the cost is a guess. */
typedef struct pa_pace {
    uint64_t work_ns[PA_PACE_SLOTS];    /* by slot number % PA_PACE_SLOTS */
    uint64_t newest;                    /* slot number: time / PA_PACE_SLOT_NS */
    uint64_t total_ns;                  /* of the slots above */
    uint64_t ns_per_mib;                /* what releasing a MiB cost lately; 0: not known */
} pa_pace;

/* Bytes, at most `most`, whose release keeps the average at or below percent of a processor; 0: rest first. */
uint64_t pa_pace_bytes(pa_pace *p, uint64_t now_ns, unsigned percent, uint64_t most);
/* How long until pa_pace_bytes says more than 0; 0: it does now. */
uint64_t pa_pace_rest_ns(pa_pace *p, uint64_t now_ns, unsigned percent);
/* work_ns of processor time went, up to now, into releasing that many bytes, or into looking for them. */
void pa_pace_spent(pa_pace *p, uint64_t now_ns, uint64_t work_ns, uint64_t nbytes);

#endif
