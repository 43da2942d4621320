/* hollow.h - giving back the OS pages of a span in use that hold nothing but free blocks.
 *
 * An OS page of an explicit span of a small class may be "out": nobody gets a block that touches it.  Two masks say
 * which, a bit a page from the one that the span begins in:
 *
 *   aside    out and backed: on trial, whether anybody misses its blocks
 *   hollow   out and given back to the OS
 *
 * A carved block is exactly one of: live, on `free`, waiting on `remote` (counts as live), or off the list, which it is
 * if and only if it touches a page that is out.  So a block needs no bit of its own, and `live` is what it was.
 *
 *            pa_span_set_aside          pa_span_give_aside
 *   backed ---------------------> aside -------------------> hollow
 *     ^                             |                          |
 *     +------- pa_span_fill --------+--------------------------+
 *
 * Everything here is for the owner of the span (heap/remote.h) or who keeps it out of its slow paths, and nobody may
 * allocate from the span meanwhile.  With keep_head its owner may free into it: see pa_span_set_aside.
 */
#ifndef PA_HOLLOW_H
#define PA_HOLLOW_H

#include "heap/heap.h"

PA_INLINE bool pa_span_has_out(const pa_span *s)
{
    return (s->aside | s->hollow) != 0;
}

/* Takes the free blocks off the list that touch a page of nothing but free blocks. Returns about how many
 * cache misses that cost.
 * keep_head: the first block of the list stays, and `free` is not written: blocks may be put in front of it meanwhile,
 * with release (api/malloc.c). */
uint32_t pa_span_set_aside(pa_span *s, bool keep_head);

/* Gives the pages that are aside to the OS; those that it refuses become backed and free again, or stay aside where
 * keep_head (as above) finds no head. Returns the bytes given. Something must keep fork out; takes mheap's lock. */
size_t pa_span_give_aside(pa_heap *h, pa_span *s, bool keep_head, pa_release_reason reason);

/* Puts at least one block that is off the list on it, of a page aside rather than of a hollow one; false when there is
 * none. */
bool pa_span_fill(pa_heap *h, pa_span *s);

/* Carved blocks that are off the list. */
uint32_t pa_span_count_out(const pa_span *s);
/* Does a block that begins there touch a page that is out? */
bool pa_span_is_out(const pa_span *s, uintptr_t block);

/* Are all pages that are out within its carved part? */
bool pa_span_holds_out(const pa_span *s);

/* Pages of s that are hollow, bytes. */
size_t pa_span_hollow_bytes(const pa_span *s);
/* Of s's 8 KiB page at, which is wholly hollow? Precondition: at lies in s and is a page's start. */
bool pa_span_is_page_hollow(const pa_span *s, uintptr_t at);
/* The span is empty: its blocks end. Precondition: nothing is hollow, or the caller has used the mask. */
void pa_span_forget_out(pa_heap *h, pa_span *s);

#endif
