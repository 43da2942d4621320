/* profile.h - the heap profile that PYALLOC_PROFILE asks for, from the start of the process to its end.
 */
#ifndef PA_API_PROFILE_H
#define PA_API_PROFILE_H

/* Starts it when the option is set; called once, by the library's constructor, after the options were read. */
void pa_profile_at_start(void);
/* Writes the file, when it was started here, or in a parent and every process has a file of its own. */
void pa_profile_at_exit(void);

#endif
