/* litmus_hold.h - holding the collector at a yield point while a litmus case makes steps: for litmus.c.
 *
 * The first thread other than the case's that comes to the chosen point in turn is held there.  It goes on after
 * STEPS_AT_POINT steps of the case, or when the case made none for PATIENCE_NS: then the case waits for the collector
 * (a stop), and holding on would be a deadlock.  At points of mutators (GC_STORE, GC_WEAK_GET,
 * GC_SLOT_TAKEN) the case's own thread
 * is held instead, now and then, until the collector's phase moves or PATIENCE_NS are over.
 */
#ifndef PA_LITMUS_HOLD_H
#define PA_LITMUS_HOLD_H

#include "gc_test.h"

#include "base/yield.h"

#if PA_WHITEBOX

enum { STEPS_AT_POINT = 200, PATIENCE_NS = 3000000, HOLDS_WANTED = 4 };

#define X(name) #name,
static const char *const hold_points[] = {PA_YIELD_POINTS(X)};
#undef X

static int hold_point = -1;
static atomic_bool hold_is_on, hold_occupied;
static atomic_ulong hold_steps, hold_arrivals, hold_full;
static _Thread_local bool hold_me_not;

static bool is_of_mutators(int point)
{
    return point == PA_YIELD_GC_STORE || point == PA_YIELD_GC_WEAK_GET || point == PA_YIELD_GC_SLOT_TAKEN;
}

static void hold_myself(void)
{
    static atomic_ulong times;
    if (atomic_fetch_add(&times, 1) % 512)
        return;
    double since = seconds_now();
    uint32_t phase = gc_stats().phase;
    while (gc_stats().phase == phase && seconds_now() - since < PATIENCE_NS * 1e-10)
        sched_yield();
    atomic_fetch_add(&hold_arrivals, 1);
}

static void hold_hook(int point)
{
    if (point == hold_point && is_of_mutators(point) && atomic_load(&hold_is_on)) {
        hold_myself();
        return;
    }
    if (point != hold_point || hold_me_not || !atomic_load(&hold_is_on) || atomic_exchange(&hold_occupied, true))
        return;
    unsigned long begin = atomic_load(&hold_steps), seen = begin;
    double since = seconds_now();
    while (atomic_load(&hold_is_on) && seen - begin < STEPS_AT_POINT && seconds_now() - since < PATIENCE_NS * 1e-9) {
        unsigned long now = atomic_load(&hold_steps);
        since = now != seen ? seconds_now() : since;
        seen = now;
        sched_yield();
    }
    atomic_fetch_add(&hold_arrivals, 1);
    if (seen - begin >= STEPS_AT_POINT)
        atomic_fetch_add(&hold_full, 1);
    atomic_store(&hold_occupied, false);
}

static int hold_list_points(void)
{
    for (int i = 0; i < PA_YIELD_POINT_COUNT; i++)
        if (strncmp(hold_points[i], "GC_", 3) == 0)
            puts(hold_points[i]);
    return 0;
}

/* The calling thread is the case's. */
static void hold_at(const char *point)
{
    hold_me_not = true;
    if (!point)
        return;
    for (int i = 0; i < PA_YIELD_POINT_COUNT; i++)
        if (strcmp(hold_points[i], point) == 0)
            hold_point = i;
    REQUIRE(hold_point >= 0, "%s is no yield point", point);
    atomic_store(&hold_is_on, true);
    atomic_store(&pa_yield_hook, hold_hook);
}

static void hold_step(void) { atomic_fetch_add_explicit(&hold_steps, 1, memory_order_relaxed); }
static bool hold_done(void) { return hold_point < 0 || atomic_load(&hold_arrivals) >= HOLDS_WANTED; }
static void hold_release(void) { atomic_store(&hold_is_on, false); }

static const char *hold_report(void)
{
    static char text[100];
    if (hold_point >= 0)
        snprintf(text, sizeof text, ", held %lu times at %s, %lu in full", atomic_load(&hold_arrivals),
                 hold_points[hold_point], atomic_load(&hold_full));
    return text;
}

#else

static int hold_list_points(void) { return 0; }
static void hold_at(const char *point) { REQUIRE(!point, "no yield points in this build"); }
static void hold_step(void) {}
static bool hold_done(void) { return true; }
static void hold_release(void) {}
static const char *hold_report(void) { return ""; }

#endif

#endif
