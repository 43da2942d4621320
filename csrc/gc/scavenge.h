/* scavenge.h - the thread that gives idle memory back (Python processes, PYALLOC_BACKGROUND=1). */
#ifndef PA_SCAVENGE_H
#define PA_SCAVENGE_H

#include "base/config.h"

/* Asks for the thread: it starts when 4 MiB are free and still backed, and again so in a fork child. The
 * heap need not be there yet. More calls do nothing. */
void pa_scavenge_enable(void);
/* Is it there? And how often did it wake up and look? For tests and reports. */
bool pa_scavenge_is_running(void);
uint64_t pa_scavenge_looks(void);
/* Processor time that it used, ns. */
uint64_t pa_scavenge_cpu_ns(void);
/* A collection freed pages, and no slow path of malloc or free may follow: wakes or starts the thread. No lock held. */
void pa_scavenge_after_sweep(void);
/* The memory limit was set: releases what is over it, and wakes the thread if it has something to do. The heap is
 * there; no lock held. */
void pa_scavenge_limit_changed(void);

#endif
