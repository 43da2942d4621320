/* pending.h - explicit blocks that were freed but still count as live in their spans. For statistics. */
#ifndef PA_PENDING_H
#define PA_PENDING_H

#include "heap/mcache.h"

/* Blocks on the remote list of an explicit span of that class; 0 when its owner is at work right now. Any
 * thread, no lock held. */
uint32_t pa_pending_in_span(pa_heap *h, pa_span *s, unsigned size_class);
/* Adds, per class, the blocks in c's outbox; none when c's thread is at work on it. Any thread, no lock held. */
void pa_pending_in_outbox(pa_mcache *c, uint64_t pending[PA_SIZE_CLASSES]);

#endif
