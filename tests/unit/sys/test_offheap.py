"""Memory for metadata: bump allocation that never overlaps, and type-stable fixed-size objects."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whitebox import ffi, lib

BLOCK = 256 * 1024


def address(pointer):
    return int(ffi.cast("uintptr_t", pointer))


@pytest.fixture
def offheap():
    made = []

    def make(object_bytes=192, align=64):
        made.append(lib.pa_xoffheap_new(object_bytes, align))
        return made[-1]

    yield make
    for x in made:
        lib.pa_xoffheap_delete(x)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5000), st.sampled_from([1, 2, 8, 64, 4096])), min_size=1, max_size=60))
def test_pieces_are_aligned_zero_and_do_not_overlap(requests):
    x = lib.pa_xoffheap_new(16, 8)
    taken = []
    for nbytes, align in requests:
        pointer = lib.pa_xoffheap_alloc(x, nbytes, align)
        assert pointer != ffi.NULL and address(pointer) % align == 0
        piece = ffi.buffer(pointer, nbytes)
        assert bytes(piece) == bytes(nbytes)
        piece[:] = b"\xff" * nbytes
        taken.append((address(pointer), address(pointer) + nbytes))
    taken.sort()
    assert all(end <= begin for (_, end), (begin, _) in zip(taken, taken[1:]))
    assert lib.pa_xoffheap_sys_bytes(x) % BLOCK == 0
    assert lib.pa_xoffheap_sys_bytes(x) >= sum(nbytes for nbytes, _ in requests)
    lib.pa_xoffheap_delete(x)


def test_blocks_are_mapped_as_needed(offheap):
    x = offheap()
    assert lib.pa_xoffheap_sys_bytes(x) == 0
    lib.pa_xoffheap_alloc(x, 1000, 8)
    assert lib.pa_xoffheap_sys_bytes(x) == BLOCK
    for _ in range(BLOCK // 1000):
        lib.pa_xoffheap_alloc(x, 1000, 8)
    assert lib.pa_xoffheap_sys_bytes(x) == 2 * BLOCK


@pytest.mark.parametrize("nbytes", [BLOCK - 1, BLOCK, BLOCK + 1, 10 * BLOCK + 5])
def test_large_pieces(offheap, nbytes):
    x = offheap()
    small = lib.pa_xoffheap_alloc(x, 100, 8)
    large = lib.pa_xoffheap_alloc(x, nbytes, 64)
    assert large != ffi.NULL and address(large) % 64 == 0
    ffi.buffer(large, nbytes)[:] = b"\1" * nbytes
    assert bytes(ffi.buffer(small, 100)) == bytes(100)
    assert nbytes <= lib.pa_xoffheap_sys_bytes(x) <= nbytes + 2 * BLOCK + 65536


def test_a_refusal_takes_nothing(offheap):
    x = offheap()
    lib.pa_xvm_inject_failure(1)
    try:
        assert lib.pa_xoffheap_alloc(x, 100, 8) == ffi.NULL
        assert lib.pa_xoffheap_alloc(x, 10 * BLOCK, 8) == ffi.NULL
        assert lib.pa_xfixalloc_alloc(x) == ffi.NULL
    finally:
        lib.pa_xvm_inject_failure(0)
    assert lib.pa_xoffheap_sys_bytes(x) == lib.pa_xfixalloc_total(x) == lib.pa_xfixalloc_inuse(x) == 0
    assert lib.pa_xoffheap_alloc(x, 100, 8) != ffi.NULL
    assert lib.pa_xfixalloc_alloc(x) != ffi.NULL


def test_fixalloc_is_type_stable(offheap):
    x = offheap(192, 64)
    objects = [lib.pa_xfixalloc_alloc(x) for _ in range(50)]
    for i, pointer in enumerate(objects):
        assert address(pointer) % 64 == 0
        assert bytes(ffi.buffer(pointer, 192)) == bytes(192)        # new ones are zero
        ffi.buffer(pointer, 192)[:] = bytes([i + 1]) * 192
    for pointer in objects:
        lib.pa_xfixalloc_free(x, pointer)
    for i, pointer in enumerate(objects):       # freed: a late reader still finds the old contents ...
        assert bytes(ffi.buffer(pointer, 184)) == bytes([i + 1]) * 184
    again = [lib.pa_xfixalloc_alloc(x) for _ in range(50)]
    assert [address(p) for p in again] == [address(p) for p in reversed(objects)]   # last in, first out
    for i, pointer in enumerate(reversed(again)):   # ... and so does the next user, but for the last word
        assert bytes(ffi.buffer(pointer, 184)) == bytes([i + 1]) * 184
    assert lib.pa_xfixalloc_total(x) == 50


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), max_size=200), st.randoms())
def test_fixalloc_counts(steps, random):
    x = lib.pa_xoffheap_new(64, 8)
    held, seen = [], set()
    for take in steps:
        if take:
            pointer = lib.pa_xfixalloc_alloc(x)
            assert address(pointer) not in {address(p) for p in held}
            held.append(pointer)
            seen.add(address(pointer))
        elif held:
            lib.pa_xfixalloc_free(x, held.pop(random.randrange(len(held))))
        assert lib.pa_xfixalloc_inuse(x) == len(held)
        assert lib.pa_xfixalloc_total(x) == len(seen)       # recycled before anything new is carved
    lib.pa_xoffheap_delete(x)
