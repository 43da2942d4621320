"""The page heap through the allocator: arenas, growth, in-place resizing, release, and the books."""

import ctypes
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whitebox import ffi, lib

PAGE, MIB = 8192, 1 << 20
ARENA = 64 * MIB
OS_PAGE = os.sysconf("SC_PAGESIZE")


def address(pointer):
    return int(ffi.cast("uintptr_t", pointer))


def stats():
    out = ffi.new("pa_mem_stats *")
    lib.pa_read_mem_stats(out)
    return out[0]


def check_heap():
    message = ffi.new("char[]", 200)
    assert lib.pa_heap_check(message, 200) == 0, ffi.string(message).decode()
    assert lib.pa_xheap_lost_pages() == 0


@pytest.fixture(autouse=True)
def quiet():
    lib.pa_free_os_memory()
    yield
    lib.pa_free_os_memory()
    check_heap()


def arenas():
    out = ffi.new("uintptr_t[]", 4096)
    count = lib.pa_xheap_arenas(out, 4096)
    return list(out[0:count])


def look(pointer):
    s = lib.pa_xheap_span_of(address(pointer))
    return None if s == ffi.NULL else lib.pa_xspan_look(s)


def test_every_request_to_the_system_is_a_multiple_of_an_arena():
    """Blocks of 1, 5 and 65 and 200 MiB: as many new arenas as they need, one mmap call each time the heap grows."""
    for nbytes in (MIB, 5 * MIB, 65 * MIB, 200 * MIB):
        before, known = stats(), set(arenas())
        p = lib.pa_malloc(nbytes)
        after = stats()
        new = set(arenas()) - known
        assert all(base % ARENA == 0 for base in new)
        assert after.heap_sys - before.heap_sys == len(new) * ARENA
        assert after.heap_mmaps - before.heap_mmaps == (1 if new else 0)
        first, last = address(p), address(p) + nbytes - 1
        assert {b for b in range(first // ARENA * ARENA, last + 1, ARENA)} <= set(arenas())
        lib.pa_free(p)
        assert stats().heap_sys == after.heap_sys           # address space is kept
    assert len(arenas()) == len(set(arenas())) == stats().arenas == stats().heap_sys // ARENA


def test_address_ordered_first_fit():
    """A hole of freed pages is used before anything above it."""
    blocks = [lib.pa_malloc(6 * MIB) for _ in range(6)]
    ascending = sorted(blocks, key=address)
    lib.pa_free(ascending[1])
    lib.pa_free(ascending[4])
    lib.pa_free_os_memory()
    again = lib.pa_malloc(6 * MIB)
    assert address(again) == address(ascending[1])
    for p in [again, *(b for i, b in enumerate(ascending) if i not in (1, 4))]:
        lib.pa_free(p)


@pytest.mark.parametrize("align_mib", [0.015625, 1, 4, 64])
def test_aligned_runs_give_the_rest_back(align_mib):
    align = int(align_mib * MIB)
    before = stats().heap_inuse
    p = lib.pa_memalign(align, 3 * PAGE + 5)
    assert address(p) % align == 0
    assert look(p).npages == 4
    assert stats().heap_inuse - before == 4 * PAGE
    assert look(ffi.cast("char *", p) + 4 * PAGE) is None
    check_heap()
    lib.pa_free(p)


def test_fresh_pages_are_known_to_be_zero():
    p = lib.pa_malloc(8 * MIB)
    assert not look(p).needs_zero
    ctypes.memset(address(p), 0xEE, 8 * MIB)
    lib.pa_free(p)
    q = lib.pa_malloc(8 * MIB)                  # the same pages, dirty
    assert address(q) == address(p) and look(q).needs_zero
    lib.pa_free(q)
    z = lib.pa_calloc(1, 8 * MIB)
    assert address(z) == address(p) and bytes(ffi.buffer(z, 8 * MIB)) == bytes(8 * MIB)
    lib.pa_free(z)
    assert lib.pa_free_os_memory() >= 8 * MIB   # released: zero again without a memset
    q = lib.pa_malloc(8 * MIB)
    assert address(q) == address(p) and not look(q).needs_zero
    assert bytes(ffi.buffer(q, 8 * MIB)) == bytes(8 * MIB)
    lib.pa_free(q)


def test_extend_and_shrink_in_place():
    p = lib.pa_malloc(MIB)
    base = address(p)
    for npages in (200, 1000, 400, 150, 3000, 5):
        assert address(lib.pa_realloc(p, npages * PAGE)) == base
        v = look(p)
        assert v.npages == npages and v.limit == v.tail == base + npages * PAGE and v.live == 1
        assert look(ffi.cast("char *", p) + npages * PAGE - 1).base == base
        assert look(ffi.cast("char *", p) + npages * PAGE) is None
        check_heap()
    wall = lib.pa_malloc(5 * MIB)
    assert address(wall) > base
    lib.pa_free(p)
    lib.pa_free(wall)


def metadata_released():
    out = ffi.new("pa_scavenge_stats *")
    lib.pa_read_scavenge_stats(out)
    return out.metadata_bytes


def test_release_returns_the_bytes_released():
    p = lib.pa_malloc(20 * MIB)
    ctypes.memset(address(p), 1, 20 * MIB)
    q = lib.pa_malloc(16)
    lib.pa_free(p)
    before, metadata = stats(), metadata_released()
    released = lib.pa_free_os_memory()
    after, metadata = stats(), metadata_released() - metadata
    assert 20 * MIB <= released < 21 * MIB
    assert 20 * MIB // PAGE * 8 - 2 * OS_PAGE <= metadata < MIB     # 8 bytes of page table a page, and some headers
    released -= metadata
    flushed = after.heap_released - before.heap_released - released     # a page cache holds untouched pages, too
    assert 0 <= flushed <= 64 * PAGE
    assert after.heap_released_total - before.heap_released_total == released
    assert after.heap_released == after.heap_idle
    assert lib.pa_free_os_memory() == 0          # nothing is released twice
    lib.pa_free(q)


def test_a_refused_release_keeps_the_pages_and_may_be_tried_again():
    p = lib.pa_malloc(10 * MIB)
    ctypes.memset(address(p), 1, 10 * MIB)
    lib.pa_free(p)
    lib.pa_xvm_inject_failure(1)
    try:
        assert lib.pa_free_os_memory() == 0
    finally:
        lib.pa_xvm_inject_failure(0)
    check_heap()
    assert lib.pa_free_os_memory() >= 10 * MIB


def test_headers_of_dead_spans_go_back():
    before = stats()
    blocks = [lib.pa_malloc(40_000) for _ in range(3000)]     # a span each
    top = stats()
    assert top.mspan_inuse - before.mspan_inuse >= 3000 * 192
    for p in blocks:
        lib.pa_free(p)
    lib.pa_free_os_memory()
    after = stats()
    assert after.mspan_sys - after.mspan_inuse < 64 * 1024 and after.mspan_sys < before.mspan_sys + 64 * 1024
    check_heap()
    blocks = [lib.pa_malloc(40_000) for _ in range(3000)]
    assert stats().mspan_sys <= top.mspan_sys and stats().other_sys <= top.other_sys + 4096
    for p in blocks:
        lib.pa_free(p)


# ---- The books


def identities(s):
    assert s.sys == s.heap_sys + s.mspan_sys + s.mcache_sys + s.gc_sys + s.other_sys
    assert s.heap_sys == s.heap_idle + s.heap_inuse == s.arenas * ARENA
    assert s.heap_released <= s.heap_idle
    assert s.heap_alloc <= s.heap_inuse
    assert (s.explicit_objects, s.explicit_alloc) == (s.heap_objects, s.heap_alloc)      # no managed objects yet
    assert s.explicit_cached <= s.explicit_inuse <= s.heap_inuse
    assert s.mspan_inuse <= s.mspan_sys and s.mcache_inuse <= s.mcache_sys
    assert s.spans_freed <= s.spans_allocated and s.heap_mmaps >= 1
    assert s.threads == lib.pa_xprocs_attached()


def class_sums():
    out = ffi.new("pa_class_stats[]", 67)
    assert lib.pa_read_class_stats(out, 67) == 67
    large_bytes = out[0].span_bytes
    return (sum(row.objects for row in out), sum(row.objects * row.object_bytes for row in out[1:67]) + large_bytes,
            sum(row.spans for row in out), sum(row.span_bytes for row in out))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400_000), st.booleans()), max_size=120), st.randoms(use_true_random=False))
