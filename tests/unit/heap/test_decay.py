"""heap/decay: what may stay, what is released when; and the heap's slow paths doing so under a clock that is set."""

import contextlib
import itertools
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whitebox import ffi, lib

MIB = 1 << 20
MS = 1_000_000
SLACK = MIB
LEAST = 64 << 10
PIECE = 32 * MIB


def look(x, now_ms, inuse, free_backed, peak=None, hollow=0, taken=0, unbacked=0):
    """Returns what is owed after the look."""
    lib.pa_xdecay_look(x, now_ms * MS, inuse, inuse if peak is None else peak, hollow, free_backed, taken, unbacked)
    return x.owed_bytes


def take_all(x):
    pieces = []
    while piece := lib.pa_xdecay_take_piece(x):
        pieces.append(piece)
    return pieces


def test_allowance():
    assert lib.pa_xdecay_allowance(0, 0) == SLACK
    assert lib.pa_xdecay_allowance(9 * MIB, 9 * MIB) == SLACK
    assert lib.pa_xdecay_allowance(100 * MIB, 100 * MIB) == 10 * MIB
    assert lib.pa_xdecay_allowance(100 * MIB, 10 * MIB) == 100 * MIB
    assert lib.pa_xdecay_allowance(10 * MIB, 100 * MIB) == 0


def test_what_a_recent_peak_needed_stays():
    """A phase of 200 MiB that comes back within a second or two loses no page."""
    x = ffi.new("pa_xdecay *")
    for now in range(0, 20_000, 500):
        busy = now % 2000 < 500
        assert look(x, now, 200 * MIB if busy else 10 * MIB, 0 if busy else 190 * MIB) == 0
        assert take_all(x) == []


def test_a_peak_between_two_looks_counts():
    x = ffi.new("pa_xdecay *")
    for now in range(0, 20_000, 500):
        assert look(x, now, 10 * MIB, 190 * MIB, peak=200 * MIB) == 0


def test_pages_that_went_back_inside_spans_were_no_peaks():
    """Of 200 MiB 60 are free and 120 lie in spans with survivors: as soon as these go back, so may those."""
    x = ffi.new("pa_xdecay *")
    assert look(x, 0, 200 * MIB, 0) == 0
    assert look(x, 500, 140 * MIB, 60 * MIB) == 0
    assert look(x, 1000, 140 * MIB, 60 * MIB) == 0
    assert look(x, 1500, 140 * MIB, 60 * MIB) == 0
    assert look(x, 2000, 20 * MIB, 60 * MIB, hollow=120 * MIB) > 40 * MIB
    x.owed_bytes = 0
    assert look(x, 2500, 140 * MIB, 14 * MIB) == 0          # they are in use again


def test_idle_memory_goes_in_a_few_looks():
    """Once the peak is forgotten, a look releases three quarters of what is too much; RSS is close to live then."""
    x = ffi.new("pa_xdecay *")
    assert look(x, 0, 1000 * MIB, 0) == 0
    free, history = 900 * MIB, []
    for now in range(500, 5001, 500):
        look(x, now, 100 * MIB, free)
        free -= sum(take_all(x))
        history.append(free)
    assert history[0] == history[1] == 900 * MIB            # the peak is a second old
    assert all(later <= earlier for earlier, later in zip(history, history[1:]))
    assert 100 * MIB + history[-1] <= 1.15 * 100 * MIB
    for now in range(5500, 20_000, 500):
        look(x, now, 100 * MIB, free)
        free -= sum(take_all(x))
    assert 10 * MIB - LEAST <= free <= 10 * MIB + LEAST


