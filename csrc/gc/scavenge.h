/* scavenge.h - the thread that gives idle memory back (PYALLOC_BACKGROUND=1). */
#ifndef PA_SCAVENGE_H
#define PA_SCAVENGE_H

#include "base/config.h"

/* Asks for the thread: it starts when 4 MiB are free and still backed, and again so in a fork child. Once. */
void pa_scavenge_enable(void);
/* Is it there? And how often did it wake up and look? For tests and reports. */
bool pa_scavenge_is_running(void);
uint64_t pa_scavenge_looks(void);

#endif
