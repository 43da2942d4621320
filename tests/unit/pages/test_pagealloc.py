"""The page allocator by tables: what is grown, the calls, what they answer.  Page numbers count from BASE."""

import faulthandler
import os
import resource
import signal

import pytest

from pagesupport import ARENA, BASE, CHUNK, PAGE, ROOT, Pages
from whitebox import ffi, lib

# name -> (grown, steps).  Steps:
#   ("alloc", n, page or None[, scavenged])    ("at", page, n, True or False[, scavenged])
#   ("free", page, n)   ("dead", page, n): free, no memory behind
#   ("backed", most, below, align, (page, n) or None)   ("grow", first, n)
#   ("count", free, scavenged)
CASES = {
    # -- first fit in address order
    "the first page of a chunk": ([(0, CHUNK)], [("alloc", 1, 0, 1), ("alloc", 1, 1, 1)]),
    "a whole chunk": ([(0, CHUNK)], [("alloc", CHUNK, 0, CHUNK), ("alloc", 1, None)]),
    "more than there is": ([(0, CHUNK)], [("alloc", CHUNK + 1, None), ("count", CHUNK, CHUNK)]),
    "the lowest hole that fits, not the best": (
        [(0, CHUNK)],
        [("alloc", 100, 0), ("free", 10, 20), ("free", 50, 5), ("alloc", 5, 10, 0), ("alloc", 16, 100, 16),
         ("alloc", 15, 15, 0)]),
    "a freed page below the hint is found again": (
        [(0, ARENA)], [("alloc", 1000, 0), ("free", 3, 1), ("alloc", 2, 1000), ("alloc", 1, 3, 0),
                        ("alloc", 1, 1002)]),
    "a large run leaves small holes to small runs": (
        [(0, ARENA)],
        [("alloc", 64, 0), ("free", 4, 4), ("alloc", 2000, 64), ("alloc", 4, 4), ("alloc", 1, 2064)]),
    "a large run that passes holes leaves the hint before them": (
        [(0, 4 * ARENA)],
        [("alloc", 3 * ARENA, 0), ("free", 7, 1), ("free", ARENA + 1, 2), ("free", 2 * ARENA, 9),
         ("alloc", 9, 2 * ARENA), ("alloc", 2, ARENA + 1), ("alloc", 1, 7)]),
    "holes in one node, the first too small": (
        [(0, ARENA)],
        [("alloc", ARENA, 0), ("free", 100, 1), ("free", 2 * CHUNK, 3), ("alloc", 2, 2 * CHUNK), ("alloc", 1, 100),
         ("alloc", 1, 2 * CHUNK + 2)]),
    "a failed request changes nothing": (
        [(0, CHUNK), (2 * CHUNK, CHUNK)],
        [("alloc", CHUNK + 1, None), ("alloc", 1, 0), ("alloc", CHUNK, 2 * CHUNK), ("alloc", CHUNK, None)]),
    # -- runs across borders
    "across two chunks": ([(0, 2 * CHUNK)], [("alloc", 500, 0), ("alloc", 24, 500, 24), ("free", 500, 24),
                                             ("alloc", 24, 500, 0)]),
    "across three chunks": ([(0, 3 * CHUNK)], [("alloc", 511, 0), ("alloc", CHUNK + 2, 511),
                                               ("alloc", CHUNK - 1, 2 * CHUNK + 1), ("alloc", 1, None)]),
    "8 chunks are a node: across its border": (
        [(0, 16 * CHUNK)],
        [("alloc", 8 * CHUNK - 1, 0), ("alloc", 2, 8 * CHUNK - 1), ("free", 8 * CHUNK - 1, 2),
         ("alloc", 3, 8 * CHUNK - 1)]),
    "across two arenas": ([(0, ARENA), (ARENA, ARENA)], [("alloc", ARENA - 1, 0), ("alloc", 2, ARENA - 1),
                                                         ("alloc", ARENA - 1, ARENA + 1), ("alloc", 1, None)]),
    "arenas that arrive in the wrong order": (
        [(ARENA, ARENA), (0, ARENA)], [("alloc", 2 * ARENA, 0, 2 * ARENA), ("alloc", 1, None)]),
    "the middle arena arrives last": (
        [(0, ARENA), (2 * ARENA, ARENA)],
        [("alloc", 2 * ARENA, None), ("grow", ARENA, ARENA), ("alloc", 3 * ARENA, 0, 3 * ARENA)]),
    "more than 4 MiB": ([(0, ARENA)], [("alloc", 3, 0), ("alloc", CHUNK + 1, 3), ("alloc", 1, CHUNK + 4)]),
    "more than 32 MiB": ([(0, 4 * ARENA)], [("alloc", 1, 0), ("alloc", 4097, 1), ("alloc", 8193, 4098),
                                            ("free", 1, 4097), ("alloc", 4098, 12291), ("alloc", 4097, 1, 0)]),
    # -- discontiguous arenas
    "a hole between arenas is never crossed": (
        [(0, ARENA), (2 * ARENA, ARENA)],
        [("alloc", ARENA - 4, 0), ("alloc", 8, 2 * ARENA), ("alloc", 4, ARENA - 4), ("alloc", ARENA - 8, 2 * ARENA + 8),
         ("alloc", 1, None)]),
    "a hole of one chunk": (
        [(0, CHUNK), (2 * CHUNK, 2 * CHUNK)], [("alloc", CHUNK + 1, 2 * CHUNK), ("alloc", CHUNK, 0)]),
    "arenas in far-apart roots": (
        [(0, ARENA), (40 * ROOT, ARENA)],
        [("alloc", ARENA, 0), ("alloc", ARENA, 40 * ROOT), ("alloc", 1, None), ("free", 40 * ROOT + 5, 1),
         ("alloc", 1, 40 * ROOT + 5)]),
    "an arena below the first one": (
        [(5 * ROOT, ARENA), (ROOT + ARENA, ARENA)], [("alloc", 1, ROOT + ARENA), ("alloc", ARENA, 5 * ROOT)]),
    # -- roots of 16 GiB
    "across two roots": (
        [(ROOT - ARENA, 2 * ARENA)],
        [("alloc", ARENA - 2, ROOT - ARENA), ("alloc", 4, ROOT - 2, 4), ("free", ROOT - 2, 4),
         ("alloc", 5, ROOT - 2, 1)]),
    "a whole root": ([(0, ROOT)], [("alloc", ROOT, 0, ROOT), ("alloc", 1, None), ("free", 0, ROOT),
                                   ("alloc", ROOT, 0, 0)]),
    "more than a root": ([(0, 3 * ROOT)], [("alloc", 7, 0), ("alloc", ROOT + 1, 7), ("alloc", ROOT, ROOT + 8),
                                           ("alloc", ROOT, None), ("alloc", ROOT - 8, 2 * ROOT + 8),
                                           ("alloc", 1, None)]),
    "whole roots inside a run": (
        [(0, 4 * ROOT)], [("alloc", 1, 0), ("alloc", 4 * ROOT - 1, 1), ("free", 1, 4 * ROOT - 1),
                          ("alloc", 2 * ROOT, 1, 0), ("alloc", ROOT, 2 * ROOT + 1, 0)]),
    "the last root entry of the window": (
        [(63 * ROOT, ROOT)], [("alloc", ROOT, 63 * ROOT), ("free", 64 * ROOT - 1, 1), ("alloc", 1, 64 * ROOT - 1)]),
    # -- a chosen address
    "at a free address": ([(0, CHUNK)], [("at", 100, 10, True, 10), ("alloc", 100, 0), ("alloc", 1, 110)]),
    "at the hint": ([(0, CHUNK)], [("at", 0, 10, True), ("alloc", 1, 10)]),
    "at an address that is taken": ([(0, CHUNK)], [("alloc", 10, 0), ("at", 9, 2, False), ("at", 10, 2, True)]),
    "at: only the end is taken": ([(0, 2 * CHUNK)], [("at", 600, 1, True), ("at", 500, 101, False),
                                                      ("at", 500, 100, True)]),
    "at: beyond what is grown": ([(0, CHUNK)], [("at", 500, 13, False), ("at", 500, 12, True),
                                                  ("at", CHUNK, 1, False)]),
    "at: in a hole": ([(0, ARENA), (9 * ROOT, ARENA)], [("at", ARENA, 1, False), ("at", 4 * ROOT, 1, False),
                                                        ("at", 8 * ROOT, 1, False)]),
    "at: outside the window": ([(0, CHUNK)], [("at", -1, 1, False), ("at", -5, 10, False), ("at", 1 << 40, 1, False),
                                              ("at", 0, 1 << 50, False)]),
    "at: several chunks": ([(0, ARENA)], [("at", 100, 3000, True, 3000), ("alloc", 101, 3100), ("alloc", 100, 0)]),
    "at: nothing grown yet": ([], [("at", 0, 1, False), ("alloc", 1, None), ("backed", 1, None, 1, None)]),
    # -- backed and scavenged
    "fresh pages are scavenged": ([(0, CHUNK)], [("count", CHUNK, CHUNK), ("alloc", 10, 0, 10),
                                                 ("count", CHUNK - 10, CHUNK - 10)]),
    "freed pages are backed": ([(0, CHUNK)], [("alloc", 10, 0), ("free", 0, 10), ("count", CHUNK, CHUNK - 10),
                                              ("alloc", 12, 0, 2)]),
    "released pages are scavenged": ([(0, CHUNK)], [("alloc", 10, 0), ("free", 0, 4), ("dead", 4, 6),
                                                    ("count", CHUNK, CHUNK - 4), ("alloc", 10, 0, 6)]),
    "a run is partly scavenged across chunks": (
        [(0, 2 * CHUNK)], [("alloc", 600, 0), ("free", 0, 600), ("alloc", 2 * CHUNK, 0, 2 * CHUNK - 600)]),
    "pieces are freed in any cut": ([(0, ARENA)], [("alloc", 3000, 0), ("free", 1000, 1000), ("dead", 0, 1000),
                                                   ("free", 2000, 1000), ("alloc", 3000, 0, 1000)]),
    # -- what the scavenger finds
    "nothing to release in fresh memory": ([(0, ARENA)], [("backed", 512, None, 1, None)]),
    "the highest run first": (
        [(0, ARENA)],
        [("alloc", ARENA, 0), ("free", 5, 3), ("free", 4000, 2), ("free", 8000, 9), ("backed", 512, None, 1, (8000, 9)),
         ("backed", 512, None, 1, (4000, 2)), ("backed", 512, None, 1, (5, 3)), ("backed", 512, None, 1, None)]),
    "the top end of a long run": (
        [(0, CHUNK)], [("alloc", 100, 0), ("free", 0, 100), ("backed", 30, None, 1, (70, 30)),
                       ("dead", 70, 30), ("backed", 30, None, 1, (40, 30)), ("count", CHUNK - 30, CHUNK - 70)]),
    "a run stops at the chunk's border": (
        [(0, 2 * CHUNK)], [("alloc", 2 * CHUNK, 0), ("free", 500, 24), ("backed", 512, None, 1, (512, 12)),
                           ("backed", 512, None, 1, (500, 12))]),
    "wholly below": (
        [(0, 2 * CHUNK)], [("alloc", 2 * CHUNK, 0), ("free", 0, 2 * CHUNK), ("backed", 8, 700, 1, (692, 8)),
                           ("backed", 8, 512, 1, (504, 8)), ("backed", 8, 3, 1, (0, 3)), ("backed", 8, 0, 1, None),
                           ("backed", 8, -100, 1, None), ("backed", 8, None, 1, (1016, 8))]),
    "found pages are taken": (
        [(0, CHUNK)], [("alloc", 20, 0), ("free", 0, 20), ("backed", 16, None, 1, (4, 16)), ("alloc", 4, 0, 0),
                       ("alloc", 1, 20), ("dead", 4, 16), ("alloc", 16, 4, 16)]),
    "a release that failed": (
        [(0, CHUNK)], [("alloc", 20, 0), ("free", 0, 20), ("backed", 20, None, 1, (0, 20)), ("free", 0, 20),
                       ("backed", 20, None, 1, (0, 20))]),
    "64 KiB OS pages": (
        [(0, ARENA)],
        [("alloc", 1000, 0), ("free", 3, 12), ("free", 100, 30), ("backed", 512, None, 8, (104, 24)),
         ("backed", 512, None, 8, None), ("backed", 512, None, 1, (128, 2)), ("backed", 512, None, 1, (100, 4)),
         ("backed", 512, None, 8, None), ("backed", 512, None, 1, (3, 12))]),
    "at most less than an OS page": ([(0, CHUNK)], [("alloc", 64, 0), ("free", 0, 64), ("backed", 7, None, 8, None),
                                                    ("backed", 15, None, 8, (56, 8))]),
    "across far-apart arenas": (
        [(0, ARENA), (50 * ROOT, ARENA)],
        [("alloc", ARENA, 0), ("alloc", 7, 50 * ROOT), ("free", 17, 1), ("free", 50 * ROOT, 7),
         ("backed", 512, None, 1, (50 * ROOT, 7)), ("backed", 512, None, 1, (17, 1)), ("backed", 512, None, 1, None)]),
}


