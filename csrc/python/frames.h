/* frames.h - lines of Python code for the heap profile. */
#ifndef PA_PYTHON_FRAMES_H
#define PA_PYTHON_FRAMES_H

#include "python/core.h"

/* Tells the core how to walk Python stacks, when this interpreter is one whose frames are known. 0, or -1 with an
 * exception. */
int pa_frames_install(void);
/* profile_finish(), profile_sees_python() */
extern PyMethodDef pa_frames_methods[];

#endif
