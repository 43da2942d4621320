/* gc.h - the collector's root structure and its parts.
 *
 *   cycle.c     the phases of a cycle and the thread that drives them
 *   workers.c   who marks: background workers, their shares of the processors, termination
 *   roots_scan.c  frames, handles, ranges as mark work
 *   assist.c    what allocating threads owe
 *   overflow.c  marking without memory for work buffers
 *   sweep.c     sweeping everything, a bit at a time
 *   pacer.c     when and how hard; limiter.c the cap near the memory limit
 *   checkmark.c the second opinion; gctrace.c the line a cycle
 *
 *    phase (pa_collector.phase)
 *
 *      OFF --- pa_cycle_run: stop ---> MARK --- nothing grey: stop ---> MARK_TERMINATION --- start ---> OFF
 *    (sweeping)   (sweep finished)    (barrier on, black allocation)   (barrier off, sweepgen + 2)  (sweeping)
 */
#ifndef PA_GC_H
#define PA_GC_H

#include "gc/limiter.h"
#include "gc/mark.h"
#include "gc/pacer.h"
#include "world/roots.h"
#include "world/stw.h"

/* Stops are counted by length: below 1 us, then one bucket a doubling, the last one open (8.6 s and more). */
enum { PA_PAUSE_HISTORY = 256, PA_PAUSE_BUCKETS = 25, PA_PAUSE_FIRST_SHIFT = 10, PA_MAX_WORKERS = 32 };

/* For how long the collector's threads want a processor at a time; workers.c. */
#define PA_COLLECTOR_SLICE_NS ((uint64_t)100 * 1000)

typedef enum pa_gc_phase {
    PA_PHASE_OFF,
    PA_PHASE_SWEEP_TERMINATION,
    PA_PHASE_MARK,
    PA_PHASE_MARK_TERMINATION
} pa_gc_phase;

/* What one cycle did, for gctrace and statistics. Times in ns. */
typedef struct pa_cycle_record {
    uint64_t number;
    bool forced;
    uint64_t start_ns, sweep_stop_ns, mark_ns, mark_stop_ns; /* wall */
    uint64_t assist_cpu_ns, background_cpu_ns, idle_cpu_ns;
    uint64_t heap_at_start, heap_at_end, heap_marked, goal;
    uint64_t frame_bytes, global_bytes, unbarriered_bytes;
    uint64_t tries;             /* to end marking: handshakes, and final stops that found grey objects */
} pa_cycle_record;

typedef struct pa_collector {
    pa_lock lock;               /* rank GC: settings, pacer, requests, history */
    _Atomic uint32_t phase;     /* pa_gc_phase; changes in stops */
    _Atomic int32_t mode;       /* pa_gc_mode; under lock, between cycles */
    pa_pacer pacer;             /* under lock; pacer.assist_per_byte through assist_per_byte below */
    pa_limiter limiter;         /* under lock */
    bool checkmark;
    int trace_fd;               /* -1: no gctrace */
    unsigned max_markers;       /* PYALLOC_GC_WORKERS; 0: by processors */
    uint64_t started_ns;        /* when the first managed object was made */
    bool configured;            /* environment read; under lock */

    /* ---- Requests. driver_word is a futex, bumped for each; the rest under lock unless said ---- */
    _Atomic uint32_t driver_word;
    _Atomic bool wanted;        /* the trigger was reached */
    _Atomic uint32_t done_word; /* futex, bumped when a cycle is over */
    uint64_t forced_requested, forced_done;
    bool driver_started;
    pa_lock cycle_lock;         /* rank GC_CYCLE: one cycle or mode change at a time */
    uint64_t cycles, forced_cycles;
    /* Scanned in stops, ever. In the concurrent mode 0, unless there are unbarriered ranges or no memory for work
     * buffers; under cycle_lock. */
    uint64_t stop_scanned_bytes;
    uint64_t last_end_unix_ns, last_end_ns;
    _Atomic uint64_t room_took_ns, room_not_before_ns; /* see pa_gc_run_for_room; relaxed, a guess will do */
    void (*notify)(void *argument); /* cleanups were queued */
    void *notify_argument;

    /* Copies for allocating threads, relaxed: they may be late by one look. */
    _Atomic uint64_t trigger_bytes, goal_bytes;
    _Atomic uint64_t assist_per_mib; /* scan work owed for a MiB allocated */

    /* ---- Marking ---- */
    _Atomic uint32_t active_markers; /* with work in hand; see workers.c */
    _Atomic uint32_t work_word; /* futex: there is work, or marking is over */
    _Atomic bool marking_open;  /* background workers may mark */
    /* So many markers, from 0 on, may use processors that are idle beyond their share. Written by the driver, and set
     * to 0 by a marker that meets competition; relaxed: late by a slice is soon enough. */
    _Atomic unsigned idle_markers;
    _Atomic uint32_t waiting;   /* allocating threads that wait for the end of the cycle */
    _Atomic uint64_t not_idle_before_ns; /* monotonic; see workers.c */
    _Atomic bool flat_out;      /* the world is stopped: all markers, all the time */
    _Atomic(pa_handle_chunk *) next_chunk; /* root jobs */
    _Atomic bool ranges_taken;
    _Atomic int64_t background_credit; /* scan work done that assists need not do */
    _Atomic uint64_t scanned_bytes, root_scanned_bytes, marked_bytes; /* this cycle */
    _Atomic uint64_t assist_cpu_ns, background_cpu_ns, idle_cpu_ns;   /* this cycle */
    uint64_t live_at_start;
    unsigned worker_count;      /* threads besides the driver; under cycle_lock */
    _Atomic unsigned markers;   /* that may mark this cycle, driver included */

    /* ---- History ---- */
    pa_cycle_record last;
    uint64_t pause_count, pause_total_ns;
    uint64_t pause_ns[PA_PAUSE_HISTORY], pause_end_unix_ns[PA_PAUSE_HISTORY];
    uint64_t pauses_by_length[PA_PAUSE_BUCKETS], stoppings_by_length[PA_PAUSE_BUCKETS]; /* whole, and until all stood */
    uint64_t stopping_ns;       /* of the stop that is on; by who stopped the world */
    uint64_t total_assist_ns, total_background_ns, total_idle_ns, total_stopped_cpu_ns;
} pa_collector;

