"""Page caches: which block is taken, first fit inside it, and everything back where it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagesupport import ARENA, BASE, CHUNK, PAGE, Pages
from whitebox import ffi, lib

ONES = (1 << 64) - 1


def bitmap(*pages):
    return sum(1 << p for p in set(pages))


# name -> pages taken before (index, count), the block that is taken, the bits of its free pages
FILLED = {
    "nothing taken": ([], 0, ONES),
    "the first page taken": ([(0, 1)], 0, ONES & ~1),
    "a block taken": ([(0, 64)], 64, ONES),
    "all of a block but one page": ([(0, 40), (41, 23)], 0, 1 << 40),
    "holes at both ends": ([(1, 62)], 0, 1 | 1 << 63),
    "a whole chunk taken": ([(0, CHUNK)], CHUNK, ONES),
    "the last block of a chunk": ([(0, CHUNK - 64)], CHUNK - 64, ONES),
    "taken up to the middle of a block": ([(0, 64 * 3 + 5)], 64 * 3, ONES & ~0x1f),
    "a whole arena taken but its last page": ([(0, ARENA - 1)], ARENA - 64, 1 << 63),
}


@pytest.mark.parametrize("name", FILLED)
def test_fill_and_flush(name):
    taken, block, free = FILLED[name]
    p = Pages([(0, 2 * ARENA)])
    for page, n in taken:
        p.alloc_at(page, n)
    before = p.counters()
    c = p.fill()
    count = free.bit_count()
    assert (c.base, c.free, c.scavenged) == (BASE + block * PAGE, free, free)
    assert p.alloc_word(block) == ONES and p.scavenged_word(block) == 0
    p.check()
    during = p.counters()
    assert during.free_pages == before.free_pages - count
    assert during.scavenged_pages == before.scavenged_pages - count
    p.flush(c)
    assert lib.pa_xcache_empty(ffi.addressof(c)) and (c.base, c.free, c.scavenged) == (0, 0, 0)
    assert p.alloc_word(block) == ONES & ~free and p.scavenged_word(block) == free
    after = p.counters()
    assert (after.free_pages, after.scavenged_pages) == (before.free_pages, before.scavenged_pages)
    p.check()


def test_nothing_free_gives_an_empty_cache():
    p = Pages([(0, CHUNK)])
    p.alloc(CHUNK)
    c = p.fill()
    assert (c.base, c.free, c.scavenged) == (0, 0, 0)
    p.flush(c)
    p.check()


def test_nothing_grown_gives_an_empty_cache():
    p = Pages([])
    assert lib.pa_xcache_empty(ffi.new("pa_xcache *", p.fill()))
    p.check()


def test_two_caches_hold_different_blocks():
    p = Pages([(0, ARENA)])
    a, b = p.fill(), p.fill()
    assert (a.base, b.base) == (BASE, BASE + 64 * PAGE)
    assert p.alloc(1) == 128
    p.flush(b)
    assert p.alloc(1) == 64
    p.flush(a)
    assert p.alloc(1) == 0
    p.check()


def test_backed_and_scavenged_pages_are_told_apart():
    p = Pages([(0, CHUNK)])
    p.alloc(8)
    p.free(2, 3)    # backed
    p.free(6, 2)    # backed
    c = p.fill()
    assert c.free == ONES & ~0b00100011 and c.scavenged == ONES & ~0xff
    assert p.cache_alloc(c, 3) == (2, 0)
    assert p.cache_alloc(c, 4) == (6, 2)
    p.flush(c)
    assert p.scavenged_word(0) == ONES & ~0b1111111111
    p.free(2, 3)
    assert p.find_backed(64) == (2, 3)    # the index learned of the chunk
    p.check()


def test_flush_marks_backed_pages_for_the_scavenger():
    p = Pages([(0, CHUNK)])
    p.alloc(3)
    p.free(0, 3)
    c = p.fill()
    assert p.find_backed(64) is None      # in the cache: not the scavenger's; the chunk leaves the index
    p.flush(c)
    assert p.find_backed(64) == (0, 3)
    p.check()


ALLOCATED = {
    "the first page": (ONES, 1, 0),
    "the whole block": (ONES, 64, 0),
    "no whole block": (ONES & ~1, 64, None),
    "63 behind the first": (ONES & ~1, 63, 1),
    "first fit, not best": (bitmap(*range(3, 9), *range(20, 22)), 2, 3),
    "a hole too small is passed": (bitmap(0, 2, 3, 5, 6, 7), 3, 5),
    "the last page": (1 << 63, 1, 63),
    "nothing fits": (0x5555555555555555, 2, None),
    "empty": (0, 1, None),
}


@pytest.mark.parametrize("name", ALLOCATED)
def test_alloc(name):
    free, n, expected = ALLOCATED[name]
    c, scavenged = ffi.new("pa_xcache *", (BASE, free, 0)), ffi.new("size_t *")
    got = lib.pa_xcache_alloc(c, n, scavenged)
    assert got == (0 if expected is None else BASE + expected * PAGE)
    assert c.free == (free if expected is None else free & ~(((1 << n) - 1) << expected))


@given(st.integers(0, ONES), st.integers(0, ONES), st.lists(st.integers(1, 64), max_size=20))
def test_alloc_like_a_list(free, noise, sizes):
    c = ffi.new("pa_xcache *", (BASE, free, free & noise))
    scavenged, out = free & noise, ffi.new("size_t *")
    for n in sizes:
        run = (1 << n) - 1
        at = next((i for i in range(65 - n) if free >> i & run == run), None)
        got = lib.pa_xcache_alloc(c, n, out)
        assert got == (0 if at is None else BASE + at * PAGE)
        assert out[0] == (0 if at is None else (scavenged >> at & run).bit_count())
        if at is not None:
            free &= ~(run << at)
            scavenged &= ~(run << at)
        assert (c.free, c.scavenged) == (free, scavenged)
