"""The scavenge index against a Python set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whitebox import ffi, lib

CHUNKS = 1 << 20
NONE = (1 << 64) - 1


def make(marked=()):
    x = ffi.gc(lib.pa_xscavindex_new(CHUNKS), lib.pa_xscavindex_delete)
    for c in marked:
        lib.pa_xscavindex_mark(x, c)
    return x


# Neighbours, neighbours of word and upper-word borders, and far-away chunks.
chunks = st.one_of(st.integers(0, 200), st.sampled_from([63, 64, 4095, 4096, 8191, 262143, 262144, CHUNKS - 1]),
                   st.integers(0, CHUNKS - 1))


@given(st.lists(st.tuples(st.booleans(), chunks), max_size=40), chunks, chunks)
def test_marks_and_finds_like_a_set(steps, a, b):
    x, model = make(), set()
    for mark, c in steps:
        (lib.pa_xscavindex_mark if mark else lib.pa_xscavindex_clear)(x, c)
        (model.add if mark else model.discard)(c)
    for _, c in steps:
        assert lib.pa_xscavindex_test(x, c) == (c in model)
        assert lib.pa_xscavindex_consistent(x, c)
    lo, hi = min(a, b), max(a, b)
    assert lib.pa_xscavindex_highest(x, lo, hi) == max((c for c in model if lo <= c <= hi), default=NONE)


FOUND = {
    "the limit itself": ([70], 0, 70, 70),
    "marks above the limit in its word do not count": ([74, 63], 0, 69, 63),
    "nor in the word of words": ([64 * 64 + 74, 64 * 64 + 64 + 5, 9], 0, 64 * 64 + 64, 9),
    "the lower word is looked at whole": ([64 * 5 + 40, 64 * 4 + 63], 0, 64 * 5 + 3, 64 * 4 + 63),
    "below lo in the same word": ([64], 65, 100, NONE),
    "below lo in another word": ([3], 64, 100, NONE),
    "below lo far away": ([3], 1 << 18, 1 << 19, NONE),
    "nothing": ([], 0, CHUNKS - 1, NONE),
}


@pytest.mark.parametrize("name", FOUND)
def test_highest(name):
    marked, lo, hi, expected = FOUND[name]
    assert lib.pa_xscavindex_highest(make(marked), lo, hi) == expected


def test_walks_down_in_order():
    marked = [0, 1, 63, 64, 4095, 4096, 300000, CHUNKS - 1]
    x, hi, found = make(marked), CHUNKS - 1, []
    while (c := lib.pa_xscavindex_highest(x, 0, hi)) != NONE:
        found.append(c)
        if c == 0:
            break
        hi = c - 1
    assert found == sorted(marked, reverse=True)
