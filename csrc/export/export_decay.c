/* export_decay.c - white-box view of heap/decay and of the settable clock.
 *
 * Test builds only.  Owns nothing; the policy runs on a pa_decay made from the caller's numbers, the clock's word
 * is the process's own.
 */
#include "export/export_decay.h"

#include "sys/clock.h"
#include "world/proc.h"

static pa_decay unpack(const pa_xdecay *x)
{
    return (pa_decay){
        .window_ns = x->window_ns,
        .peak_bytes = x->peak_bytes,
        .previous_peak_bytes = x->previous_peak_bytes,
        .hollow_bytes = x->hollow_bytes,
        .released_bytes = x->released_bytes,
        .previous_released_bytes = x->previous_released_bytes,
        .missed_bytes = x->missed_bytes,
        .owed_bytes = x->owed_bytes,
    };
}

static void pack(pa_xdecay *x, const pa_decay *d)
{
    *x = (pa_xdecay){
        .window_ns = d->window_ns,
        .peak_bytes = d->peak_bytes,
        .previous_peak_bytes = d->previous_peak_bytes,
        .hollow_bytes = d->hollow_bytes,
        .released_bytes = d->released_bytes,
        .previous_released_bytes = d->previous_released_bytes,
        .missed_bytes = d->missed_bytes,
        .owed_bytes = d->owed_bytes,
    };
}

uint64_t pa_xdecay_allowance(uint64_t peak_bytes, uint64_t inuse_bytes)
{
    return pa_decay_allowance(peak_bytes, inuse_bytes);
}

void pa_xdecay_look(pa_xdecay *x, uint64_t now_ns, uint64_t inuse, uint64_t peak_inuse, uint64_t hollow,
                    uint64_t free_backed, uint64_t taken, uint64_t taken_unbacked)
{
    pa_decay d = unpack(x);
    pa_decay_look(&d, now_ns,
                  (pa_decay_view){
                      .inuse = inuse,
                      .peak_inuse = peak_inuse,
                      .hollow = hollow,
                      .free_backed = free_backed,
                      .taken = taken,
                      .taken_unbacked = taken_unbacked,
                  });
    pack(x, &d);
}

uint64_t pa_xdecay_take_piece(pa_xdecay *x)
{
    pa_decay d = unpack(x);
    uint64_t piece = pa_decay_take(&d, PA_DECAY_PIECE_BYTES);
    pack(x, &d);
    return piece;
}

void pa_xclock_set(uint64_t ns)
{
    atomic_store(&pa_clock_set_ns, ns);
}

uint32_t pa_xdecay_rounds(void)
{
    return atomic_load(&pa_the_heap.decay.round);
}

void pa_xdecay_tick(uint64_t now_ns)
{
    pa_mcache *c = pa_proc_attach();
    pa_mcache_enter_slow(c);
    pa_decay_tick(&pa_the_heap, now_ns);
    pa_lock_release(&c->slow);
}

uint64_t pa_xdecay_free_backed(void)
{
    pa_heap *h = &pa_the_heap;
    pa_lock_acquire(&h->lock);
    uint64_t pages = h->pages.free_pages - h->pages.scavenged_pages;
    pa_lock_release(&h->lock);
    return pages << PA_PAGE_SHIFT;
}
