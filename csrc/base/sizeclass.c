/* sizeclass.c - the tables of the size classes.
 *
 * Owns constant data only: no lock, nothing to initialise.  The tables hold no pointers and are hidden, so
 * they lie in .rodata, cost no relocation at start-up and can be read before any constructor has run.
 *
 * Size -> class.  Sizes of classes up to 1 KiB are multiples of 8 and larger ones multiples of 128, so two
 * small tables give the class of every size exactly, as in Go (runtime/sizeclasses.go).
 *
 * Division by multiplication.  With magic = ceil(2^64 / size) and offset < 2^32, the product offset * magic
 * exceeds offset * 2^64 / size by less than 2^32 * size <= 2^47.  The distance of offset / size from the
 * next integer is at least 1 / size, which is at least 2^49 in units of 2^-64, so the excess never reaches it:
 * the high word is the quotient, and the low word is below magic exactly when the remainder is 0 (remainder
 * r > 0 gives r * 2^64 / size or more, and that of 1 is magic rounded up from it).  Idea: Lemire, Kaser,
 * Kurz, "Faster remainder by direct computation" (2019).
 *
 * Runs.  cap_pages is where the doubling of explicit spans ends (heap/mcache.c): 64 KiB for objects up to
 * 1 KiB, 128 KiB up to 8 KiB, 256 KiB above, rounded down to a multiple of the table's span.
 */
#include "base/sizeclass.h"

#include "base/sizeclass_table.h"
