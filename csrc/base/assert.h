/* assert.h - checks by cost.
 *
 *   PA_CHECK      always on: corruption and misuse that would lose data
 *   PA_ASSERT     level >= 1: cheap preconditions
 *   PA_INVARIANT  level >= 2: a few loads
 *   PA_SLOW       level >= 3: whole-structure walks
 *
 * A failed check writes one line with write(2) and aborts; it takes no lock and no memory.
 */
#ifndef PA_ASSERT_H
#define PA_ASSERT_H

#include "base/config.h"

/* Writes "pyalloc: <file>:<line>: check failed: <text>\n" to stderr and aborts. */
_Noreturn void pa_check_failed(const char *file, int line, const char *text);
/* Writes "pyalloc: <what> <address>: <why>\n" to stderr and aborts: misuse by the caller. */
_Noreturn void pa_abort_pointer(const char *what, const void *address, const char *why);
/* Writes one whole line "pyalloc: <text>\n" to stderr. Async-signal-safe. */
void pa_log_line(const char *text);

#define PA_CHECK(cond) (PA_LIKELY(cond) ? (void)0 : pa_check_failed(__FILE__, __LINE__, #cond))
#define PA_CHECK_IF_(level, cond) \
    (PA_ASSERT_LEVEL < (level) || PA_LIKELY(cond) ? (void)0 : pa_check_failed(__FILE__, __LINE__, #cond))
#define PA_ASSERT(cond) PA_CHECK_IF_(1, cond)
#define PA_INVARIANT(cond) PA_CHECK_IF_(2, cond)
#define PA_SLOW(cond) PA_CHECK_IF_(3, cond)

#endif