def play(p, steps):
    for number, (verb, *a) in enumerate(steps):
        where = f"step {number}: {verb} {a}"
        if verb == "alloc":
            assert p.alloc(a[0]) == a[1], where
            assert len(a) < 3 or p.scavenged == a[2], where
        elif verb == "at":
            assert p.alloc_at(a[0], a[1]) == a[2], where
            assert len(a) < 4 or p.scavenged == a[3], where
        elif verb == "free":
            p.free(*a)
        elif verb == "dead":
            p.free_scavenged(*a)
        elif verb == "backed":
            assert p.find_backed(a[0], a[1], a[2]) == a[3], where
        elif verb == "grow":
            assert p.grow(*a), where
        elif verb == "count":
            c = p.counters()
            assert (c.free_pages, c.scavenged_pages) == tuple(a), where
        else:
            raise ValueError(where)
        assert p.broken() is None, where


@pytest.mark.parametrize("name", CASES)
def test_case(name):
    grown, steps = CASES[name]
    p = Pages(grown)
    assert p.counters().grown_pages == sum(n for _, n in grown)
    play(p, steps)


@pytest.mark.parametrize("bits", [34, 36, 40, 44, 47, 48])
def test_windows(bits):
    base = 0 if bits == 48 else BASE if bits < 47 else 1 << 47
    end = (1 << bits) // PAGE
    p = Pages([(CHUNK, CHUNK), (end - CHUNK, CHUNK)], base=base, bits=bits)
    assert p.alloc(CHUNK) == CHUNK
    assert p.alloc(CHUNK) == end - CHUNK
    assert p.alloc(1) is None
    p.free(end - 1, 1)
    assert p.find_backed(512) == (end - 1, 1)
    p.check()


