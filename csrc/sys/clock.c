/* clock.c - the word with which tests set the coarse clock (clock.h).
 *
 * Owns that word, which only test builds look at: time that passes by itself makes tests of decay slow and
 * their results a matter of luck.
 */
#include "sys/clock.h"

_Atomic uint64_t pa_clock_set_ns;
