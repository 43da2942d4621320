"""Summaries: three run lengths in a word, and the parent of neighbours, against a walk over lists of pages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whitebox import ffi, lib

WHOLE_ROOT = 1 << 21


def unpack(s):
    return lib.pa_xsummary_start(s), lib.pa_xsummary_max(s), lib.pa_xsummary_end(s)


def merge(children, log2_pages):
    packed = [lib.pa_xsummary_pack(*c) for c in children]
    return unpack(lib.pa_xsummary_merge(ffi.new("uint64_t[]", packed), len(packed), log2_pages))


def runs(free):
    """(start, max, end) of a list of booleans, the slow way."""
    text = "".join("x" if f else " " for f in free)
    start = len(text) - len(text.lstrip("x"))
    end = len(text) - len(text.rstrip("x"))
    return start, max(map(len, text.split(" "))), end


PACKED = {
    "nothing free": ((0, 0, 0), 0),
    "one page at the start": ((1, 1, 0), 1 | 1 << 21),
    "one page at the end": ((0, 1, 1), 1 << 21 | 1 << 42),
    "one page inside": ((0, 1, 0), 1 << 21),
    "three different runs": ((5, 100, 7), 5 | 100 << 21 | 7 << 42),
    "a free chunk": ((512, 512, 512), 512 | 512 << 21 | 512 << 42),
    "the longest runs that fields hold": ((WHOLE_ROOT - 1, WHOLE_ROOT - 1, 0), (WHOLE_ROOT - 1) * (1 + WHOLE_ROOT)),
    "all but the first page of a root": ((0, WHOLE_ROOT - 1, WHOLE_ROOT - 1), (WHOLE_ROOT - 1) * (1 << 21 | 1 << 42)),
    "a whole root is bit 63 alone": ((WHOLE_ROOT,) * 3, 1 << 63),
}


@pytest.mark.parametrize("name", PACKED)
def test_pack(name):
    fields, word = PACKED[name]
    assert lib.pa_xsummary_pack(*fields) == word
    assert unpack(word) == fields


@pytest.mark.parametrize("log2_pages", [9, 12, 15, 18, 21])
def test_all_free(log2_pages):
    assert unpack(lib.pa_xsummary_all_free(log2_pages)) == (1 << log2_pages,) * 3


FULL = (512, 512, 512)
NONE = (0, 0, 0)
MERGED = {
    "nothing": ([NONE] * 8, 9, NONE),
    "everything": ([FULL] * 8, 9, (4096,) * 3),
    "one child is itself": ([(3, 9, 4)], 9, (3, 9, 4)),
    "only the first": ([FULL] + [NONE] * 7, 9, (512, 512, 0)),
    "only the last": ([NONE] * 7 + [FULL], 9, (0, 512, 512)),
    "a run across one border": ([(0, 10, 10), (20, 20, 5)] + [NONE] * 6, 9, (0, 30, 0)),
    "a run across whole children": ([NONE, (0, 1, 1), FULL, FULL, (2, 2, 0)] + [NONE] * 3, 9, (0, 1027, 0)),
    "the start goes on into a partial child": ([FULL, FULL, (7, 300, 300)] + [NONE] * 5, 9, (1031, 1031, 0)),
    "the end comes from a partial child": ([NONE] * 5 + [(300, 300, 7), FULL, FULL], 9, (0, 1031, 1031)),
    "the longest is inside a child": ([(1, 400, 1)] + [(2, 2, 2)] * 7, 9, (1, 400, 2)),
    "a hole breaks start and end": ([FULL] * 3 + [(511, 511, 0)] + [FULL] * 4, 9, (2047, 2048, 2048)),
    "eight free children make a root": ([(1 << 18,) * 3] * 8, 18, (WHOLE_ROOT,) * 3),
    "one page short of a root": ([(0, (1 << 18) - 1, (1 << 18) - 1)] + [(1 << 18,) * 3] * 7, 18,
                                 (0, WHOLE_ROOT - 1, WHOLE_ROOT - 1)),
}


@pytest.mark.parametrize("name", MERGED)
def test_merge(name):
    children, log2_pages, parent = MERGED[name]
    assert merge(children, log2_pages) == parent


@given(st.lists(st.lists(st.booleans(), min_size=8, max_size=8), min_size=1, max_size=8))
def test_merge_is_the_summary_of_all_pages(children):
    assert merge([runs(c) for c in children], 3) == runs(sum(children, []))