def test_pieces_are_bounded():
    x = ffi.new("pa_xdecay *")
    owed = look(x, 10_000, 0, 1000 * MIB)
    pieces = take_all(x)
    assert sum(pieces) == owed and max(pieces) == PIECE and len(pieces) == -(-owed // PIECE)


def test_little_is_not_worth_a_call():
    x = ffi.new("pa_xdecay *")
    assert look(x, 10_000, 0, SLACK + LEAST - 1) == 0
    assert look(x, 20_000, 0, SLACK + LEAST) == LEAST       # and it is not done in ever smaller parts


def wander(x, now_ms, inuse, free, reach):
    """A loop that comes to touch `reach` bytes beyond the most it has in use. Returns (free and backed, faulted)."""
    missing = max(0, reach - free)
    look(x, now_ms, inuse, free + missing, taken=20 * inuse, unbacked=missing)
    return free + missing - sum(take_all(x)), missing


def test_a_loop_that_wanders_comes_to_keep_its_pages():
    x, free, faulted = ffi.new("pa_xdecay *"), 0, []
    for now in range(0, 20_000, 500):
        free, missing = wander(x, now, 20 * MIB, free, 8 * MIB)
        faulted.append(missing)
    assert sum(faulted[1:]) > 0                             # the rule about the peak alone is not enough
    assert sum(faulted[6:]) == 0
    for now in range(20_000, 26_000, 500):                  # it stops
        look(x, now, 0, free)
        free -= sum(take_all(x))
    assert free <= SLACK + LEAST


def test_growth_is_not_taken_for_pages_let_go_too_early():
    x = ffi.new("pa_xdecay *")
    for now in range(0, 5000, 500):
        inuse = (now // 500 + 1) * 20 * MIB
        look(x, now, inuse, 0, taken=20 * MIB, unbacked=20 * MIB)
    assert x.missed_bytes == 0


def test_what_was_missed_is_bounded_by_the_peak():
    x = ffi.new("pa_xdecay *")
    for now in range(0, 20_000, 500):
        look(x, now, 20 * MIB, 300 * MIB, taken=400 * MIB, unbacked=200 * MIB)
        take_all(x)
    assert x.missed_bytes == 10 * MIB


def test_a_clock_that_stands_or_runs_backwards():
    x = ffi.new("pa_xdecay *")
    assert look(x, 10_000, 500 * MIB, 0) == 0
    assert look(x, 10_000, 0, 500 * MIB) == 0
    assert look(x, 9_000, 0, 500 * MIB) == 0


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 1 << 34), st.integers(0, 1 << 34),
                          st.integers(0, 1 << 34)), max_size=30))
def test_never_below_what_may_stay(steps):
    x = ffi.new("pa_xdecay *")
    now = 0
    for dt, inuse, more, free in steps:
        now += dt
        peak = inuse + more
        owed = look(x, now, inuse, free, peak)
        assert x.peak_bytes >= peak
        allowed = lib.pa_xdecay_allowance(max(x.peak_bytes, x.previous_peak_bytes), inuse) + x.missed_bytes
        excess = max(0, free - allowed)
        assert owed <= max(excess, LEAST if excess >= LEAST else 0)
        assert owed >= excess * 3 // 4 or excess < LEAST


# ---- The heap


STARTS = itertools.count(10**15, 10**12)


@contextlib.contextmanager
def clock():
    """A clock in ms that only moves when told, starting well after everything that happened before."""
    start = next(STARTS)

    class Clock:
        ms = 0

        def to(self, ms):
            self.ms = ms
            lib.pa_xclock_set(self.ns(ms))

        def ns(self, ms):
            return start + ms * MS

    one = Clock()
    one.to(0)
    try:
        yield one
    finally:
        lib.pa_xclock_set(0)
        lib.pa_free_os_memory()
        assert lib.pa_heap_check(ffi.NULL, 0) == 0


def slow_call():
    lib.pa_free(lib.pa_malloc(9 * MIB))     # larger than any bin


def stats():
    out = ffi.new("pa_mem_stats *")
    lib.pa_read_mem_stats(out)
    return out


def released():
    return stats().heap_released_total


