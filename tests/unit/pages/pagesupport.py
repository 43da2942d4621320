"""A page allocator over fake addresses, spoken to in page numbers from BASE."""

from whitebox import ffi, lib

PAGE = 8192
CHUNK = 512             # pages
ARENA = 8192            # pages
ROOT = 1 << 21          # pages
BASE = 0xC0 << 32
NEVER = (1 << 64) - 1


class Pages:
    """grown: [(first page, pages)].  alloc and friends return page numbers, None for "none"."""

    def __init__(self, grown, base=BASE, bits=40):
        self.base = base
        self.p = ffi.gc(lib.pa_xpages_new(base, bits, 0), lib.pa_xpages_delete)
        self.out = ffi.new("size_t *")
        for first, n in grown:
            assert self.grow(first, n)

    def addr(self, page):
        return self.base + page * PAGE

    def page(self, addr):
        return None if addr == 0 else (addr - self.base) // PAGE

    def grow(self, first, n):
        return lib.pa_xpages_grow(self.p, self.addr(first), n * PAGE)

    def alloc(self, n):
        return self.page(lib.pa_xpages_alloc(self.p, n, self.out))

    def alloc_at(self, page, n):
        return lib.pa_xpages_alloc_at(self.p, self.addr(page), n, self.out)

    @property
    def scavenged(self):
        """How many pages of the last allocation had no memory."""
        return self.out[0]

    def free(self, page, n):
        lib.pa_xpages_free(self.p, self.addr(page), n)

    def free_scavenged(self, page, n):
        lib.pa_xpages_free_scavenged(self.p, self.addr(page), n)

    def find_backed(self, most, below=None, align=1):
        below = NEVER if below is None else self.addr(below)
        page = self.page(lib.pa_xpages_find_backed(self.p, most, align, below, self.out))
        return None if page is None else (page, self.out[0])

    def fill(self):
        return lib.pa_xcache_fill(self.p)

    def flush(self, cache):
        lib.pa_xcache_flush(ffi.addressof(cache), self.p)

    def cache_alloc(self, cache, n):
        """(page, scavenged pages) or None."""
        page = self.page(lib.pa_xcache_alloc(ffi.addressof(cache), n, self.out))
        return None if page is None else (page, self.out[0])

    def counters(self):
        return lib.pa_xpages_counters(self.p)

    def word(self, read, page):
        words = ffi.new("uint64_t[8]")
        read(self.p, self.addr(page), words)
        return words[page % CHUNK // 64]

    def alloc_word(self, page):
        return self.word(lib.pa_xpages_alloc_bits, page)

    def scavenged_word(self, page):
        return self.word(lib.pa_xpages_scavenged_bits, page)

    def broken(self):
        why = lib.pa_xpages_check(self.p)
        return None if why == ffi.NULL else ffi.string(why).decode()

    def check(self):
        assert self.broken() is None