def test_exhausts_every_page_in_order():
    p = Pages([(0, CHUNK), (CHUNK, CHUNK), (ARENA, CHUNK)])
    pages = [p.alloc(1) for _ in range(3 * CHUNK)]
    assert pages == [*range(2 * CHUNK), *range(ARENA, ARENA + CHUNK)]
    assert p.alloc(1) is None
    assert p.counters().free_pages == 0
    p.check()
    for page in pages[::2]:
        p.free(page, 1)
    assert [p.alloc(1) for _ in pages[::2]] == pages[::2]
    p.check()


def test_search_hint_follows_the_first_free_page():
    p = Pages([(0, 4 * ARENA)])
    p.alloc(3 * ARENA)
    assert p.counters().search_page == 3 * ARENA
    p.free(ARENA + 7, 1)
    assert p.counters().search_page == ARENA + 7
    p.alloc(2)          # not there: the hint may only come closer to the hole
    assert ARENA <= p.counters().search_page <= ARENA + 7
    assert p.alloc(1) == ARENA + 7
    p.check()


def test_summaries_of_every_level():
    p = Pages([(0, ROOT)])
    read = lib.pa_xpages_summary
    for level in range(5):
        assert read(p.p, level, 0) == lib.pa_xsummary_all_free(21 - 3 * level)
    assert read(p.p, 0, 0) == 1 << 63
    p.alloc(1)
    for level in range(5):
        n = (1 << 21 - 3 * level) - 1
        assert read(p.p, level, 0) == lib.pa_xsummary_pack(0, n, n)
    assert p.alloc(ROOT - 1) == 1
    assert [read(p.p, level, 0) for level in range(5)] == [0] * 5
    p.check()


