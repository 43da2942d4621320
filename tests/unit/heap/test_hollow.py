"""heap/hollow: which OS pages of a span may go, what becomes of their blocks, and how they come back."""

import ctypes
import mmap
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whitebox import ffi, lib

PAGE = 8192
OS_PAGE = mmap.PAGESIZE
NO_MADV_FREE, NO_MADVISE = 1, 2
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(autouse=True)
def clean():
    lib.pa_free(lib.pa_malloc(1))
    before = lib.pa_xhollow_heap_bytes()
    yield
    lib.pa_xvm_inject_refusal(0)
    lib.pa_set_madvdontneed(1)
    assert lib.pa_xhollow_heap_bytes() == before


class Span:
    """A span over memory of its own, and what is known of each of its blocks."""

    def __init__(self, size, npages):
        self.size_class = lib.pa_export_class_of_size(size)
        self.size, self.nbytes = size, npages * PAGE
        self.memory = lib.pa_xvm_map(2 * self.nbytes)
        self.base = (int(ffi.cast("uintptr_t", self.memory)) + PAGE - 1) // PAGE * PAGE
        self.x = lib.pa_xspan_new(self.base, npages)
        lib.pa_xspan_format_explicit(self.x, self.size_class)
        self.live = set()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        lib.pa_xhollow_forget(self.x)
        lib.pa_xspan_delete(self.x)
        lib.pa_xvm_unmap(int(ffi.cast("uintptr_t", self.memory)), 2 * self.nbytes)

    def carve_all(self):
        while lib.pa_xspan_look(self.x).tail < lib.pa_xspan_look(self.x).limit:
            assert lib.pa_xspan_carve(self.x)
            while self.pop():
                pass

    def pop(self):
        p = lib.pa_xhollow_pop(self.x)
        if p:
            assert p not in self.live and not lib.pa_xhollow_is_out(self.x, p)
            self.live.add(p)
            ctypes.memset(p, 0xAB, self.size)
        return p

    def push(self, p):
        self.live.remove(p)
        assert ctypes.string_at(p, self.size) == b"\xab" * self.size
        lib.pa_xhollow_push(self.x, p)

    def pages_of(self, block):
        return range((block - self.base) // OS_PAGE, (block + self.size - 1 - self.base) // OS_PAGE + 1)

    def free_blocks(self):
        out = ffi.new("uintptr_t[]", self.nbytes // 8)
        return list(out[0 : lib.pa_xhollow_read_free(self.x, out, len(out))])

    def carved(self):
        tail = lib.pa_xspan_look(self.x).tail
        return [self.base + i * self.size for i in range((tail - self.base) // self.size)]

    def resident(self):
        vector = (ctypes.c_ubyte * (self.nbytes // OS_PAGE))()
        assert libc.mincore(ctypes.c_void_p(self.base), ctypes.c_size_t(self.nbytes), vector) == 0
        return [byte & 1 for byte in vector]

    def check(self):
        """The rule: a block is off the list if and only if it touches a page that is out."""
        view = lib.pa_xhollow_look(self.x)
        out_pages = {i for i in range(64) if (view.aside | view.hollow) >> i & 1}
        free = self.free_blocks()
        assert len(free) == len(set(free)) and not self.live & set(free)
        out = [b for b in self.carved() if b not in self.live and b not in set(free)]
        assert view.out == len(out) and view.live == len(self.live)
        for block in self.carved():
            assert (block in out) == bool(out_pages & set(self.pages_of(block)))
            assert lib.pa_xhollow_is_out(self.x, block) == (block in out)
        assert view.aside & view.hollow == 0 and lib.pa_xhollow_holds_out(self.x)
        resident = self.resident()
        assert not any(resident[i] for i in range(len(resident)) if view.hollow >> i & 1)
        for page in range(self.nbytes // PAGE):
            both = {page * PAGE // OS_PAGE + i for i in range(max(1, PAGE // OS_PAGE))}
            hollow = all(view.hollow >> i & 1 for i in both)
            assert lib.pa_xhollow_is_page_hollow(self.x, self.base + page * PAGE) == hollow
        return view

    def pages_to_go(self):
        """OS pages that only blocks touch which are free or out, and that they cover."""
        whole = {}
        for block in self.carved():
            for page in self.pages_of(block):
                start, end = max(block, self.base + page * OS_PAGE), \
                    min(block + self.size, self.base + (page + 1) * OS_PAGE)
                whole[page] = whole.get(page, 0) + (0 if block in self.live else end - start)
        return {page for page, covered in whole.items() if covered == OS_PAGE}


SHAPES = [(16, 8), (48, 8), (128, 8), (640, 8), (1024, 8), (1152, 9), (4096, 16), (5376, 14), (9472, 14),
          (20480, 30), (32768, 32)]
STEPS = st.lists(st.tuples(st.sampled_from(["pop", "push", "aside", "keep", "give", "give_kept", "fill", "refuse"]),
                           st.integers(0, 1 << 30)), max_size=40)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 1 << 30), st.floats(0, 1), STEPS)
def test_every_block_is_somewhere_whatever_is_done(shape, seed, share, steps):
    random = Random(seed)
    with Span(*shape) as span:
        span.carve_all()
        for block in sorted(span.live):
            if random.random() < share:
                span.push(block)
        for step, n in steps:
            if step == "pop":
                for _ in range(n % 20):
                    span.pop()
            elif step == "push" and span.live:
                for block in random.sample(sorted(span.live), min(len(span.live), n % 20)):
                    span.push(block)
            elif step in ("aside", "keep"):
                head = span.free_blocks()[:1]
                had_list = bool(head)
                lib.pa_xhollow_set_aside(span.x, step == "keep")
                view = lib.pa_xhollow_look(span.x)
                out = {i for i in range(64) if (view.aside | view.hollow) >> i & 1}
                if step == "aside" and had_list:
                    assert out == span.pages_to_go()
                elif had_list:
                    assert span.free_blocks()[:1] == head
                    assert out >= span.pages_to_go() - set(span.pages_of(head[0])) and out <= span.pages_to_go()
            elif step in ("give", "give_kept", "refuse"):
                aside, had_list = lib.pa_xhollow_look(span.x).aside, bool(span.free_blocks())
                lib.pa_xvm_inject_refusal(NO_MADVISE if step == "refuse" else 0)
                given = lib.pa_xhollow_give(span.x, step != "give")
                lib.pa_xvm_inject_refusal(0)
                assert given == (0 if step == "refuse" else bin(aside).count("1") * OS_PAGE)
                assert lib.pa_xhollow_look(span.x).aside == (aside if step == "refuse" and not had_list else 0)
            elif step == "fill":
                before, out = len(span.free_blocks()), lib.pa_xhollow_look(span.x).out
                assert lib.pa_xhollow_fill(span.x) == (out > 0)
                assert len(span.free_blocks()) > before or out == 0
            span.check()
        while lib.pa_xhollow_fill(span.x):
            pass
        while span.pop():
            pass
        assert len(span.live) == len(span.carved())         # all of them, each once


def test_what_is_aside_comes_back_before_what_is_hollow():
    with Span(1024, 8) as span:
        span.carve_all()
        blocks = sorted(span.live)
        for block in blocks[: len(blocks) // 2]:
            span.push(block)
        lib.pa_xhollow_set_aside(span.x, False)
        assert lib.pa_xhollow_give(span.x, False) == 8 * OS_PAGE
        for block in blocks[len(blocks) // 2 :]:
            span.push(block)
        lib.pa_xhollow_set_aside(span.x, False)
        assert lib.pa_xhollow_fill(span.x)
        assert all(block >= blocks[len(blocks) // 2] for block in span.free_blocks())
        span.check()


def test_a_page_is_filled_at_a_time():
    with Span(512, 8) as span:
        span.carve_all()
        for block in sorted(span.live):
            span.push(block)
        lib.pa_xhollow_set_aside(span.x, False)
        lib.pa_xhollow_give(span.x, False)
        assert span.free_blocks() == [] and sum(span.resident()) == 0
        assert lib.pa_xhollow_fill(span.x)
        assert len(span.free_blocks()) == OS_PAGE // 512 and sum(span.resident()) == 1
        span.check()


@pytest.mark.parametrize("keep_head", [True, False])
def test_what_the_os_refuses_of_a_span_without_a_list(keep_head):
    """The owner may push while somebody gives pages for it: `free` is written for nobody but the owner."""
    with Span(4096, 4) as span:
        span.carve_all()
        for p in sorted(span.live)[2:6]:
            span.push(p)
        lib.pa_xhollow_set_aside(span.x, False)
        aside = lib.pa_xhollow_look(span.x).aside
        assert aside and span.free_blocks() == []
        lib.pa_xvm_inject_refusal(NO_MADVISE)
        assert lib.pa_xhollow_give(span.x, keep_head) == 0
        now = lib.pa_xhollow_look(span.x)
        assert (now.aside, now.hollow, len(span.free_blocks())) == ((aside, 0, 0) if keep_head else (0, 0, 4))
        assert not keep_head or lib.pa_xhollow_fill(span.x)
        assert span.pop()


def test_the_uncarved_tail_stays_out_of_it():
    with Span(1024, 8) as span:
        assert lib.pa_xspan_carve(span.x)
        while span.pop():
            pass
        for block in sorted(span.live):
            span.push(block)
        lib.pa_xhollow_set_aside(span.x, False)
        assert span.check().aside == (1 << len(span.carved()) * 1024 // OS_PAGE) - 1


@pytest.mark.parametrize("lazily, refusal", [(True, 0), (True, NO_MADV_FREE), (False, NO_MADV_FREE)])
def test_both_methods(lazily, refusal):
    lib.pa_set_madvdontneed(not lazily)
    lib.pa_xvm_inject_refusal(refusal)
    before = ffi.new("pa_scavenge_stats *")
    after = ffi.new("pa_scavenge_stats *")
    lib.pa_read_scavenge_stats(before)
    with Span(4096, 16) as span:
        span.carve_all()
        for block in sorted(span.live)[1:]:
            span.push(block)
        lib.pa_xhollow_set_aside(span.x, False)
        assert lib.pa_xhollow_give(span.x, False) == 31 * OS_PAGE
        lib.pa_read_scavenge_stats(after)
        assert after.asked_bytes - before.asked_bytes == 31 * OS_PAGE
        assert after.lazy_bytes - before.lazy_bytes == (31 * OS_PAGE if lazily and not refusal else 0)
        assert after.madvise_calls == before.madvise_calls + 1
