/* share.h - an atomic count of the holders of one block.
 *
 * A DLPack consumer may drop its tensor on any thread, without the GIL and after Python has ended.
 * So what it holds is this small block and not a reference to the Buffer.
 */
#ifndef PA_PYTHON_SHARE_H
#define PA_PYTHON_SHARE_H

#include <stdatomic.h>

#include "python/traced.h"

typedef struct pa_share {
    /* Written by every holder: incremented (relaxed) only by one who already holds it, decremented
     * (acq_rel) on release, so that the last one sees all writes to the block before it frees it.
     * Read (acquire) by the Buffer under the GIL: 1 there means "nobody but me", and since only the
     * Buffer hands out new holds, it stays 1 while the GIL is held. */
    atomic_size_t holders;
    void *data;
    bool traced;            /* tracemalloc has a trace of data, which goes when data is freed; constant */
} pa_share;

/* A share with one holder, NULL without memory. */
static inline pa_share *pa_share_new(void *data, bool traced)
{
    pa_share *share = pa_malloc(sizeof *share);
    if (share != NULL) {
        atomic_init(&share->holders, 1);
        share->data = data;
        share->traced = traced;
    }
    return share;
}

static inline void pa_share_hold(pa_share *share)
{
    atomic_fetch_add_explicit(&share->holders, 1, memory_order_relaxed);
}

/* Any thread, no GIL, no Python API but the one call that asks for neither.  The last holder frees the block. */
static inline void pa_share_release(pa_share *share)
{
    if (atomic_fetch_sub_explicit(&share->holders, 1, memory_order_acq_rel) != 1)
        return;
    if (PA_UNLIKELY(share->traced))
        pa_traced_remove(share->data);
    pa_free(share->data);
    pa_free(share);
}

static inline bool pa_share_is_mine(const pa_share *share)
{
    return atomic_load_explicit(&share->holders, memory_order_acquire) == 1;
}

#endif
