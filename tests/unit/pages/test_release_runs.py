"""What the scavenger takes: dense runs before short ones, high before low, and huge pages as a whole."""

import random

import pytest

from pagesupport import CHUNK, Pages
from whitebox import ffi, lib

NONE = None


def find_dense(p, least, most, below=None):
    below = (1 << 64) - 1 if below is None else p.addr(below)
    page = p.page(lib.pa_xpages_find_dense(p.p, least, most, below, p.out))
    return None if page is None else (page, p.out[0])


def widen(p, page, n, block):
    addr, count = ffi.new("uintptr_t *", p.addr(page)), ffi.new("size_t *", n)
    lib.pa_xpages_widen(p.p, addr, count, block)
    return p.page(addr[0]), count[0]


def backed(*runs, chunks=16):
    """Pages where only these runs (first, n) are free and backed."""
    p = Pages([(0, chunks * CHUNK)])
    assert p.alloc_at(0, chunks * CHUNK)
    for first, n in runs:
        p.free(first, n)
    return p


CASES = {
    "short runs above are passed by": ([(10, 40), (600, 3), (5000, 15)], 16, 512, NONE, (10, 40)),
    "the higher of two": ([(10, 40), (3000, 40), (5000, 15)], 16, 512, NONE, (3000, 40)),
    "a short run above in the same chunk": ([(10, 40), (100, 15)], 16, 512, NONE, (10, 40)),
    "below": ([(10, 40), (3000, 40)], 16, 512, 3000, (10, 40)),
    "exactly as many": ([(10, 16)], 16, 512, NONE, (10, 16)),
    "one too few": ([(10, 15)], 16, 512, NONE, NONE),
    "less is wanted than is dense": ([(10, 15)], 16, 4, NONE, (21, 4)),
    "the top of a run": ([(10, 200)], 16, 20, NONE, (190, 20)),
}


@pytest.mark.parametrize("name", CASES)
def test_dense_runs(name):
    runs, least, most, below, expected = CASES[name]
    p = backed(*runs)
    assert find_dense(p, least, most, below) == expected
    if expected:
        p.free_scavenged(*expected)
    assert not p.broken()


def test_short_runs_stay_in_the_index():
    """A search for dense runs must not make the next one for any run miss something."""
    p = backed((10, 3), (3000, 15))
    assert find_dense(p, 16, 512) is None
    assert find_dense(p, 1, 512) == (3000, 15)
    p.free_scavenged(3000, 15)
    assert find_dense(p, 1, 512) == (10, 3)
    p.free_scavenged(10, 3)
    assert find_dense(p, 1, 512) is None and not p.broken()


WIDENED = {
    "nothing around": ([(300, 4)], 300, 4, (300, 4)),
    "backed and not, both sides": ([(300, 4)], 300, 4, (280, 40)),
    "only to the block's borders": ([(256, 4)], 256, 4, (256, 256)),
    "two blocks": ([(250, 12)], 250, 12, (0, 512)),
}


@pytest.mark.parametrize("name", WIDENED)
def test_widen(name):
    (run,), page, n, expected = WIDENED[name]
    p = backed(run)
    first, count = expected
    for at, size in ((first, page - first), (page + n, first + count - page - n)):
        if size > 0:
            p.free_scavenged(at, size)
    if name == "only to the block's borders":
        p.free_scavenged(200, 56)
        p.free_scavenged(512, 10)
    assert find_dense(p, 1, 512) == (page, n)
    before = p.counters().free_pages
    assert widen(p, page, n, 256) == expected
    assert p.counters().free_pages == before - (count - n)
    p.free_scavenged(*expected)
    assert p.counters().free_pages == before + n and not p.broken()


def test_widen_at_random():
    rng = random.Random(3)
    for _ in range(300):
        p, free = Pages([(0, 2 * CHUNK)]), set()
        assert p.alloc_at(0, 2 * CHUNK)
        for page in range(2 * CHUNK):
            if rng.random() < 0.7:
                (p.free if rng.random() < 0.3 else p.free_scavenged)(page, 1)
                free.add(page)
        found = find_dense(p, 1, rng.randrange(1, 40))
        if not found:
            continue
        block = rng.choice([1, 8, 256, 512])
        page, n = found
        low, high = page // block * block, -(-(page + n) // block) * block
        while page > low and page - 1 in free:
            page, n = page - 1, n + 1
        while page + n < high and page + n in free:
            n += 1
        assert widen(p, *found, block) == (page, n)
        p.free_scavenged(page, n)
        assert not p.broken() and p.counters().free_pages == len(free)
