"""The page allocator against a list of pages.

The oracle keeps one letter per page of a small window: "." never grown, "s" free and without memory,
"b" free and backed, "T" taken.  Every allocation must give the very address that a search of that string from
the left gives; after every step all counters agree and pa_pagealloc_check finds nothing broken.
"""

import re

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule

from whitebox import ffi, lib

PAGE = 8192
CHUNK = 512
ROOT = 1 << 21
BASE = 0xC0 << 32
NEVER = (1 << 64) - 1
# The window's chunks in play lie around a border of two 16 GiB roots; a second island is 30 roots further.
ISLANDS = (3 * ROOT - 12 * CHUNK, 33 * ROOT + CHUNK)
ISLAND_CHUNKS = 24
ISLAND = ISLAND_CHUNKS * CHUNK

# Small, around words, around chunks, several chunks.
sizes = st.one_of(st.integers(1, 70), st.sampled_from([127, 128, 511, 512, 513, 1024, 4096, 5000]),
                  st.integers(1, 2000))


class Oracle:
    def __init__(self):
        self.pages = "." * (ISLAND * len(ISLANDS))

    def real(self, i):
        return ISLANDS[i // ISLAND] + i % ISLAND

    def paint(self, i, n, letters):
        self.pages = self.pages[:i] + (letters * n if len(letters) == 1 else letters) + self.pages[i + n:]

    def first_fit(self, n, of="sb"):
        """Index of the first run of n free pages inside one island, or None."""
        for island in range(len(ISLANDS)):
            found = re.compile(f"[{of}]{{{n}}}").search(self.pages[island * ISLAND:(island + 1) * ISLAND])
            if found:
                return island * ISLAND + found.start()
        return None


class PageAllocator(RuleBasedStateMachine):
    runs = Bundle("runs")       # (index, pages): taken by one call, or cut from it
    caches = Bundle("caches")

    @initialize(align=st.sampled_from([1, 1, 1, 8]))
    def start(self, align):
        self.p = lib.pa_xpages_new(BASE, 40, 0)
        self.oracle = Oracle()
        self.align = align
        self.out = ffi.new("size_t *")
        self.live_caches = []   # (block, cache, {page in block: "s" or "b"})

    def teardown(self):
        if hasattr(self, "p"):
            lib.pa_xpages_delete(self.p)

    def addr(self, i):
        return BASE + self.oracle.real(i) * PAGE

    def index(self, addr):
        page = (addr - BASE) // PAGE
        island = 0 if page < ISLANDS[1] else 1
        return island * ISLAND + page - ISLANDS[island]

    @rule(chunk=st.integers(0, len(ISLANDS) * ISLAND_CHUNKS - 1), count=st.integers(1, 8), refused=st.integers(0, 12))
    def grow(self, chunk, count, refused):
        i = chunk * CHUNK
        count = min(count, ISLAND_CHUNKS - chunk % ISLAND_CHUNKS)
        n = count * CHUNK
        if set(self.oracle.pages[i:i + n]) != {"."}:
            return
        lib.pa_xpages_fail_commit(self.p, refused)      # 0: never; a large one may not be reached
        grown = lib.pa_xpages_grow(self.p, self.addr(i), n * PAGE)
        lib.pa_xpages_fail_commit(self.p, 0)
        assert grown or refused
        if grown:
            self.oracle.paint(i, n, "s")

    def took(self, i, n):
        assert self.out[0] == self.oracle.pages[i:i + n].count("s")
        self.oracle.paint(i, n, "T")

    @rule(target=runs, n=sizes)
    def alloc(self, n):
        got = lib.pa_xpages_alloc(self.p, n, self.out)
        i = self.oracle.first_fit(n)
        assert got == (0 if i is None else self.addr(i))
        if i is None:
            return multiple()
        self.took(i, n)
        return i, n

    @rule(target=runs, which=st.integers(0, 30), more=st.sampled_from([-1, 0, 0, 0, 1]))
    def alloc_a_hole(self, which, more):
        """Just what a hole has, or one page less or more: where summaries off by one would show."""
        holes = [m.end() - m.start() for k in range(len(ISLANDS))
                 for m in re.finditer("[sb]+", self.oracle.pages[k * ISLAND:(k + 1) * ISLAND])]
        return self.alloc(max(1, holes[which % len(holes)] + more)) if holes else multiple()

    @rule(target=runs, i=st.integers(0, len(ISLANDS) * ISLAND - 1), n=sizes)
    def alloc_at(self, i, n):
        n = min(n, ISLAND - i % ISLAND)
        got = lib.pa_xpages_alloc_at(self.p, self.addr(i), n, self.out)
        assert got == (set(self.oracle.pages[i:i + n]) <= set("sb"))
        if not got:
            return multiple()
        self.took(i, n)
        return i, n

    @rule(target=runs, run=runs, more=sizes)
    def grow_in_place(self, run, more):
        """What realloc does: the pages right behind a run."""
        i = run[0] + run[1]
        if i >= len(ISLANDS) * ISLAND:
            return multiple()
        return self.alloc_at(i, more)

    @rule(target=runs, run=runs, cut=st.integers(1, 4999), dead=st.booleans(), whole=st.booleans())
    def free(self, run, cut, dead, whole):
        i, n = run
        keep = 0 if whole or n == 1 else cut % n
        if set(self.oracle.pages[i + keep:i + n]) != {"T"} or self.held(i + keep, n - keep):
            return multiple()       # freed before, or in a cache meanwhile
        (lib.pa_xpages_free_scavenged if dead else lib.pa_xpages_free)(self.p, self.addr(i + keep), n - keep)
        self.oracle.paint(i + keep, n - keep, "s" if dead else "b")
        return (i, keep) if keep else multiple()

    def held(self, i, n):
        """Some page belongs to a cache."""
        return any(b < i + n and i < b + 64 for b, c, _ in self.live_caches if c.free)

    @rule(target=caches)
    def fill_cache(self):
        c = ffi.new("pa_xcache *", lib.pa_xcache_fill(self.p))
        first = self.oracle.first_fit(1)
        if first is None:
            assert (c.base, c.free, c.scavenged) == (0, 0, 0)
            return multiple()
        block = first - first % 64
        letters = self.oracle.pages[block:block + 64]
        assert c.base == self.addr(block)
        assert c.free == sum(1 << k for k, x in enumerate(letters) if x in "sb")
        assert c.scavenged == sum(1 << k for k, x in enumerate(letters) if x == "s")
        held = {k: x for k, x in enumerate(letters) if x in "sb"}
        self.oracle.paint(block, 64, "".join("T" if x in "sb" else x for x in letters))
        self.live_caches.append((block, c, held))
        return len(self.live_caches) - 1

    @rule(target=runs, cache=caches, n=st.integers(1, 64))
    def alloc_from_cache(self, cache, n):
        block, c, held = self.live_caches[cache]
        at = next((k for k in range(65 - n) if all(k + j in held for j in range(n))), None)
        got = lib.pa_xcache_alloc(c, n, self.out)
        assert got == (0 if at is None else self.addr(block + at))
        if at is None:
            return multiple()
        assert self.out[0] == sum(held.pop(at + j) == "s" for j in range(n))
        return block + at, n

    @rule(cache=caches)
    def flush_cache(self, cache):
        block, c, held = self.live_caches[cache]
        lib.pa_xcache_flush(c, self.p)
        assert (c.base, c.free, c.scavenged) == (0, 0, 0)
        for k, letter in held.items():
            self.oracle.paint(block + k, 1, letter)
        held.clear()

    def expected_backed(self, most, limit):
        """The highest aligned run of b's in one chunk below index limit."""
        most = most // self.align * self.align
        for chunk in reversed(range((limit + CHUNK - 1) // CHUNK)):
            letters = self.oracle.pages[chunk * CHUNK:min((chunk + 1) * CHUNK, limit)]
            for m in reversed(list(re.finditer("b+", letters))):
                end = m.end() // self.align * self.align
                n = min(end - m.start(), most) // self.align * self.align
                if n > 0:
                    return chunk * CHUNK + end - n, n
        return None

    @rule(most=st.integers(1, 600), limit=st.integers(0, len(ISLANDS) * ISLAND), anywhere=st.booleans(),
          ok=st.booleans())
    def scavenge(self, most, limit, anywhere, ok):
        if anywhere:
            limit, below = len(self.oracle.pages), NEVER
        else:
            below = self.addr(limit) if limit < len(self.oracle.pages) else NEVER
        expected = self.expected_backed(most, limit)
        got = lib.pa_xpages_find_backed(self.p, most, self.align, below, self.out)
        if expected is None:
            assert got == 0
            return
        i, n = expected
        assert (got, self.out[0]) == (self.addr(i), n)
        self.oracle.paint(i, n, "T")
        self.counters_agree()
        (lib.pa_xpages_free_scavenged if ok else lib.pa_xpages_free)(self.p, got, n)
        self.oracle.paint(i, n, "s" if ok else "b")

    @precondition(lambda self: hasattr(self, "p"))
    @invariant()
    def counters_agree(self):
        c, pages = lib.pa_xpages_counters(self.p), self.oracle.pages
        assert c.grown_pages == len(pages) - pages.count(".")
        assert c.free_pages == pages.count("s") + pages.count("b")
        assert c.scavenged_pages == pages.count("s")
        broken = lib.pa_xpages_check(self.p)
        assert broken == ffi.NULL, ffi.string(broken)


PageAllocator.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestPageAllocator = PageAllocator.TestCase