@pytest.mark.parametrize("more", [(2 * ARENA, CHUNK), (ROOT, CHUNK), (4 * ARENA, CHUNK)],
                         ids=["too many chunks", "another root", "a gap"])
def test_a_small_heap_has_leaves_only_until_it_outgrows_them(more):
    p = Pages([(0, 2 * ARENA)])
    read = lib.pa_xpages_summary
    assert p.alloc(2 * ARENA - 9) == 0
    p.free(100, 3)
    p.check()
    assert [read(p.p, level, 0) for level in range(4)] == [0] * 4
    assert read(p.p, 4, 0) == lib.pa_xsummary_pack(0, 3, 0)
    assert p.grow(*more)
    p.check()
    assert all(read(p.p, level, 0) for level in range(4))
    assert (p.alloc(3), p.alloc(10)) == (100, 2 * ARENA - 9 if more[0] == 2 * ARENA else more[0])
    p.check()


def test_refused_reservation():
    assert lib.pa_xpages_new(BASE, 40, 1) == ffi.NULL


def snapshot(p):
    c = p.counters()
    return c.free_pages, c.scavenged_pages, c.grown_pages, c.search_page


@pytest.mark.parametrize("grown, first", [([], 0), ([(0, ARENA)], 40 * ROOT), ([(5 * ROOT, ARENA)], 0)])
def test_a_refused_commit_changes_nothing(grown, first):
    nth = 0
    while True:
        nth += 1
        p = Pages(grown)
        before = snapshot(p)
        lib.pa_xpages_fail_commit(p.p, nth)
        if p.grow(first, ARENA):
            break
        assert snapshot(p) == before
        p.check()
        assert not p.alloc_at(first, 1)
        assert p.find_backed(512) is None
        lib.pa_xpages_fail_commit(p.p, 0)
        assert p.grow(first, ARENA)     # once there is memory again
        assert p.alloc_at(first, ARENA)
        p.check()
    assert nth > 3                      # several commits could fail, and each was made to