def test_statistics_are_exact_and_agree(steps, rng):
    """Against a recount: a dictionary of live blocks, the table of classes, a walk over all spans."""
    lib.pa_free_os_memory()
    start = stats()
    live = {}
    try:
        for nbytes, free in steps:
            if free and live:
                key = rng.choice(list(live))
                live.pop(key)
                lib.pa_free(ffi.cast("void *", key))
            else:
                size = nbytes if nbytes % 3 == 0 else nbytes % 2000
                p = lib.pa_malloc(size)
                live[address(p)] = lib.pa_usable_size(p)
                assert live[address(p)] >= size
        s = stats()
        identities(s)
        assert s.explicit_objects - start.explicit_objects == len(live)
        assert s.explicit_alloc - start.explicit_alloc == sum(live.values())
        objects, nbytes, spans, span_bytes = class_sums()
        assert (objects, nbytes) == (s.explicit_objects, s.explicit_alloc)
        assert span_bytes == s.explicit_inuse - s.explicit_cached
        walk = lib.pa_xheap_walk()
        assert walk.ascending
        assert (walk.manual_pages + walk.cached_pages) * PAGE == s.explicit_inuse == s.heap_inuse
        assert walk.cached_pages * PAGE == s.explicit_cached
        assert walk.spans == s.spans_allocated - s.spans_freed
        assert (walk.live, walk.bytes_live) == (s.explicit_objects, s.explicit_alloc)
        check_heap()
    finally:    # an example whose draws run out ends in the middle
        for key in live:
            lib.pa_free(ffi.cast("void *", key))
    lib.pa_free_os_memory()
    end = stats()
    identities(end)
    assert (end.explicit_objects, end.heap_inuse) == (start.explicit_objects, start.heap_inuse)


