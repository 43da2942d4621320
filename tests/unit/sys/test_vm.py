"""What sys/vm.h promises, on real mappings: zero pages, alignment, never replacing a mapping, injected failures."""

import contextlib
import ctypes
import mmap
import os
import random

import pytest

from whitebox import ffi, lib

MIB = 1 << 20
ARENA = 64 * MIB
OS_PAGE = os.sysconf("SC_PAGESIZE")


def address(pointer):
    return int(ffi.cast("uintptr_t", pointer))


def mapped_ranges():
    with open("/proc/self/maps") as file:
        for line in file:
            lo, hi = line.split()[0].split("-")
            yield int(lo, 16), int(hi, 16), line.split()[1]


def is_mapped(addr, nbytes):
    covered = addr
    for lo, hi, _ in mapped_ranges():
        if lo <= covered < hi:
            covered = hi
    return covered >= addr + nbytes


def resident_kib(addr, nbytes):
    """By the kernel's page table: mappings next to each other are one in smaps."""
    first, count = addr // OS_PAGE, -(-nbytes // OS_PAGE)
    with open("/proc/self/pagemap", "rb") as file:
        file.seek(first * 8)
        entries = file.read(count * 8)
    return sum(entry[7] >> 7 for entry in zip(*[iter(entries)] * 8)) * OS_PAGE // 1024


@contextlib.contextmanager
def mapped(nbytes):
    pointer = lib.pa_xvm_map(nbytes)
    assert pointer != ffi.NULL
    yield address(pointer)
    lib.pa_xvm_unmap(address(pointer), nbytes)


def view(addr, nbytes):
    return (ctypes.c_char * nbytes).from_address(addr)


def test_the_page_size_is_the_systems():
    assert lib.pa_xvm_page_size() == OS_PAGE


def test_mapped_memory_is_zero_writable_and_not_resident():
    with mapped(MIB) as addr:
        assert addr % OS_PAGE == 0
        assert resident_kib(addr, MIB) < 256
        assert view(addr, MIB).raw == bytes(MIB)
        ctypes.memset(addr, 0xAB, MIB)
        assert view(addr, MIB).raw == b"\xab" * MIB
        assert resident_kib(addr, MIB) >= 1024


def test_unmapped_memory_is_gone():
    with mapped(MIB) as addr:
        assert is_mapped(addr, MIB)
        lib.pa_xvm_unmap(addr, MIB)
        assert not is_mapped(addr, MIB)
        with pytest.raises(AssertionError):     # the context's own unmap is harmless, this checks the helper
            assert is_mapped(addr, MIB)


def test_released_pages_read_zero_and_are_not_resident():
    with mapped(MIB) as addr:
        ctypes.memset(addr, 0xCD, MIB)
        assert lib.pa_xvm_release(addr + 256 * 1024, 512 * 1024)
        raw = view(addr, MIB).raw
        assert raw[: 256 * 1024] == b"\xcd" * (256 * 1024)
        assert raw[256 * 1024 : 768 * 1024] == bytes(512 * 1024)
        assert raw[768 * 1024 :] == b"\xcd" * (256 * 1024)
        assert lib.pa_xvm_release(addr, MIB)
        assert resident_kib(addr, MIB) == 0
        ctypes.memset(addr, 1, MIB)             # still ready


def protection_at(addr):
    return next((prot for lo, hi, prot in mapped_ranges() if lo <= addr < hi), None)


@pytest.mark.parametrize("readable, protection", [(True, "r--p"), (False, "---p")])
def test_reservations_and_commits(readable, protection):
    nbytes = 64 * MIB
    addr = address(lib.pa_xvm_reserve(nbytes, readable))
    assert addr and protection_at(addr) == protection and protection_at(addr + nbytes - 1) == protection
    if readable:
        assert view(addr + 5 * MIB, 4096).raw == bytes(4096)
    assert resident_kib(addr, nbytes) < 64
    inside = addr + MIB + 100                   # rounded outwards to OS pages
    assert lib.pa_xvm_commit(inside, 10)
    ctypes.memset(addr + MIB, 7, OS_PAGE)
    assert protection_at(addr + MIB) == "rw-p"
    assert protection_at(addr + MIB - 1) == protection and protection_at(addr + MIB + OS_PAGE) == protection
    assert lib.pa_xvm_commit(addr + MIB, 2 * OS_PAGE)   # again, and more: contents stay
    assert view(addr + MIB, OS_PAGE).raw == b"\7" * OS_PAGE
    lib.pa_xvm_unmap(addr, nbytes)


