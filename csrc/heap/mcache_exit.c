/* mcache_exit.c - what a thread had goes to the heap when it ends.
 *
 * Owns nothing; works on one mcache under its slow-path lock, by its thread or for one that is gone.  Empty spans and
 * headers go to mheap, full spans are abandoned, partial ones go together to the leavings, for the next thread, or to
 * mcentral.  Afterwards the mcache is closed: empty, and kept for another thread.
 */
#include "heap/mcache.h"

#include "base/yield.h"
#include "heap/bins.h"
#include "heap/hollow.h"
#include "heap/leavings.h"
#include "heap/mcentral.h"
#include "heap/remote.h"

/* Was current: partial, or abandoned when it is full, or empty and so in the bins. */
static void settle(pa_mcache *c, pa_span *s)
{
    pa_span_collect_remote(s);
    while (s->free == NULL && s->tail >= s->limit && !pa_span_has_out(s))
        if (pa_span_abandon(s, c))
            return;
    s->idle_since = 0;
    if (s->live == 0)
        pa_bins_put_empty_locked(c, s);
    else
        pa_spanlist_push_back(&c->partial[s->size_class], s);
}

/* All but partial spans, collected, goes back. */
static void clear_out_locked(pa_mcache *c)
{
    pa_mcache_flush_outbox_locked(c);
    for (unsigned k = 1; k < PA_SIZE_CLASSES; k++) {
        pa_span *s = pa_mcache_take_current_locked(c, k);
        if (s)
            settle(c, s);
        c->run_level[k] = c->borrowed[k] = 0;
    }
    pa_mcache_collect_partial_locked(c);
    pa_bins_drain_locked(c, 0);
    c->bin_cap_pages = PA_BIN_CAP_UNASKED_PAGES;
    pa_owner_set(&c->bin_room_pages, PA_BIN_CAP_UNASKED_PAGES);
    pa_mheap_flush_stock(c->heap, &c->stock);
}

static void list_partial_locked(pa_mcache *c)
{
    for (unsigned k = 1; k < PA_SIZE_CLASSES; k++)
        pa_mcentral_put_list(c->heap, k, &c->partial[k]);
}

/* leave: partial spans together to whoever comes next. */
static void release_all(pa_mcache *c, bool leave)
{
    pa_mcache_enter_slow(c);
    clear_out_locked(c);
    if (!leave || !pa_leavings_add(c->heap, c))
        list_partial_locked(c);
    pa_idle_note(&c->heap->idle); /* the spans that were listed */
    __atomic_store_n(&c->closed, PA_CACHE_FLUSHED, __ATOMIC_RELEASE); /* until the next thread uses it */
    pa_lock_release(&c->slow);
}

static void release_and_notify(pa_mcache *c, bool leave)
{
    release_all(c, leave);
    if (PA_LIKELY(!atomic_load_explicit(&c->heap->decay.notify_due, memory_order_relaxed)))
        return;
    pa_decay_notify(&c->heap->decay); /* may start a thread, which allocates from c: once more */
    release_all(c, leave);
}

void pa_mcache_release_all(pa_mcache *c)
{
    release_and_notify(c, false);
}

void pa_mcache_move_out(pa_mcache *c)
{
    PA_YIELD(EXIT_BEFORE_RELEASE);
    release_and_notify(c, true);
}
