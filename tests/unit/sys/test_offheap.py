"""Memory for metadata: bump allocation that never overlaps, and type-stable fixed-size objects."""

import os

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

    def make(object_bytes=192, align=64, by_page=False):
        made.append(lib.pa_xoffheap_new(object_bytes, align, by_page))
        return made[-1]

    yield make
    for x in made:
        lib.pa_xoffheap_delete(x)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5000), st.sampled_from([1, 2, 8, 64, 4096])), min_size=1, max_size=60))
def test_pieces_are_aligned_zero_and_do_not_overlap(requests):
    x = lib.pa_xoffheap_new(16, 8, False)
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
@given(st.lists(st.booleans(), max_size=200), st.randoms(), st.booleans())
def test_fixalloc_counts(steps, random, by_page):
    x = lib.pa_xoffheap_new(64, 8, by_page)
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


PAGE = os.sysconf("SC_PAGESIZE")
NO_MADVISE = 2


def page_of(pointer):
    return address(pointer) // PAGE


def test_objects_by_page_do_not_overlap_or_leave_their_page(offheap):
    x = offheap(192, 64, by_page=True)
    taken = sorted(address(lib.pa_xfixalloc_alloc(x)) for _ in range(2000))
    assert all(b - a >= 192 for a, b in zip(taken, taken[1:]))
    assert all(a % 64 == 0 and a // PAGE == (a + 191) // PAGE for a in taken)
    assert len({a // PAGE for a in taken}) == -(-2000 // (PAGE // 192))


def test_free_pages_go_back_and_are_used_again(offheap):
    per_page = PAGE // 192
    x = offheap(192, 64, by_page=True)
    objects = [lib.pa_xfixalloc_alloc(x) for _ in range(10 * per_page)]
    for pointer in objects:
        ffi.buffer(pointer, 184)[:] = b"\xff" * 184     # the last word is the allocator's
    kept = objects[0]
    for pointer in objects[1:]:
        lib.pa_xfixalloc_free(x, pointer)
    assert lib.pa_xfixalloc_total(x) == 10 * per_page
    assert lib.pa_xfixalloc_release(x) == 9 * PAGE      # all but the page of the one in use
    assert lib.pa_xfixalloc_total(x) == per_page and lib.pa_xfixalloc_inuse(x) == 1
    assert lib.pa_xfixalloc_release(x) == 0
    for pointer in objects:
        fill = b"\xff" if page_of(pointer) == page_of(kept) else b"\0"
        assert bytes(ffi.buffer(pointer, 184)) == fill * 184
    mapped = lib.pa_xoffheap_sys_bytes(x)
    again = {address(lib.pa_xfixalloc_alloc(x)) for _ in range(10 * per_page - 1)}
    assert again == {address(p) for p in objects[1:]}
    assert lib.pa_xoffheap_sys_bytes(x) == mapped


def test_a_refused_release_loses_nothing(offheap):
    x = offheap(192, 64, by_page=True)
    objects = {address(lib.pa_xfixalloc_alloc(x)) for _ in range(300)}
    for a in objects:
        lib.pa_xfixalloc_free(x, ffi.cast("void *", a))
    lib.pa_xvm_inject_refusal(NO_MADVISE)
    try:
        assert lib.pa_xfixalloc_release(x) == 0
    finally:
        lib.pa_xvm_inject_refusal(0)
    again = {address(lib.pa_xfixalloc_alloc(x)) for _ in range(300)}
    assert len(again) == 300 and {a // PAGE for a in again} == {a // PAGE for a in objects}
    for a in again:
        lib.pa_xfixalloc_free(x, ffi.cast("void *", a))
    assert lib.pa_xfixalloc_release(x) == len({a // PAGE for a in objects}) * PAGE


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["take", "free", "free", "release"]), max_size=400), st.randoms())
def test_objects_in_use_are_never_given_back(steps, random):
    x = lib.pa_xoffheap_new(1000, 8, True)      # 4 a page: pages become free all the time
    held, stamp = {}, 0
    for step in ["take"] * 20 + steps:
        if step == "take":
            pointer = lib.pa_xfixalloc_alloc(x)
            stamp += 1
            assert address(pointer) not in held
            ffi.buffer(pointer, 992)[:] = stamp.to_bytes(8, "little") * 124
            held[address(pointer)] = stamp
        elif step == "free" and held:
            a = random.choice(sorted(held))
            del held[a]
            lib.pa_xfixalloc_free(x, ffi.cast("void *", a))
        elif step == "release":
            lib.pa_xfixalloc_release(x)
        assert lib.pa_xfixalloc_inuse(x) == len(held) <= lib.pa_xfixalloc_total(x)
    for a, stamp in held.items():
        assert bytes(ffi.buffer(ffi.cast("void *", a), 992)) == stamp.to_bytes(8, "little") * 124
    lib.pa_xoffheap_delete(x)