def test_class_table_limits():
    out = ffi.new("pa_class_stats[]", 67)
    assert lib.pa_read_class_stats(out, 5) == 5
    assert lib.pa_read_class_stats(out, 1000) == 67
    assert lib.pa_read_class_stats(out, 0) == lib.pa_read_class_stats(out, -3) == 0


def address_space_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGESIZE")


def test_refusals_are_undone():
    """The n-th call to the system fails, in the middle of growing by several arenas: nothing stays behind."""
    def books(s):
        return s.heap_sys, s.heap_inuse, s.explicit_objects, s.arenas, s.mspan_inuse

    nbytes = stats().heap_sys + 100 * MIB       # cannot be there yet
    mapped = address_space_bytes()
    for nth in range(1, 30):
        before = stats()
        lib.pa_xvm_inject_failure(nth)
        try:
            p = lib.pa_malloc(nbytes)
        finally:
            lib.pa_xvm_inject_failure(0)
        if p != ffi.NULL:
            lib.pa_free(p)
            break
        assert books(stats()) == books(before)
        assert address_space_bytes() - mapped < 4 * MIB, "an arena that nobody knows stayed mapped"
        check_heap()
    else:
        pytest.fail("it never works")
    assert nth > 1, "no call to the system could fail: the block was there already"


def test_repeated_refusals_do_not_leak_metadata():
    rng = random.Random(1)
    sizes = []
    for _ in range(200):
        lib.pa_xvm_inject_failure(rng.randrange(1, 4))
        try:
            p = lib.pa_malloc((3 << 30) + rng.randrange(1 << 30))
        finally:
            lib.pa_xvm_inject_failure(0)
        if p != ffi.NULL:
            lib.pa_free(p)
        sizes.append(stats().sys - stats().heap_sys)
    assert sizes[-1] == sizes[20], sizes
