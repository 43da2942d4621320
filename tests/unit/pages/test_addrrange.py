"""The list of grown ranges against a Python set of chunks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whitebox import ffi, lib


def make(ranges):
    x = ffi.gc(lib.pa_xranges_new(64), lib.pa_xranges_delete)
    for r in ranges:
        lib.pa_xranges_add(x, *r)
    return x


def listed(x):
    out = ffi.new("uint32_t[128]")
    n = lib.pa_xranges_list(x, out, 64)
    return [(out[2 * i], out[2 * i + 1]) for i in range(n)]


ADDED = {
    "one": ([(5, 6)], [(5, 6)]),
    "upwards, touching": ([(0, 16), (16, 32), (32, 48)], [(0, 48)]),
    "downwards, touching": ([(32, 48), (16, 32), (0, 16)], [(0, 48)]),
    "apart": ([(0, 16), (64, 80), (32, 48)], [(0, 16), (32, 48), (64, 80)]),
    "the piece between joins both": ([(0, 16), (32, 48), (16, 32)], [(0, 48)]),
    "joining in the middle of a list": ([(0, 1), (4, 5), (8, 9), (12, 13), (5, 8)], [(0, 1), (4, 9), (12, 13)]),
    "in front": ([(8, 9), (0, 1)], [(0, 1), (8, 9)]),
}


@pytest.mark.parametrize("name", ADDED)
def test_add(name):
    before, after = ADDED[name]
    x = make(before)
    assert listed(x) == after
    assert lib.pa_xranges_check(x)


@given(st.permutations(range(24)), st.integers(0, 24), st.integers(0, 25), st.integers(1, 8))
def test_contains_and_overlaps_like_a_set(order, count, first, n):
    model = set(order[:count])
    x = make([(c, c + 1) for c in order[:count]])
    asked = set(range(first, first + n))
    assert lib.pa_xranges_check(x)
    assert lib.pa_xranges_contains(x, first, first + n) == (asked <= model)
    assert lib.pa_xranges_overlaps(x, first, first + n) == bool(asked & model)
