"""Each way to lose an object, in every mode, and with the collector held at every yield point of its own."""

import re

import pytest

from cprograms import must_pass
from gc_programs import MODES

CASES = ["move", "built", "delete", "store_into_black", "copy", "clear", "handle", "weak", "unbarriered",
         "conservative", "register", "new_thread", "race", "frames", "find", "junk"]
SEEN = re.compile(r"litmus: (\w+), ([-.\w]+): (\d+) steps in (\d+) cycles(?:, held (\d+) times)?")


def litmus(built, variant, case, mode, tenths, **options):
    out = must_pass([built(variant) / "litmus", f"case={case}", f"mode={mode}", f"tenths={tenths}",
                     *(f"{name}={value}" for name, value in options.items())])
    name, mode_name, steps, cycles, held = SEEN.match(out).groups()
    assert (name, mode_name) == (case, list(MODES)[mode])
    assert int(steps) >= 100 and int(cycles) >= 3
    return int(held or 0)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("case", CASES)
def test_litmus(built, case, mode):
    litmus(built, "asserts", case, mode, 1)


@pytest.mark.parametrize("case", CASES)
def test_litmus_release_build(built, case):
    """The barrier as users get it: no asserts, no yield points, the asymmetric stop."""
    litmus(built, "plain", case, 4, 2)


@pytest.mark.parametrize(
    "case", ["move", "copy", "handle", "weak", "unbarriered", "race", "new_thread", "frames", "find"])
def test_litmus_tsan(built, case):
    litmus(built, "tsan", case, 4, 2, ballast=4000)


@pytest.mark.parametrize("case", ["move", "clear", "register", "conservative", "junk"])
def test_litmus_asan(built, case):
    litmus(built, "asan", case, 4, 2, ballast=4000)


def test_every_case_is_listed(built):
    assert must_pass([built("plain") / "litmus", "list"]).split() == CASES


def test_with_the_collector_held_at_every_point(built):
    """Each point is met by some case, and the cases lose nothing there."""
    points = must_pass([built("asserts") / "litmus", "points"]).split()
    assert points, "the core has no GC_ yield points"
    for number, point in enumerate(points):
        met = 0
        for case in (CASES[number % len(CASES)], "weak"):
            met += litmus(built, "asserts", case, 4, 1, point=point, ballast=2000)
        assert met, f"nobody came to {point}"


@pytest.mark.soak
@pytest.mark.parametrize("case", CASES)
def test_litmus_soak(built, case):
    for mode in (3, 4):
        litmus(built, "plain", case, mode, 6, seed=mode + 50)
