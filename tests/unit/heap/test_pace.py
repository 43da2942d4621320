"""heap/pace in simulation: no window of five seconds costs more than its share, and the work gets done."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from whitebox import ffi, lib

MIB, GIB = 1 << 20, 1 << 30
MS, S = 1_000_000, 1_000_000_000
WINDOW = 5 * S
START = 10**15


def pace():
    return ffi.gc(lib.pa_xpace_new(), lib.pa_xpace_delete)


def release(x, left, ns_per_mib, percent, until=120 * S, most=32 * MIB, idle_before=0):
    """A thread that releases `left` bytes as the pace allows. Returns [(time, work, bytes)]; works are in sequence."""
    now, pieces = START + idle_before, []
    while left and now < START + until:
        nbytes = lib.pa_xpace_bytes(x, now, percent, min(most, left))
        if nbytes:
            work = nbytes * ns_per_mib // MIB
            now += work
            lib.pa_xpace_spent(x, now, work, nbytes)
            pieces.append((now, work, nbytes))
            left -= nbytes
        else:
            rest = lib.pa_xpace_rest_ns(x, now, percent)
            assert rest > 0, "neither work nor rest: the thread would spin"
            now += rest
            assert lib.pa_xpace_bytes(x, now, percent, min(most, left)) > 0, "woke too early"
        assert lib.pa_xpace_check(x)
    return pieces


def worst_share(pieces):
    """The most work in any five seconds, in percent of them; it lies in a window that ends with a piece."""
    return max(sum(work for at, work, _ in pieces if end - WINDOW < at <= end) for end, _, _ in pieces) / WINDOW * 100


@pytest.mark.parametrize("percent", [1, 2, 50])
@pytest.mark.parametrize("ns_per_mib", [5_000, 60_000, 100_000, 400_000, 5_000_000])
def test_no_window_costs_more_than_its_share(percent, ns_per_mib):
    pieces = release(pace(), 8 * GIB, ns_per_mib, percent)
    largest_guess = 2 * 32 * ns_per_mib / WINDOW * 100 if ns_per_mib > 200_000 else 0   # until the cost is measured
    assert worst_share(pieces) <= percent * 1.001 + largest_guess


@pytest.mark.parametrize("ns_per_mib", [20_000, 60_000, 95_000])
def test_half_of_two_gib_in_one_window(ns_per_mib):
    """The whole share of the window may be used at once: 1 GiB takes no longer than its madvise."""
    pieces = release(pace(), 1 * GIB, ns_per_mib, 2)
    assert pieces[-1][0] - START <= 1024 * ns_per_mib + 1
    assert sum(nbytes for _, _, nbytes in pieces) == GIB


def test_it_ends_in_time_and_goes_on_after_a_rest():
    pieces = release(pace(), 2 * GIB, 98_000, 2)
    assert sum(nbytes for _, _, nbytes in pieces) == 2 * GIB
    assert pieces[-1][0] - START < 11 * S


def test_looking_counts_as_work():
    x = pace()
    for _ in range(21):
        lib.pa_xpace_spent(x, START, 5 * MS, 0)
    assert lib.pa_xpace_bytes(x, START, 2, 32 * MIB) == 0
    assert 5 * S <= lib.pa_xpace_rest_ns(x, START, 2) <= 5 * S + 250 * MS


def test_the_cost_is_measured():
    x = pace()
    lib.pa_xpace_spent(x, START, 10 * MS, 100 * MIB)
    assert lib.pa_xpace_ns_per_mib(x) == 100_000
    lib.pa_xpace_spent(x, START, 1, 100)                        # too little to tell anything
    assert lib.pa_xpace_ns_per_mib(x) == 100_000
    lib.pa_xpace_spent(x, START, 30 * MS, 100 * MIB)            # dearer: half of the way at once
    assert lib.pa_xpace_ns_per_mib(x) == 200_000
    lib.pa_xpace_spent(x, START, 10 * MS, 100 * MIB)            # cheaper: a quarter
    assert lib.pa_xpace_ns_per_mib(x) == 175_000
    lib.pa_xpace_spent(x, START, 0, 100 * MIB)                  # a clock that stands
    assert lib.pa_xpace_ns_per_mib(x) >= 1000


def test_a_lower_share_waits_for_the_window_to_empty():
    """2 % were used; from now on 1 % is allowed: nothing until the average is down to that."""
    x = pace()
    lib.pa_xpace_spent(x, START, 100 * MS, 1000 * MIB)
    assert lib.pa_xpace_bytes(x, START, 1, MIB) == 0
    rest = lib.pa_xpace_rest_ns(x, START, 1)
    assert lib.pa_xpace_bytes(x, START + rest - 1, 1, MIB) == 0
    assert lib.pa_xpace_bytes(x, START + rest, 1, MIB) == MIB


def test_a_clock_that_stands_or_runs_backwards():
    x = pace()
    lib.pa_xpace_spent(x, START, 100 * MS, 1000 * MIB)
    assert lib.pa_xpace_bytes(x, START - 60 * S, 2, MIB) == 0
    assert lib.pa_xpace_rest_ns(x, START - 60 * S, 2) > 0
    assert lib.pa_xpace_check(x)


@given(st.lists(st.tuples(st.integers(0, 3 * S), st.integers(0, 300 * MS), st.integers(0, 64 * MIB),
                          st.sampled_from([1, 2, 50])), max_size=60))
@example([(0, 851889, 851890, 1), (0, 49148112, 0, 1), (0, 0, 1, 1)])  # a byte was cheap enough for a full window
def test_any_sequence(steps):
    x, now, done = pace(), START, []
    for dt, work, most, percent in steps:
        now += dt
        share = WINDOW * percent // 100
        nbytes = lib.pa_xpace_bytes(x, now, percent, most)
        used = sum(w for at, w in done if at > now - WINDOW)
        assert nbytes <= most
        if nbytes:
            assert used <= share or most == 0 or lib.pa_xpace_ns_per_mib(x) <= 1000
        elif most:
            assert 0 < lib.pa_xpace_rest_ns(x, now, percent) <= WINDOW + S // 4
        lib.pa_xpace_spent(x, now, work, most)
        done.append((now, work))
        assert lib.pa_xpace_check(x)
