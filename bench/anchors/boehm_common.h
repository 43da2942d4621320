/* boehm_common.h - what the Boehm programs share: its header with threads, and the lengths of all stops.
 *
 * A stop is counted from just before the threads are signalled until they run again.
 */
#ifndef PA_BENCH_BOEHM_COMMON_H
#define PA_BENCH_BOEHM_COMMON_H

#define GC_THREADS      /* pthread_create and its like register threads */
#include <gc.h>
#include <pthread.h>

#include "anchor.h"

/* Written by the thread that collects, which holds the collector's lock. */
static anchor_histogram boehm_stops;
static uint64_t boehm_stop_started, boehm_cycles;

static inline void boehm_event(GC_EventType event)
{
    if (event == GC_EVENT_PRE_STOP_WORLD)
        boehm_stop_started = anchor_now_ns();
    if (event == GC_EVENT_POST_START_WORLD && boehm_stop_started)
        anchor_record(&boehm_stops, anchor_now_ns() - boehm_stop_started);
    if (event == GC_EVENT_END)
        boehm_cycles++;
}

static inline void boehm_start(void)
{
    GC_INIT();
    GC_allow_register_threads();
    GC_set_on_collection_event(boehm_event);
}

static inline void *boehm_must(void *p)
{
    if (!p)
        anchor_die("out of memory");
    return p;
}

/* Forgets the stops so far. */
static inline void boehm_stops_begin(void)
{
    memset(&boehm_stops, 0, sizeof boehm_stops);
    boehm_cycles = 0;
}

static inline void boehm_stops_end(void)
{
    printf(", \"cycles\": %llu", (unsigned long long)boehm_cycles);
    anchor_print_stops(&boehm_stops);
    anchor_print_memory();
}

#endif