@pytest.mark.parametrize("hint", [0, 0xE0 << 32, (0xE1 << 32) + OS_PAGE, 0x12345000])
@pytest.mark.parametrize("arenas", [1, 3])
def test_heap_memory_is_aligned_wherever_the_kernel_puts_it(hint, arenas):
    before = lib.pa_xvm_heap_mmaps()
    addr = lib.pa_xvm_map_heap(hint, arenas * ARENA, ARENA)
    assert addr and addr % ARENA == 0
    assert is_mapped(addr, arenas * ARENA)
    assert lib.pa_xvm_heap_mmaps() == before + 1
    if hint and hint % ARENA == 0:
        assert addr == hint
    for place in (addr, addr + arenas * ARENA - 8):
        view(place, 8).raw = b"pyalloc!"
    lib.pa_xvm_unmap(addr, arenas * ARENA)


def test_a_taken_hint_is_never_replaced():
    hint = 0xE2 << 32
    first = lib.pa_xvm_map_heap(hint, ARENA, ARENA)
    assert first == hint
    ctypes.memset(first, 0x77, 4096)
    second = lib.pa_xvm_map_heap(hint, ARENA, ARENA)
    assert second and second % ARENA == 0 and second != first
    half_taken = lib.pa_xvm_map_heap(hint - ARENA, 2 * ARENA, ARENA)     # its second half is in the way
    assert half_taken and half_taken not in (hint - ARENA, first, second)
    assert view(first, 4096).raw == b"\x77" * 4096
    for addr, nbytes in ((first, ARENA), (second, ARENA), (half_taken, 2 * ARENA)):
        lib.pa_xvm_unmap(addr, nbytes)


def test_trimming_leaves_nothing_behind():
    blocker = lib.pa_xvm_map_heap(0xE3 << 32, ARENA, ARENA)
    before = sum(hi - lo for lo, hi, _ in mapped_ranges())
    addr = lib.pa_xvm_map_heap(0xE3 << 32, ARENA, ARENA)                # goes elsewhere, cut out of more
    assert sum(hi - lo for lo, hi, _ in mapped_ranges()) - before == ARENA
    lib.pa_xvm_unmap(addr, ARENA)
    lib.pa_xvm_unmap(blocker, ARENA)
    assert not is_mapped(addr, OS_PAGE) and not is_mapped(blocker, OS_PAGE)


@pytest.mark.parametrize("nth", [1, 2, 5])
def test_injection_fails_the_nth_call_and_all_after_it(nth):
    calls = [
        lambda: address(lib.pa_xvm_map(4096)) != 0,
        lambda: lib.pa_xvm_commit(ready, 4096),
        lambda: lib.pa_xvm_release(ready, OS_PAGE),
        lambda: address(lib.pa_xvm_reserve(4096, True)) != 0,
    ]
    with mapped(MIB) as ready:
        random.Random(nth).shuffle(calls)
        lib.pa_xvm_inject_failure(nth)
        try:
            results = [calls[i % len(calls)]() for i in range(nth + 4)]
        finally:
            lib.pa_xvm_inject_failure(0)
        assert results == [True] * (nth - 1) + [False] * 5
        assert all(call() for call in calls)


def test_errno_is_kept():
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc is not None
    ffi.errno = 77
    assert lib.pa_xvm_map_heap(0, 1 << 62, ARENA) == 0      # refused by the kernel
    assert ffi.errno == 77
    assert lib.pa_xvm_map(1 << 62) == ffi.NULL
    assert ffi.errno == 77
    assert not lib.pa_xvm_release(1, OS_PAGE)               # no address of a page
    assert ffi.errno == 77


def test_python_sees_the_same_page_size():
    assert mmap.PAGESIZE == lib.pa_xvm_page_size()
