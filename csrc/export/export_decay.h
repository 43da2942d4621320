/* export_decay.h - heap/decay for tests: its policy on numbers, and the heap's own with a clock that is set. */
#ifndef PA_EXPORT_DECAY_H
#define PA_EXPORT_DECAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* cffi: begin */

typedef struct pa_xdecay {
    uint64_t window_ns, peak_bytes, previous_peak_bytes, hollow_bytes, released_bytes, previous_released_bytes,
        missed_bytes, owed_bytes;
} pa_xdecay;

uint64_t pa_xdecay_allowance(uint64_t peak_bytes, uint64_t inuse_bytes);
void pa_xdecay_look(pa_xdecay *x, uint64_t now_ns, uint64_t inuse, uint64_t peak_inuse, uint64_t hollow,
                    uint64_t free_backed, uint64_t taken, uint64_t taken_unbacked);
uint64_t pa_xdecay_take_piece(pa_xdecay *x);

/* What the coarse clock says from now on; 0: the time. */
void pa_xclock_set(uint64_t ns);
/* Of the one heap: looks so far, free and backed bytes. */
uint32_t pa_xdecay_rounds(void);
/* A slow path's tick at a time of the caller's. */
void pa_xdecay_tick(uint64_t now_ns);
uint64_t pa_xdecay_free_backed(void);

/* cffi: end */

#endif
