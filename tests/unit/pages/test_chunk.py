"""A chunk's 512-bit maps against Python integers and lists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whitebox import ffi, lib

ONES = (1 << 512) - 1


def words(number):
    return ffi.new("uint64_t[8]", [number >> (64 * i) & (1 << 64) - 1 for i in range(8)])


def number(array):
    return sum(w << (64 * i) for i, w in enumerate(array))


def span(first, count):
    return ((1 << count) - 1) << first


ranges = st.integers(0, 511).flatmap(lambda f: st.tuples(st.just(f), st.integers(1, 512 - f)))
# Long runs as well as noise: xor of a few spans, or any bits at all.
spans = st.lists(ranges, max_size=12).map(lambda rs: [span(*r) for r in rs])


def xor(numbers):
    total = 0
    for n in numbers:
        total ^= n
    return total


bits = st.one_of(spans.map(xor), st.integers(0, ONES))


def clear_runs(taken):
    """[(start, length)] of the zeros of a 512-bit number, in order."""
    found, start = [], None
    for i in range(513):
        free = i < 512 and not taken >> i & 1
        if free and start is None:
            start = i
        elif not free and start is not None:
            found.append((start, i - start))
            start = None
    return found


@given(bits, ranges)
def test_set_clear_count(before, at):
    w = words(before)
    assert lib.pa_xbits_count(w, *at) == (before & span(*at)).bit_count()
    lib.pa_xbits_set(w, *at)
    assert number(w) == before | span(*at)
    lib.pa_xbits_clear(w, *at)
    assert number(w) == before & ~span(*at)


@pytest.mark.parametrize("at", [(0, 1), (63, 1), (64, 1), (511, 1), (0, 64), (1, 63), (63, 2), (0, 512), (64, 448),
                                (100, 300)])
def test_ranges_at_word_borders(at):
    w = words(0)
    lib.pa_xbits_set(w, *at)
    assert number(w) == span(*at)


@given(bits, st.integers(1, 512), st.integers(0, 511))
def test_find_clear(taken, n, start):
    expected = next((max(s, start) for s, length in clear_runs(taken) if s + length - max(s, start) >= n), 512)
    assert lib.pa_xbits_find_clear(words(taken), start, n) == expected


@given(st.integers(0, (1 << 64) - 1), st.integers(1, 64))
def test_word_runs(x, n):
    expected = sum(1 << i for i in range(65 - n) if x >> i & span(0, n) == span(0, n))
    assert lib.pa_xword_runs(x, n) == expected


SUMMARIZED = {
    "all free": (0, (512, 512, 512)),
    "all taken": (ONES, (0, 0, 0)),
    "first taken": (1, (0, 511, 511)),
    "last taken": (1 << 511, (511, 511, 0)),
    "middle taken": (1 << 255, (255, 256, 256)),
    "62 free inside a word": (ONES & ~span(65, 62), (0, 62, 0)),
    "63 free at a word's start": (ONES & ~span(64, 63), (0, 63, 0)),
    "63 free at a word's end": (ONES & ~span(65, 63), (0, 63, 0)),
    "64 free across a border": (ONES & ~span(100, 64), (0, 64, 0)),
    "every other": (int("5" * 128, 16), (0, 1, 1)),
    "longest in the last word": (ONES & ~span(3, 2) & ~span(450, 5), (0, 5, 0)),
}


@pytest.mark.parametrize("name", SUMMARIZED)
def test_summarize(name):
    taken, expected = SUMMARIZED[name]
    s = lib.pa_xchunk_summarize(words(taken))
    assert (lib.pa_xsummary_start(s), lib.pa_xsummary_max(s), lib.pa_xsummary_end(s)) == expected


@given(bits)
def test_summarize_any(taken):
    runs = clear_runs(taken)
    start = next((length for s, length in runs if s == 0), 0)
    end = next((length for s, length in runs if s + length == 512), 0)
    s = lib.pa_xchunk_summarize(words(taken))
    assert (lib.pa_xsummary_start(s), lib.pa_xsummary_max(s), lib.pa_xsummary_end(s)) == (
        start, max((length for _, length in runs), default=0), end)


def find_backed(alloc, scavenged, below, most, align):
    first = ffi.new("unsigned *")
    n = lib.pa_xchunk_find_backed(words(alloc), words(scavenged), below, most, align, first)
    return (first[0], n) if n else None


def expected_backed(alloc, scavenged, below, most, align):
    for s, length in reversed(clear_runs(alloc | scavenged)):
        top = min(s + length, below) // align * align
        n = min(top - s, most) // align * align
        if n > 0:
            return top - n, n
    return None


@given(bits, bits, st.integers(0, 512), st.integers(1, 512), st.sampled_from([1, 1, 2, 8, 64]))
def test_find_backed(alloc, noise, below, most, align):
    scavenged = noise & ~alloc
    assert find_backed(alloc, scavenged, below, most, align) == expected_backed(alloc, scavenged, below, most, align)


BACKED = {
    "everything": ((0, 0, 512, 512, 1), (0, 512)),
    "the top end of a run": ((0, 0, 512, 10, 1), (502, 10)),
    "below cuts a run": ((0, 0, 100, 10, 1), (90, 10)),
    "below 0": ((0, 0, 0, 512, 1), None),
    "nothing free": ((ONES, 0, 512, 512, 1), None),
    "nothing backed": ((0, ONES, 512, 512, 1), None),
    "the higher of two runs": ((ONES & ~span(3, 50) & ~span(400, 2), 0, 512, 512, 1), (400, 2)),
    "a misaligned run is passed over": ((ONES & ~span(3, 50) & ~span(401, 7), 0, 512, 512, 8), (8, 40)),
    "64 KiB pages: a multiple of eight": ((0, 0, 509, 20, 8), (488, 16)),
    "at most less than the alignment": ((0, 0, 512, 4, 8), None),
}


@pytest.mark.parametrize("name", BACKED)
def test_find_backed_cases(name):
    arguments, expected = BACKED[name]
    assert find_backed(*arguments) == expected
