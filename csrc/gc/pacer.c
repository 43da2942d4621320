/* pacer.c - heap goal, trigger, assist ratio, worker counts.
 *
 * Owns a pa_pacer of its caller's.  Goal: what was live, plus gc_percent of what was live and of the roots, at
 * least 4 MiB scaled by gc_percent; with a memory limit at most what the limit leaves for the heap.
 * Trigger: early enough that marking at the background rate ends at the goal.  That takes the ratio of two
 * speeds, allocation ("cons") to scanning ("mark"), measured in the last cycles (the largest of four, so that
 * one calm cycle does not make the next one late).  Assist ratio: scan work left by heap left.
 */
#include "gc/pacer.h"

enum { LIMIT_HEADROOM_PERCENT = 3 };
static const double trigger_earliest = 0.7, trigger_latest = 0.95; /* of the way from live to goal */
static const double hard_goal = 1.1;    /* a cycle that finds more work than expected may go this far over */
static const double fraction_error = 0.3;

void pa_pacer_init(pa_pacer *p, unsigned processors)
{
    *p = (pa_pacer){.gc_percent = 100, .memory_limit = UINT64_MAX, .processors = processors};
    pa_pacer_commit(p, 0);
}

static uint64_t percent_goal(const pa_pacer *p)
{
    if (p->gc_percent < 0)
        return UINT64_MAX;
    double percent = p->gc_percent / 100.0;
    double goal = (double)p->heap_marked + ((double)p->heap_marked + (double)p->root_bytes) * percent;
    double least = (double)PA_PACER_MIN_HEAP_BYTES * percent;
    return (uint64_t)(goal > least ? goal : least);
}

static uint64_t limit_goal(const pa_pacer *p, uint64_t other_bytes)
{
    if (p->memory_limit == UINT64_MAX)
        return UINT64_MAX;
    uint64_t left = p->memory_limit > other_bytes ? p->memory_limit - other_bytes : 0;
    left -= left / 100 * LIMIT_HEADROOM_PERCENT;
    /* Below what is live there is no goal to reach: collect as soon as something can be gained. */
    return left > p->heap_marked ? left : p->heap_marked;
}

static double largest_cons_mark(const pa_pacer *p)
{
    double most = 0;
    for (int i = 0; i < PA_PACER_HISTORY; i++)
        most = p->cons_mark[i] > most ? p->cons_mark[i] : most;
    return most;
}

void pa_pacer_commit(pa_pacer *p, uint64_t other_bytes)
{
    uint64_t by_percent = percent_goal(p), by_limit = limit_goal(p, other_bytes);
    p->limited = by_limit < by_percent;
    p->goal = p->limited ? by_limit : by_percent;
    if (p->goal == UINT64_MAX) {
        p->trigger = UINT64_MAX;
        return;
    }
    double live = (double)p->heap_marked, room = (double)p->goal > live ? (double)p->goal - live : 0;
    /* While marking takes a quarter of the processors, the program has three. */
    double runway = largest_cons_mark(p) * (1 - PA_PACER_BACKGROUND) / PA_PACER_BACKGROUND *
                    (double)(p->heap_scanned + p->root_bytes);
    double trigger = live + room - runway;
    if (trigger < live + room * trigger_earliest)
        trigger = live + room * trigger_earliest;
    if (trigger > live + room * trigger_latest)
        trigger = live + room * trigger_latest;
    p->trigger = (uint64_t)trigger;
}

static void choose_workers(pa_pacer *p)
{
    double wanted = p->processors * PA_PACER_BACKGROUND;
    p->dedicated_workers = (unsigned)(wanted + 0.5);
    double error = p->dedicated_workers / wanted - 1;
    p->fractional_utilization = 0;
    if (error < -fraction_error || error > fraction_error) {
        if ((double)p->dedicated_workers > wanted)
            p->dedicated_workers--;
        p->fractional_utilization = wanted - p->dedicated_workers;
    }
}

void pa_pacer_start(pa_pacer *p, uint64_t heap_live)
{
    p->live_at_start = heap_live;
    choose_workers(p);
    pa_pacer_revise(p, heap_live, 0);
}

void pa_pacer_revise(pa_pacer *p, uint64_t heap_live, uint64_t scan_done)
{
    double expected = (double)(p->heap_scanned + p->root_bytes), goal = (double)p->goal;
    if (p->goal == UINT64_MAX)
        goal = (double)heap_live * 2 + (double)PA_PACER_MIN_HEAP_BYTES; /* off, but somebody asked for a cycle */
    if (goal < (double)p->live_at_start)
        goal = (double)p->live_at_start;
    if ((double)scan_done > expected || (double)heap_live > goal) {
        /* More was live than last time. In the worst case everything is: aim at the hard goal for that. */
        goal *= hard_goal;
        expected = (double)p->live_at_start + (double)p->root_bytes;
    }
    double work_left = expected - (double)scan_done, heap_left = goal - (double)heap_live;
    if (work_left < 64 * 1024)
        work_left = 64 * 1024;
    if (heap_left < 64 * 1024)
        heap_left = 64 * 1024;
    p->assist_per_byte = work_left / heap_left;
}

void pa_pacer_end(pa_pacer *p, uint64_t heap_live, uint64_t heap_marked, uint64_t heap_scanned, uint64_t root_bytes,
                  double utilization, bool forced)
{
    double work = (double)(heap_scanned + root_bytes);
    if (!forced && work > 0 && utilization < 1 && heap_live > p->live_at_start) {
        double cons_mark = (double)(heap_live - p->live_at_start) * utilization / (work * (1 - utilization));
        for (int i = PA_PACER_HISTORY - 1; i > 0; i--)
            p->cons_mark[i] = p->cons_mark[i - 1];
        p->cons_mark[0] = cons_mark;
    }
    p->heap_marked = heap_marked;
    p->heap_scanned = heap_scanned;
    p->root_bytes = root_bytes;
}
