/* live.h - PYALLOC_LIVE. */
#ifndef PA_LIVE_H
#define PA_LIVE_H

/* Puts the process into live mode; one line on stderr when that cannot be. From the library's constructor. */
void pa_live_at_start(void);

#endif
