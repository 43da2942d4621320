/* pacer.h - when to start a cycle and how hard to push: numbers in, numbers out.
 *
 * Pure: no heap, no clock, no lock; the caller guards it.  Bytes and nanoseconds.  The model is Go's since 1.19
 * (runtime/mgcpacer.go; design document 44167-gc-pacer-redesign).
 */
#ifndef PA_PACER_H
#define PA_PACER_H

#include "base/config.h"

#define PA_PACER_MIN_HEAP_BYTES ((uint64_t)4 << 20)     /* goal at GOGC=100 with nothing live */
#define PA_PACER_BACKGROUND 0.25                        /* share of the processors that marks in the background */
enum { PA_PACER_HISTORY = 4 };

typedef struct pa_pacer {
    /* Settings. */
    int gc_percent;             /* < 0: off */
    uint64_t memory_limit;      /* UINT64_MAX: none */
    unsigned processors;
    /* What the last cycle found. */
    uint64_t heap_marked;       /* live bytes */
    uint64_t heap_scanned;      /* scan work in heap objects */
    uint64_t root_bytes;        /* scan work in frames, handles, ranges */
    double cons_mark[PA_PACER_HISTORY]; /* bytes allocated by a processor in the time in which one scans one byte */
    /* Out of pa_pacer_commit. */
    uint64_t goal;              /* UINT64_MAX: none */
    uint64_t trigger;
    bool limited;               /* the memory limit decided the goal */
    /* Out of pa_pacer_start and pa_pacer_revise. */
    uint64_t live_at_start;
    unsigned dedicated_workers;
    double fractional_utilization; /* of one more worker's processor */
    double assist_per_byte;     /* scan work that an allocation of one byte owes */
} pa_pacer;

void pa_pacer_init(pa_pacer *p, unsigned processors);
/* Goal and trigger for the next cycle. other_bytes: memory that counts against the limit without being heap in
 * use by managed objects. */
void pa_pacer_commit(pa_pacer *p, uint64_t other_bytes);
/* A cycle starts with heap_live: worker counts, first assist ratio. */
void pa_pacer_start(pa_pacer *p, uint64_t heap_live);
/* Brings the assist ratio up to date: heap_live now, scan work done so far. */
void pa_pacer_revise(pa_pacer *p, uint64_t heap_live, uint64_t scan_done);
/* A cycle's marking ended. utilization: share of the processors that marked. */
void pa_pacer_end(pa_pacer *p, uint64_t heap_live, uint64_t heap_marked, uint64_t heap_scanned, uint64_t root_bytes,
                  double utilization, bool forced);

#endif
