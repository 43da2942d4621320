"""heap/thin: pages of free blocks inside spans go when they were idle for a second, and come back when wanted."""

import contextlib
import ctypes
import itertools
import random

import pytest

from whitebox import ffi, lib

MIB, MS = 1 << 20, 1_000_000
NO_MADVISE = 2
STARTS = itertools.count(3 * 10**15, 10**12)


def mem():
    out = ffi.new("pa_mem_stats *")
    lib.pa_read_mem_stats(out)
    return out


def address(pointer):
    return int(ffi.cast("uintptr_t", pointer))


def whole():
    message = ffi.new("char[]", 200)
    assert lib.pa_heap_check(message, 200) == 0, ffi.string(message)
    assert lib.pa_xheap_lost_pages() == 0


@contextlib.contextmanager
def clock():
    start = next(STARTS)

    class Clock:
        ms = 0

        def after(self, ms):
            """Slow paths in steps of an interval, until that much has passed."""
            for _ in range(ms // 500):
                self.ms += 500
                lib.pa_xclock_set(start + self.ms * MS)
                for _ in range(12):
                    lib.pa_xslow_call()

    one = Clock()
    lib.pa_xclock_set(start)
    lib.pa_xslow_call()
    try:
        yield one
    finally:
        lib.pa_xclock_set(0)


@pytest.fixture(autouse=True)
def clean():
    lib.pa_free_os_memory()
    yield
    lib.pa_xvm_inject_refusal(0)
    for burst in Burst.standing[:]:     # a test that failed must not make others fail
        burst.drop()
    lib.pa_free_os_memory()
    whole()
    assert mem().explicit_hollow == 0


class Burst:
    """Blocks of a size of which a random tenth survives, each with its own content."""

    standing = []

    def __init__(self, size, nbytes, survive=0.1, seed=1):
        choose = random.Random(seed)
        self.size = size
        blocks = [lib.pa_malloc(size) for _ in range(nbytes // size)]
        for i, block in enumerate(blocks):
            ctypes.memset(address(block), i % 251, size)
        self.kept = {i: block for i, block in enumerate(blocks) if choose.random() < survive}
        for i, block in enumerate(blocks):
            if i not in self.kept:
                lib.pa_free(block)
        self.standing.append(self)

    def verify(self):
        for i, block in self.kept.items():
            assert ffi.buffer(block, self.size)[:] == bytes([i % 251]) * self.size

    def drop(self):
        self.standing.remove(self)
        self.verify()
        for block in self.kept.values():
            lib.pa_free(block)


def backed():
    m = mem()
    return m.heap_sys - m.heap_released - m.explicit_hollow


@pytest.mark.parametrize("size", [1024, 4096, 5376, 9472, 20000, 32768])
def test_idle_free_blocks_go_back_and_survivors_stay(size):
    with clock() as now:
        burst = Burst(size, 24 * MIB)
        now.after(500)
        assert mem().explicit_hollow == 0               # too early: they may be wanted again
        now.after(3000)
        m = mem()
        # What no survivor touches: a page of 4 KiB is touched by 4096 / size + 1 blocks.
        expected = 24 * MIB * 0.9 ** (4096 / size + 1) * 0.9 - MIB
        assert m.explicit_hollow >= min(expected, m.explicit_inuse - m.explicit_alloc - MIB)
        assert m.explicit_hollow <= m.explicit_inuse - m.explicit_alloc
        whole()
        burst.drop()


@pytest.mark.parametrize("size", [64, 208])
def test_what_survivors_held_goes_when_most_of_them_die(size):
    """Of a tenth that survives, nearly every page has one; when they go, it is less than an eighth of the span."""
    with clock() as now:
        burst = Burst(size, 12 * MIB)
        now.after(3000)
        before = mem().explicit_hollow
        kept, burst.kept = burst.kept, {}
        for place, (i, block) in enumerate(kept.items()):
            if place % 100:
                lib.pa_free(block)
            else:
                burst.kept[i] = block
        now.after(3000)
        m = mem()
        assert before < 3 * MIB and m.explicit_hollow > MIB
        assert m.explicit_inuse - m.explicit_hollow < MIB + 5000 * len(burst.kept)
        whole()
        burst.drop()


def test_the_bar_holds_for_blocks_over_8_kib():
    with clock() as now:
        burst = Burst(20000, 48 * MIB)
        now.after(5000)
        assert backed() <= 1.3 * len(burst.kept) * burst.size + MIB
        burst.drop()


def test_wanted_blocks_come_from_hollow_pages_before_new_ones():
    with clock() as now:
        burst = Burst(20000, 24 * MIB)
        now.after(3000)
        hollow, inuse = mem().explicit_hollow, mem().heap_inuse
        more = Burst(20000, hollow // 2, survive=1)
        assert mem().heap_inuse == inuse and mem().explicit_hollow <= hollow - len(more.kept) * 20000
        whole()
        more.drop()
        burst.drop()


def test_a_loop_of_a_second_keeps_its_pages():
    with clock() as now:
        burst = Burst(20000, 8 * MIB)
        for _ in range(12):
            again = Burst(20000, 6 * MIB, survive=0)
            now.after(500)
            del again
        # Its own two thirds are never idle for a second; what it does not reach may go.
        assert mem().explicit_hollow <= 3 * MIB
        burst.drop()


@pytest.mark.parametrize("size", [640, 20000])
def test_asking_for_memory_takes_everything_at_once_and_says_how_much(size):
    burst = Burst(size, 16 * MIB)
    before, stats = mem(), ffi.new("pa_scavenge_stats *")
    lib.pa_read_scavenge_stats(stats)
    asked, metadata = stats.asked_bytes, stats.metadata_bytes
    released = lib.pa_free_os_memory()
    after = mem()
    lib.pa_read_scavenge_stats(stats)
    assert after.explicit_hollow > MIB and after.explicit_hollow == after.explicit_hollow // 4096 * 4096
    assert released == stats.asked_bytes - asked + stats.metadata_bytes - metadata
    assert released >= after.explicit_hollow
    assert after.heap_released_total - before.heap_released_total == stats.asked_bytes - asked
    assert lib.pa_free_os_memory() <= 2 * 4096          # nothing is counted twice
    whole()
    burst.drop()


def test_a_span_that_empties_gives_its_hollow_pages_as_released():
    burst = Burst(32768, 16 * MIB)
    lib.pa_free_os_memory()
    hollow, released = mem().explicit_hollow, mem().heap_released_total
    burst.drop()
    taken = lib.pa_free_os_memory()
    assert mem().explicit_hollow == 0
    # Only what was backed is given back now: the survivors.
    assert taken <= 16 * MIB - hollow + MIB and mem().heap_released_total - released <= 16 * MIB - hollow + MIB


def test_calloc_of_what_was_hollow_reads_zero():
    lib.pa_set_madvdontneed(0)
    try:
        burst = Burst(20000, 8 * MIB)
        lib.pa_free_os_memory()
        blocks = [lib.pa_calloc(1, 20000) for _ in range(200)]
        assert all(ffi.buffer(block, 20000)[:] == bytes(20000) for block in blocks)
        for block in blocks:
            lib.pa_free(block)
        burst.drop()
    finally:
        lib.pa_set_madvdontneed(1)


def test_refusals_leave_everything_as_it_was():
    with clock() as now:
        burst = Burst(20000, 8 * MIB)
        lib.pa_xvm_inject_refusal(NO_MADVISE)
        now.after(3000)
        assert mem().explicit_hollow == 0
        whole()
        assert lib.pa_free_os_memory() == 0
        inuse = mem().heap_inuse
        more = Burst(20000, 4 * MIB, survive=1)
        assert mem().heap_inuse == inuse                # the blocks are there as before
        lib.pa_xvm_inject_refusal(0)
        more.drop()
        burst.drop()


def fill_a_span(size, least):
    """Blocks until `least` of them lie in one span, the current one: (that span, its blocks, the others). What a class
    gets for a span depends on what lies idle."""
    by_span = {}
    for _ in range(100 * least):
        block = lib.pa_malloc(size)
        span = lib.pa_xhollow_span_of(address(block))
        mine = by_span.setdefault(span, [])
        mine.append(block)
        if len(mine) == least:
            return span, mine, [b for other, blocks in by_span.items() if other != span for b in blocks]
    raise AssertionError(f"no span of {least} blocks")


def test_what_a_current_span_does_not_use_goes():
    """Most of a span was needed once; since then one block is taken and given back again and again."""
    with clock() as now:
        span, mine, others = fill_a_span(2048, 20)
        for block in mine[:-1]:
            lib.pa_free(block)
        again = []
        for _ in range(10):
            for _ in range(50):
                block = lib.pa_malloc(2048)
                again.append(block)
                lib.pa_free(block)
            now.after(500)
        hollow = bin(lib.pa_xhollow_look(span).hollow).count("1") * 4096
        whole()
        more = [lib.pa_malloc(2048) for _ in mine[1:]]      # and comes back
        back = [lib.pa_xhollow_span_of(address(b)) == span for b in more]
        for block in (*more, mine[-1], *others):
            lib.pa_free(block)
        assert len(set(again)) == 1
        assert hollow >= (len(mine) - 3) * 2048 - 4096
        assert all(back)


def test_limit_and_backed_do_not_count_hollow_pages():
    burst = Burst(20000, 16 * MIB)
    stats = ffi.new("pa_scavenge_stats *")
    lib.pa_free_os_memory()
    lib.pa_read_scavenge_stats(stats)
    m = mem()
    assert stats.backed_bytes <= m.sys - m.heap_released - m.explicit_hollow + MIB
    burst.drop()
