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


def widen(p, page, n, block, align=1):
    """The widened run, and how many of the pages added were backed."""
    addr, count = ffi.new("uintptr_t *", p.addr(page)), ffi.new("size_t *", n)
    backed = lib.pa_xpages_widen(p.p, addr, count, align, block)
    return p.page(addr[0]), count[0], backed


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
    assert widen(p, page, n, 256) == (*expected, 0)
    assert p.counters().free_pages == before - (count - n)
    p.free_scavenged(*expected)
    assert p.counters().free_pages == before + n and not p.broken()


def test_widen_at_random():
    """Also where OS pages are larger than ours: never a page beside whose OS page somebody uses a part of."""
    rng = random.Random(3)
    for _ in range(600):
        p, free, backed_pages = Pages([(0, 2 * CHUNK)]), set(), set()
        align = rng.choice([1, 1, 2, 8])
        assert p.alloc_at(0, 2 * CHUNK)
        for page in range(2 * CHUNK):
            if rng.random() < (0.7 if align == 1 else 0.95):
                if rng.random() < (0.3 if align == 1 else 0.9):
                    p.free(page, 1)
                    backed_pages.add(page)
                else:
                    p.free_scavenged(page, 1)
                free.add(page)
        at = lib.pa_xpages_find_dense_aligned(p.p, align, rng.randrange(align, 40), align, (1 << 64) - 1, p.out)
        if not at:
            continue
        found = p.page(at), p.out[0]
        block = rng.choice([8, 256, 512] if align > 1 else [1, 8, 256, 512])
        page, n = found
        low, high = page // block * block, -(-(page + n) // block) * block
        while page > low and free.issuperset(range(page - align, page)):
            page, n = page - align, n + align
        while page + n < high and free.issuperset(range(page + n, page + n + align)):
            n += align
        assert page % align == n % align == 0
        added = set(range(page, page + n)) - set(range(found[0], sum(found)))
        assert widen(p, *found, block, align) == (page, n, len(added & backed_pages))
        p.free_scavenged(page, n)
        assert not p.broken() and p.counters().free_pages == len(free)


# ---- The end of a huge page

#: allocated pages of the block [256, 512), pages of it that are free and backed, step -> the tail
TAILS = {
    "behind the last allocated page": ([256, 300], [], 1, (301, 211)),
    "holes before it stay": ([256, 400], [260, 300], 1, (401, 111)),
    "behind the last backed page": ([256], [500], 1, (501, 11)),
    "nothing is allocated": ([], [256], 1, (257, 255)),
    "one page": ([256, 510], [], 1, (511, 1)),
    "none: allocated to the end": ([511], [], 1, None),
    "none: not backed at all": ([], [], 1, None),
    "in steps": ([256, 300], [], 8, (304, 208)),
    "none: less than a step": ([256, 500], [], 16, None),
}


@pytest.mark.parametrize("name", TAILS)
def test_take_tail(name):
    allocated, backed_pages, step, expected = TAILS[name]
    p = Pages([(0, 2 * CHUNK)])
    assert p.alloc_at(0, 2 * CHUNK)
    p.free_scavenged(0, 256)
    for page in range(256, 512):
        if page in backed_pages:
            p.free(page, 1)
        elif page not in allocated:
            p.free_scavenged(page, 1)
    before, addr = p.counters(), ffi.new("uintptr_t *")
    n = lib.pa_xpages_take_tail(p.p, p.addr(256), 256, step, addr)
    assert (n and (p.page(addr[0]), n)) == (expected or 0)
    assert p.counters().free_pages == before.free_pages - n
    assert p.counters().scavenged_pages == before.scavenged_pages - n and not p.broken()
    if n:
        p.free_scavenged(*expected)
        assert p.counters().scavenged_pages == before.scavenged_pages and not p.broken()