def test_contiguous_growth_commits_rarely():
    p = Pages([])
    for i in range(64):
        assert p.grow(i * ARENA, ARENA)
    first = p.counters()
    assert first.commits < 64           # 4 GiB in 64 steps; ten slices of metadata
    assert first.metadata_bytes < 512 * 1024
    down = Pages([])
    for i in reversed(range(64)):
        assert down.grow(i * ARENA, ARENA)
    assert down.counters().metadata_bytes == first.metadata_bytes
    p.check()
    down.check()


BREAKS = {
    "alloc": "leaf summary",
    "scavenged": "marked scavenged",
    "summary4": "leaf summary",
    "summary3": "merge of its children",
    "summary2": "merge of its children",
    "summary1": "merge of its children",
    "summary0": "merge of its children",
    "scavindex": "scavenge index",
    "free": "free pages",
    "scav": "scavenged pages",
    "grown": "grown pages",
    "search": "search hint",
}


@pytest.mark.parametrize("what", BREAKS)
def test_check_finds_what_is_broken(what):
    p = Pages([(0, 3 * ARENA)])
    p.alloc(100)
    p.free(50, 10)
    p.check()
    page = {"alloc": 0, "scavenged": 3}.get(what, 50)     # 0 is taken: freed by stealth it starts a run
    assert lib.pa_xpages_break(p.p, what.encode(), p.addr(page))
    assert BREAKS[what] in p.broken()


def dies(misuse):
    """The line on stderr with which a child process aborts in misuse."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            faulthandler.disable()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.dup2(writable, 2)
            misuse()
        finally:
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGABRT, text
    return text


MISUSES = {
    "double free": lambda p: (p.free(0, 2), p.free(1, 1)),
    "free of a page never taken": lambda p: p.free(200, 1),
    "half of the run is free": lambda p: p.free(90, 20),
    "free beyond what is grown": lambda p: p.free(ARENA, 1),
    "free below the window": lambda p: p.free(-1, 1),
    "free of no pages": lambda p: p.free(0, 0),
    "grown twice": lambda p: p.grow(0, CHUNK),
    "grown across the window's end": lambda p: p.grow(64 * ROOT - CHUNK, 2 * CHUNK),
    "grown by half a chunk": lambda p: p.grow(ARENA, CHUNK // 2),
    "allocation of no pages": lambda p: p.alloc(0),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_aborts(name):
    p = Pages([(0, ARENA)])
    p.alloc(100)
    assert "check failed" in dies(lambda: MISUSES[name](p))
    p.check()
