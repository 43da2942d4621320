/* remote.h - frees by threads that do not own the span: the claim protocol.
 *
 * An explicit span of a small class is in exactly one of three states, told by two words:
 *
 *              owner   bit 0 of remote   on an mcentral list
 *   owned      an mcache    0                 no        frees by others push on remote
 *   abandoned  NULL         1                 no        was full; the push that clears bit 0 claims it
 *   listed     NULL         0                 yes       frees push; who unlinks it under the list's lock owns it
 *
 *   owned --pa_span_abandon--> abandoned --pa_span_push_remote (claimed)--> owned
 *   owned --pa_mcentral_put--> listed    --pa_mcentral_take-------------->  owned
 *
 * Only the owner changes `free`, `live` and `tail`.  A freer whose push claimed nothing never touches
 * the span again: the span may be gone by then.  tests/model/remote_free_model.py explores every
 * interleaving of this protocol.
 */
#ifndef PA_REMOTE_H
#define PA_REMOTE_H

#include "heap/span.h"

#define PA_REMOTE_UNOWNED ((uintptr_t)1)

/* Pushes the blocks first..last, linked through their first words (one block: first == last). True when the
 * caller claimed the span: it must make itself the owner (or list or free the span) at once. Any thread. */
bool pa_span_push_remote(pa_span *s, void *first, void *last);

/* Puts a list of freed blocks, linked through their first words and ended by NULL, on `free` and lowers
 * live; returns
 * how many. Ends the process when one was never handed out or there are more than live ones. Caller owns s. */
uint32_t pa_span_take_home(pa_span *s, void *first);

/* Moves the remote list to `free`, lowers live, returns how many blocks. Caller owns s. */
uint32_t pa_span_collect_remote(pa_span *s);

/* Gives a full span up. False when a push came first: the span still belongs to c, collected.
 * Caller owns s; s is on no list and not current. */
bool pa_span_abandon(pa_span *s, pa_mcache *c);

/* Blocks on the remote list. Caller makes sure that nobody collects s meanwhile. */
uint32_t pa_span_count_remote(const pa_span *s);

PA_INLINE bool pa_span_has_remote(const pa_span *s)
{
    return atomic_load_explicit(&((pa_span *)(uintptr_t)s)->remote, memory_order_relaxed) > PA_REMOTE_UNOWNED;
}

#endif
