/* sweep.c - sweeping the whole heap, a few spans at a time, by whoever has the time or the debt.
 *
 * Owns the cursor (lock rank SWEEP): arena and page from where nobody has looked yet.  A piece is 64 pages of one
 * arena; whoever takes it sweeps the spans that begin there and that nobody claimed (heap/managed.h).  No list of
 * spans is needed: the side tables say where spans are.  Wholly free spans of a piece go back to mheap together.
 *
 * The sweep is complete when the cursor is at the end and no piece is in work; spans claimed by refills are
 * finished while their thread is inside.  Debt: an allocating thread sweeps in proportion to what it takes, so
 * that the sweep ends before the next cycle must begin (Go: proportional sweep, runtime/mgcsweep.go).
 */
#include "gc/gc.h"
#include "heap/managed.h"
#include "sys/thread.h"
#include "sys/trace.h"

enum { PIECE_PAGES = 64 };

static struct {
    pa_lock lock;
    pa_arena *arena;        /* NULL: at the end */
    size_t page_idx;        /* in that arena */
    uint32_t in_work;       /* pieces */
    uint64_t pages_left;    /* to look at; read racily by the debt */
    uint64_t bytes_until_trigger; /* that may be allocated until the next cycle, from where the sweep began */
} sweep = {.lock = PA_LOCK_INIT(SWEEP)};

void pa_sweep_begin_stw(void)
{
    pa_heap *h = &pa_the_heap;
    pa_lock_acquire(&sweep.lock);
    sweep.arena = h->arenas;
    sweep.page_idx = 0;
    pa_owner_set(&sweep.pages_left, h->arena_count << (PA_ARENA_SHIFT - PA_PAGE_SHIFT));
    pa_lock_release(&sweep.lock);
    atomic_store_explicit(&h->sweeping, true, memory_order_release);
}

static bool take_piece(uintptr_t *from)
{
    pa_lock_acquire(&sweep.lock);
    bool some = sweep.arena != NULL;
    if (some) {
        *from = sweep.arena->base + (sweep.page_idx << PA_PAGE_SHIFT);
        sweep.page_idx += PIECE_PAGES;
        pa_owner_add(&sweep.pages_left, -(uint64_t)(sweep.pages_left < PIECE_PAGES ? sweep.pages_left : PIECE_PAGES));
        /* An arena without side tables has no managed span. */
        if (sweep.page_idx == PA_ARENA_PAGES || !pa_gcside_of(*from)) {
            sweep.arena = __atomic_load_n(&sweep.arena->next, __ATOMIC_ACQUIRE);
            sweep.page_idx = 0;
        }
        sweep.in_work++;
    }
    pa_lock_release(&sweep.lock);
    return some;
}

static void finish_piece(void)
{
    pa_lock_acquire(&sweep.lock);
    if (--sweep.in_work == 0 && !sweep.arena)
        atomic_store_explicit(&pa_the_heap.sweeping, false, memory_order_release);
    pa_lock_release(&sweep.lock);
}

typedef struct piece {
    uint32_t sweepgen;
    uint64_t freed_bytes;
    pa_span *dead;
} piece;

static void sweep_span(void *context, pa_span *s)
{
    piece *w = context;
    if (pa_managed_claim_sweep(s, w->sweepgen))
        w->freed_bytes += pa_managed_sweep_and_file(&pa_the_heap, s, w->sweepgen, &w->dead);
}

bool pa_sweep_some(uint64_t *freed_bytes)
{
    uintptr_t from;
    if (!atomic_load_explicit(&pa_the_heap.sweeping, memory_order_acquire) || !take_piece(&from))
        return false;
    piece w = {.sweepgen = atomic_load_explicit(&pa_the_heap.sweepgen, memory_order_relaxed)};
    pa_managed_walk(from, from + ((uintptr_t)PIECE_PAGES << PA_PAGE_SHIFT), sweep_span, &w);
    pa_managed_free_dead(&pa_the_heap, w.dead);
    *freed_bytes += w.freed_bytes;
    finish_piece();
    return true;
}

bool pa_sweep_is_done(void)
{
    return !atomic_load_explicit(&pa_the_heap.sweeping, memory_order_acquire);
}

void pa_sweep_finish(void)
{
    uint64_t freed_bytes = 0;
    while (pa_sweep_some(&freed_bytes))
        continue;
    while (!pa_sweep_is_done()) /* others are at their last pieces */
        pa_thread_yield();
}

void pa_sweep_pay(uint64_t span_bytes)
{
    if (pa_sweep_is_done())
        return;
    uint64_t live = atomic_load_explicit(&pa_the_heap.managed_live_bytes, memory_order_relaxed);
    uint64_t trigger = atomic_load_explicit(&pa_the_gc.trigger_bytes, memory_order_relaxed);
    uint64_t room = trigger > live ? trigger - live : 1, left = pa_racy_load(&sweep.pages_left), freed_bytes = 0;
    /* Keep pages swept in step with bytes allocated: left / room pages a byte. */
    uint64_t owed_pages = room > span_bytes ? (uint64_t)((double)left * (double)span_bytes / (double)room) : left;
    uint64_t begin_ns = owed_pages ? pa_trace_begin() : 0;
    for (uint64_t paid = 0; paid < owed_pages && paid < 8 * PIECE_PAGES; paid += PIECE_PAGES)
        if (!pa_sweep_some(&freed_bytes))
            break;
    pa_trace_end(PA_TRACE_SWEEP_ASSIST, begin_ns, freed_bytes, 0, 0);
}

void pa_sweep_reset_child(void)
{
    /* Pieces in work belonged to mutators, which were stopped, or to threads of the collector, at rest. */
    sweep.in_work = 0;
    if (!sweep.arena)
        atomic_store_explicit(&pa_the_heap.sweeping, false, memory_order_release);
}
