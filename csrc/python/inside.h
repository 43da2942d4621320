/* inside.h - how the Python layer goes inside: between pa_enter and pa_leave, with the GIL held.
 *
 * The rule (DESIGN, "The GIL"): a thread that is inside never takes the GIL and never may let it go.  So no
 * function of CPython that allocates, decrements references, raises or calls back stands between
 * pa_inside_enter and pa_inside_leave; everything that an operation needs from Python it takes before, and
 * everything that it gives back it makes after.  PA_OUTSIDE checks that where Python is used.
 */
#ifndef PA_PYTHON_INSIDE_H
#define PA_PYTHON_INSIDE_H

#include "python/core.h"

/* Fatal, with asserts built in, when the calling thread is inside. */
#define PA_OUTSIDE() \
    (PA_ASSERT_LEVEL < 1 || !pa_is_inside() ? (void)0 : Py_FatalError("pyalloc: Python is used while inside"))

/* The part of pa_inside_enter that waits; managed.c. */
PA_COLD bool pa_inside_enter_slow(void);

/* Makes the thread inside.  False with MemoryError.  While the world is stopped it waits: a moment with the GIL held,
 * which is enough for the stops of the concurrent modes, then with the GIL let go, so other Python code may run
 * before it returns. */
static inline bool pa_inside_enter(void)
{
    PA_OUTSIDE();
    return PA_LIKELY(pa_try_enter()) || pa_inside_enter_slow();
}

static inline void pa_inside_leave(void)
{
    pa_leave();
}

PA_COLD bool pa_inside_poll_slow(void);

/* Between two steps of a long operation: the same when a stop waits for this thread.  False with MemoryError, and
 * outside then. */
static inline bool pa_inside_poll(void)
{
    return PA_LIKELY(!pa_stop_is_wanted()) || pa_inside_poll_slow();
}

#endif
