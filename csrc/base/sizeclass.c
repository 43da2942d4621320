/* sizeclass.c - the tables of the size classes.
 *
 * Owns constant data only: no lock, nothing to initialise.  The tables hold no pointers and are hidden, so
 * they lie in .rodata, cost no relocation at start-up and can be read before any constructor has run.
 *
 * Size -> class.  Sizes of classes up to 1 KiB are multiples of 8 and larger ones multiples of 128, so two
 * small tables give the class of every size exactly, as in Go (runtime/sizeclasses.go).
 *
 * Division by multiplication.  Let magic = ceil(2^64 / size) = (2^64 + e) / size with 0 <= e < size, and
 * offset = q * size + r below 2^32.  Then offset * magic = q * 2^64 + (q * e + r * magic), and because
 * q * e <= offset < 2^32 while magic >= 2^49, the bracket is below 2^64: the high word is the quotient q.
 * The low word is the bracket: below magic when r = 0, at least magic otherwise.  So one multiplication
 * tells the index, or whether an object starts at offset.  Idea: Lemire, Kaser, Kurz, "Faster remainder by
 * direct computation" (2019).
 *
 * Runs.  cap_pages is where the doubling of explicit spans ends (heap/mcache.c): 64 KiB for objects up to
 * 1 KiB, 128 KiB up to 8 KiB, 256 KiB above, rounded down to a multiple of the table's span.
 */
#include "base/sizeclass.h"

#include "base/sizeclass_table.h"