def test_slow_paths_release_when_time_has_passed():
    lib.pa_free_os_memory()
    with clock() as now:
        now.to(10_000)
        slow_call()
        kept = [lib.pa_malloc(3 * MIB) for _ in range(100)]
        for block in kept[10:]:
            lib.pa_free(block)
        before, free_before = released(), lib.pa_xdecay_free_backed()
        assert free_before >= 250 * MIB
        for _ in range(100):
            slow_call()                     # no time passes: nothing is released
        assert released() == before
        now.to(10_400)
        slow_call()
        assert released() == before
        history = []
        for ms in range(10_500, 16_500, 500):
            now.to(ms)
            for _ in range(12):             # a piece each
                slow_call()
            history.append(lib.pa_xdecay_free_backed())
        assert history[0] > 250 * MIB and history[-1] < 20 * MIB
        # A slow call may take 9 MiB that nothing stood behind, and leave them backed.
        assert all(later <= earlier + 9 * MIB for earlier, later in zip(history, history[1:]))
        assert released() - before >= free_before - 20 * MIB
        for block in kept[:10]:
            lib.pa_free(block)


def test_who_comes_late_does_not_look_again():
    """Two threads find a look due; the slower one arrives after the other's, with an older time."""
    lib.pa_free_os_memory()
    with clock() as now:
        now.to(60_000)
        slow_call()
        rounds = lib.pa_xdecay_rounds()
        lib.pa_xdecay_tick(now.ns(60_600))
        assert lib.pa_xdecay_rounds() == rounds + 1
        lib.pa_xdecay_tick(now.ns(60_600))
        lib.pa_xdecay_tick(now.ns(60_599))
        assert lib.pa_xdecay_rounds() == rounds + 1
        lib.pa_xdecay_tick(now.ns(61_200))
        assert lib.pa_xdecay_rounds() == rounds + 2


def test_a_steady_loop_keeps_its_pages():
    lib.pa_free_os_memory()
    with clock() as now:
        blocks, before = [], None
        for ms in range(20_000, 26_000, 100):
            now.to(ms)
            blocks = [lib.pa_malloc(3 * MIB) for _ in range(40)]
            for block in blocks:
                lib.pa_free(block)
            if ms == 21_000:
                before = released()
        assert released() == before


def test_a_loop_of_mixed_sizes_comes_to_keep_its_pages():
    """First fit wanders: such a loop touches more pages than it ever has in use."""
    lib.pa_free_os_memory()
    random, before = Random(1), None
    with clock() as now:
        for ms in range(20_000, 50_000, 20):
            now.to(ms)
            held = []
            for _ in range(16):
                held.append(lib.pa_malloc(int(100_000 * 40 ** random.random())))
                if len(held) == 4:
                    lib.pa_free(held.pop(0))
            for block in held:
                lib.pa_free(block)
            if ms == 30_000:
                before = released()
        assert released() - before < 4 * MIB    # of 1,000 rounds; 27 MiB by the peak alone
        for ms in range(50_000, 60_000, 500):
            lib.pa_xdecay_tick(now.ns(ms))
        inuse = stats().heap_inuse          # of other tests, most of it
        assert lib.pa_xdecay_free_backed() <= lib.pa_xdecay_allowance(inuse, inuse) + LEAST


def test_a_thread_that_only_frees_releases():
    lib.pa_free_os_memory()
    with clock() as now:
        now.to(30_000)
        blocks = [lib.pa_malloc(9 * MIB) for _ in range(40)]
        before = released()
        for i, block in enumerate(blocks):
            now.to(30_500 + 250 * i)
            lib.pa_free(block)
        assert released() - before > 200 * MIB


@pytest.mark.parametrize("used", [True, False], ids=["used", "unused"])
def test_bins_that_nobody_uses_are_given_up(used):
    with clock() as now:
        now.to(40_000)
        large = [lib.pa_malloc(9 * MIB) for _ in range(3)]  # to free one is a slow path that leaves the bins alone
        for _ in range(8):      # a thread keeps this much once it has taken from its bins
            blocks = [lib.pa_malloc(100_000) for _ in range(8)]
            for block in blocks:
                lib.pa_free(block)
            if lib.pa_xheap_walk().cached_pages >= 8 * 13:
                break
        assert lib.pa_xheap_walk().cached_pages >= 8 * 13
        for i, block in enumerate(large):
            if used:
                lib.pa_free(lib.pa_malloc(100_000))
            now.to(40_600 + 600 * i)
            lib.pa_free(block)
        assert lib.pa_xheap_walk().cached_pages == (8 * 13 if used else 0)