extern PA_HIDDEN pa_collector pa_the_gc;

/* ---- cycle.c ---- */
void pa_gc_configure(void);
/* Asks for a cycle because the trigger was reached; never waits. False when there is no thread to run it: then
 * the caller should, outside, by pa_gc_run_here. */
bool pa_gc_request(void);
void pa_gc_run_here(void);
/* Cleanups were queued: the driver tells who wants to know. */
void pa_gc_wake_for_cleanups(void);
/* One full cycle that begins after the call; waits for it. The caller is outside. */
void pa_gc_run_forced(void);
/* The same for an allocation that the OS refused, at most half of the time while it is in vain: false when the last
 * one was and is not longer ago than it took. in_vain: the allocation was refused again. */
bool pa_gc_run_for_room(void);
void pa_gc_room_was_in_vain(void);
/* Recomputes goal and trigger. Lock held. */
void pa_gc_commit_locked(void);

/* ---- workers.c ---- */
/* Marks until nothing is grey but what Ps hold; the calling thread is marker 0. */
void pa_workers_mark(void);
/* Marks everything in a stop with that many markers. */
void pa_workers_mark_stw(unsigned markers);
void pa_workers_close(void);
/* Number of threads besides the driver wanted and started as far as possible. */
void pa_workers_ensure(unsigned wanted);

/* ---- roots_scan.c ---- */
void pa_roots_reset_jobs(void);
/* Takes one root job and does it; false when none is left. */
bool pa_roots_do_job(pa_marker *m);
bool pa_roots_jobs_left(void);
void pa_roots_scan_frames(pa_proc *p, pa_gcwork *work);
uint64_t pa_roots_frame_bytes(void);
uint64_t pa_roots_global_bytes(void);
/* In a stop: all frames, handles and ranges, into m's work. */
void pa_roots_scan_all_stw(pa_marker *m);
/* In the final stop: unbarriered ranges and marked conservative objects, again. Returns bytes looked at. */
uint64_t pa_roots_rescan_unbarriered_stw(pa_marker *m);

/* ---- assist.c ---- */
/* p allocated nbytes, is inside and in a slow path: pays what it owes, at most a bounded piece. */
void pa_assist_charge(pa_proc *p, uint64_t nbytes);
/* The same without marking: false, and nothing is charged, when p owes too much for that. */
bool pa_assist_try_charge(pa_proc *p, uint64_t nbytes);
/* p, inside, pays all that it owes, piece by piece with polls between. */
void pa_assist_settle(pa_proc *p);
/* The heap is at its goal with nbytes more and a cycle is due or under way: who allocates has to wait. */
bool pa_assist_must_wait(uint64_t nbytes);
void pa_assist_revise(void);
/* The heap is at its goal and the cycle is not over: p, inside, waits a bounded time for it. */
void pa_assist_wait(pa_proc *p, uint64_t nbytes);

/* ---- sweep.c ---- */
void pa_sweep_begin_stw(void);
/* Sweeps the next few spans; false when everything is swept or claimed. Freed bytes are added. */
bool pa_sweep_some(uint64_t *freed_bytes);
/* Until everything is swept, also by others. */
void pa_sweep_finish(void);
bool pa_sweep_is_done(void);
/* p is about to take span_bytes: pays the sweep debt in proportion. Inside. */
void pa_sweep_pay(uint64_t span_bytes);
void pa_sweep_reset_child(void);

/* ---- overflow.c ---- */
/* Nothing is grey, the world is stopped: follows the pointers of marked objects that could not be written down. True
 * when there were some; then something may be grey again. */
bool pa_overflow_rescan_stw(pa_marker *m);

/* ---- gc_fork.c, checkmark.c, gctrace.c ---- */
/* Once, outside every lock. */
void pa_gc_install_fork(void);
void pa_checkmark_run_stw(void);
void pa_gctrace_write(int fd, const pa_cycle_record *r, uint64_t program_ns, unsigned processors, double cpu_share);

#endif
