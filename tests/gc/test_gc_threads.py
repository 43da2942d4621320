"""Threads that come, go, sleep, fork and race with stops; weak handles and cleanups."""

import errno
import re

import pytest

from cprograms import must_pass
from gc_programs import MODES

ALL_MODES = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


def attach(built, variant, case, **options):
    out = must_pass([built(variant) / "attach", f"case={case}", *(f"{k}={v}" for k, v in options.items())])
    assert out.startswith(f"attach: {case}, ")


@pytest.mark.parametrize("variant, threads", [("plain", 2000), ("asserts", 2000), ("asan", 300), ("tsan", 300)])
def test_storm_of_short_threads(built, variant, threads):
    attach(built, variant, "storm", threads=threads)


@ALL_MODES
def test_storm_in_every_mode(built, mode):
    attach(built, "asserts", "storm", threads=300, mode=mode)


@ALL_MODES
def test_sleepers_outside_keep_their_frames(built, mode):
    attach(built, "asserts", "sleepers", mode=mode)


@pytest.mark.parametrize("variant", ["plain", "asan", "tsan"])
def test_sleepers(built, variant):
    attach(built, variant, "sleepers", threads=6)


@pytest.mark.parametrize("variant, threads", [("plain", 300), ("asserts", 200), ("asan", 60), ("tsan", 60)])
def test_exit_during_a_cycle_with_full_caches(built, variant, threads):
    attach(built, variant, "exits", threads=threads)


@pytest.mark.parametrize("inside", [0, 1], ids=["outside", "inside"])
# Not under ASan: its own allocator's locks do not survive a fork of a process with threads, and the child starts some.
@pytest.mark.parametrize("variant, forks", [("plain", 30), ("asserts", 20)])
def test_fork_during_a_cycle(built, variant, forks, inside):
    attach(built, variant, "fork", forks=forks, inside=inside)


@pytest.mark.parametrize("variant", ["plain", "asserts"])
def test_several_threads_fork_at_once(built, variant):
    attach(built, variant, "fork", forks=30, workers=1, forkers=2)


@ALL_MODES
def test_fork_in_every_mode(built, mode):
    attach(built, "asserts", "fork", forks=6, mode=mode)


def stopall(built, variant, mode, tenths, threads):
    out = must_pass([built(variant) / "stopall", f"tenths={tenths}", f"mode={mode}", f"threads={threads}"])
    numbers = re.match(
        r"stopall: [-.\w]+: (\d+) collections, (\d+) visits, (\d+) refused, (\d+) looks", out).groups()
    collections, visits, _, looks = map(int, numbers)
    assert collections >= 5 and visits >= 100
    if variant != "plain":
        assert looks >= collections, "the core has no yield point GC_STOPPED in its stops"


@ALL_MODES
@pytest.mark.parametrize("variant", ["plain", "asserts"])
def test_nobody_is_inside_a_stopped_world(built, variant, mode):
    stopall(built, variant, mode, 8, 2)


def test_nobody_is_inside_a_stopped_world_tsan(built):
    stopall(built, "tsan", 0, 10, 3)


@pytest.mark.parametrize("variant, nodes", [("plain", 400_000), ("asserts", 200_000), ("tsan", 20_000)])
def test_what_assists_hold_back_is_not_marked_in_the_stop(built, variant, nodes):
    assert re.match(r"tail: \d+ cycles\n$", must_pass([built(variant) / "tail", f"nodes={nodes}"]))


@pytest.mark.parametrize("variant", ["plain", "asan", "tsan"])
def test_slices_of_the_collectors_threads(built, variant):
    """Theirs are short where the kernel has slices of one's own; those of the program's threads stay."""
    assert re.match(r"slices: (not )?known, \d+ threads\n$", must_pass([built(variant) / "slices"]))


@pytest.mark.parametrize("error", [errno.EPERM, errno.EINVAL, errno.E2BIG, errno.ENOSYS], ids=errno.errorcode.get)
def test_slices_may_be_refused(built, error):
    assert must_pass([built("plain") / "slices", f"refuse={error}"]).startswith("slices: not known, ")


@pytest.mark.parametrize("case", ["basics", "foreign", "handles", "resurrect", "frees", "cleanups", "notify"])
@ALL_MODES
def test_weak(built, case, mode):
    must_pass([built("asserts") / "weak", f"case={case}", f"mode={mode}", "tenths=3"])


@pytest.mark.parametrize("variant", ["plain", "asan", "tsan"])
@pytest.mark.parametrize("case", ["basics", "foreign", "handles", "resurrect", "frees", "cleanups", "notify"])
def test_weak_builds(built, variant, case):
    must_pass([built(variant) / "weak", f"case={case}", "tenths=5"])


@pytest.mark.parametrize("case", ["same", "new"])
@pytest.mark.parametrize("variant", ["plain", "asserts", "asan"])
def test_inlined_calls_do_what_their_twins_do(built, variant, case):
    must_pass([built(variant) / "inline", f"case={case}"])


@pytest.mark.parametrize("variant, mode", [("plain", 4), ("plain", 3), ("asserts", 0), ("asserts", 4), ("tsan", 4)])
def test_inlined_calls_and_their_twins_together(built, variant, mode):
    must_pass([built(variant) / "inline", "case=mixed", f"mode={mode}", "tenths=6"])


@pytest.mark.soak
def test_stops_soak(built):
    for mode in MODES.values():
        stopall(built, "plain", mode, 30, 3)


@pytest.mark.soak
@pytest.mark.parametrize("inside", [0, 1])
def test_fork_storm_soak(built, inside):
    attach(built, "plain", "fork", forks=150, workers=4, inside=inside)


@pytest.mark.soak
def test_thread_storm_soak(built):
    attach(built, "plain", "storm", threads=20000, at_once=32)
