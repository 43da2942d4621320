"""heap/release: what leaves the heap for the OS and how, refusals, and the memory limit."""

import contextlib
import ctypes
import os
import subprocess
import sys

import pytest

from whitebox import ffi, lib

PAGE, MIB = 8192, 1 << 20
DONTNEED, FREE = 1, 0
NO_MADV_FREE, NO_MADVISE = 1, 2
NONE = (1 << 63) - 1
TESTS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def address(pointer):
    return int(ffi.cast("uintptr_t", pointer))


def stats():
    out = ffi.new("pa_scavenge_stats *")
    lib.pa_read_scavenge_stats(out)
    return out


def mem():
    out = ffi.new("pa_mem_stats *")
    lib.pa_read_mem_stats(out)
    return out


def run_script(text, **environment):
    """A process of its own, so that the heap is new."""
    head = f"import sys, time\nsys.path.insert(0, {TESTS!r})\nfrom whitebox import ffi, lib\nMIB = 1 << 20\n"
    subprocess.run([sys.executable, "-c", head + text], check=True, timeout=100, env={**os.environ, **environment})


@pytest.fixture(autouse=True)
def clean():
    lib.pa_free_os_memory()
    yield
    lib.pa_xvm_inject_refusal(0)
    lib.pa_set_madvdontneed(1)
    lib.pa_set_memory_limit(NONE)
    lib.pa_free_os_memory()
    assert lib.pa_heap_check(ffi.NULL, 0) == 0
    assert lib.pa_xheap_lost_pages() == 0


def touched(nbytes):
    p = lib.pa_malloc(nbytes)
    assert p != ffi.NULL
    ctypes.memset(address(p), 0xAB, nbytes)
    return p


def drop(nbytes):
    """That much becomes free and stays backed. Returns where it was."""
    p = touched(nbytes)
    lib.pa_free(p)
    return address(p)


# ---- How


def test_the_method_is_switched_and_asked_for():
    assert lib.pa_set_madvdontneed(-1) == DONTNEED
    assert lib.pa_set_madvdontneed(0) == DONTNEED
    assert lib.pa_set_madvdontneed(-1) == FREE
    assert lib.pa_set_madvdontneed(7) == FREE
    assert lib.pa_set_madvdontneed(-5) == DONTNEED


@pytest.mark.parametrize("again", ["calloc", "alloc_buffer"])
def test_what_was_freed_lazily_is_not_known_to_be_zero(again):
    """The kernel need not have taken the pages: calloc must clear them, whatever the method is by then."""
    lib.pa_set_madvdontneed(0)
    where, before = drop(40 * MIB), stats().lazy_bytes
    assert lib.pa_free_os_memory() >= 40 * MIB
    assert stats().lazy_bytes - before >= 40 * MIB
    old = ctypes.string_at(where, 40 * MIB).count(b"\xab")
    assert old > 0, "the kernel took all of it at once: this test shows nothing"
    if again == "alloc_buffer":
        lib.pa_set_madvdontneed(1)
    p = lib.pa_calloc(1, 40 * MIB)
    assert address(p) == where and ctypes.string_at(where, 40 * MIB) == bytes(40 * MIB)
    lib.pa_free(p)


def test_fresh_pages_are_still_known_to_be_zero():
    """Beyond what was ever freed lazily nothing is touched by calloc: no page becomes resident."""
    run_script("""
lib.pa_set_madvdontneed(0)
block = lib.pa_malloc(10 * MIB)
ffi.memmove(block, bytes(10 * MIB), 10 * MIB)
low = int(ffi.cast("uintptr_t", block))
lib.pa_free(block)
assert lib.pa_free_os_memory() >= 10 * MIB
def present(first, nbytes):
    with open("/proc/self/pagemap", "rb") as file:
        file.seek(first // 4096 * 8)
        return sum(entry >> 7 for entry in file.read(nbytes // 4096 * 8)[7::8])
p = int(ffi.cast("uintptr_t", lib.pa_calloc(1, 10 * MIB)))
assert p == low and present(p, 10 * MIB) == 10 * MIB // 4096    # cleared by hand
q = int(ffi.cast("uintptr_t", lib.pa_calloc(1, 200 * MIB)))     # in arenas of its own
assert present(q, 200 * MIB) == 0
""")


def test_without_madv_free_the_other_is_used():
    lib.pa_xvm_inject_refusal(NO_MADV_FREE)
    lib.pa_set_madvdontneed(0)
    where, before = drop(20 * MIB), stats()
    assert lib.pa_free_os_memory() >= 20 * MIB
    after = stats()
    assert after.lazy_bytes == before.lazy_bytes and after.madvise_refusals == before.madvise_refusals
    assert ctypes.string_at(where, 20 * MIB) == bytes(20 * MIB)


# ---- Refusals


def test_a_refused_release_loses_nothing():
    lib.pa_xvm_inject_refusal(NO_MADVISE)
    drop(30 * MIB)
    before, idle, free = stats(), mem(), lib.pa_xdecay_free_backed()
    assert lib.pa_free_os_memory() == 0
    assert lib.pa_xrelease(10 * MIB) == 0
    after = stats()
    assert after.madvise_refusals - before.madvise_refusals >= 8
    assert (after.asked_bytes, after.background_bytes) == (before.asked_bytes, before.background_bytes)
    assert mem().heap_released == idle.heap_released and lib.pa_xdecay_free_backed() >= free
    assert lib.pa_heap_check(ffi.NULL, 0) == 0
    lib.pa_xvm_inject_refusal(0)
    assert lib.pa_free_os_memory() >= 30 * MIB


def test_not_everything_is_tried_when_the_os_refuses():
    """Locked memory: a thousand runs are not walked over by every look."""
    lib.pa_xvm_inject_refusal(NO_MADVISE)
    drop(200 * MIB)
    before = stats().madvise_calls
    assert lib.pa_xrelease(200 * MIB) == 0
    assert stats().madvise_calls - before <= 8
    before = stats().madvise_calls
    lib.pa_free_os_memory()                 # who asks gets all tried
    assert stats().madvise_calls - before >= 50


# ---- How much, and which first


def test_bytes_are_exact():
    drop(64 * MIB)
    free = lib.pa_xdecay_free_backed()
    assert lib.pa_xrelease(5 * MIB + PAGE) == 5 * MIB + PAGE
    assert lib.pa_xdecay_free_backed() == free - 5 * MIB - PAGE
    assert lib.pa_free_os_memory() >= free - 5 * MIB - PAGE
    assert lib.pa_xdecay_free_backed() == 0


def test_dense_runs_go_first():
    """Single pages high up stay when a long run below is enough."""
    low = touched(8 * MIB)
    pages = [touched(PAGE * 5) for _ in range(400)]
    for p in pages[::2]:
        lib.pa_free(p)
    lib.pa_free(low)
    free = lib.pa_xdecay_free_backed()
    before = stats()
    assert lib.pa_xrelease(6 * MIB) == 6 * MIB
    assert stats().madvise_calls - before.madvise_calls <= 4
    assert lib.pa_xdecay_free_backed() == free - 6 * MIB
    for p in pages[1::2]:
        lib.pa_free(p)


# ---- The limit


@contextlib.contextmanager
def limited(room):
    """A limit that leaves room bytes beyond what is backed now."""
    limit = stats().backed_bytes + room
    assert lib.pa_set_memory_limit(limit) == NONE
    yield limit
    lib.pa_set_memory_limit(NONE)


def test_an_allocation_over_the_limit_releases_first():
    hole, kept = touched(60 * MIB), touched(100 * MIB)
    lib.pa_free(hole)
    with limited(4 * MIB) as limit:
        before = stats().limit_bytes
        p = touched(90 * MIB)               # does not fit the hole: fresh pages
        after = stats()
        assert after.limit_bytes > before
        assert after.backed_bytes <= limit or after.over_limit == 1
        lib.pa_free(p)
    lib.pa_free(kept)


def test_a_churn_stays_below_the_limit():
    live = [touched(3 * MIB) for _ in range(30)]
    with limited(16 * MIB) as limit:
        for i in range(300):
            lib.pa_free(live[i % 30])
            live[i % 30] = touched((1 + i % 5) * MIB)
            now = stats()
            assert now.backed_bytes <= limit and not now.over_limit
    for p in live:
        lib.pa_free(p)


def test_over_the_limit_it_goes_on_and_says_so_once():
    with limited(2 * MIB) as limit:
        before = stats().over_limit_count
        blocks = [touched(10 * MIB) for _ in range(10)]
        now = stats()
        assert now.over_limit == 1 and now.over_limit_count == before + 1 and now.backed_bytes > limit
        for p in blocks:
            lib.pa_free(p)
        lib.pa_free_os_memory()
        lib.pa_free(touched(MIB))
        assert stats().over_limit == 0
        again = [touched(10 * MIB) for _ in range(2)]
        assert stats().over_limit_count == before + 2
        for p in again:
            lib.pa_free(p)


def test_a_lower_limit_takes_effect_at_once():
    drop(80 * MIB)
    with limited(-60 * MIB) as limit:
        now = stats()
        assert now.backed_bytes <= limit and now.memory_limit == limit


def test_growing_in_place_counts():
    with limited(30 * MIB) as limit:
        drop(25 * MIB)
        p = touched(2 * MIB)
        for size in range(3, 25):
            p = lib.pa_realloc(p, size * MIB)
            ctypes.memset(address(p), 1, size * MIB)
            now = stats()
            assert now.backed_bytes <= limit or now.over_limit
        lib.pa_free(p)


@pytest.mark.parametrize("limit", [0, 1, 1000])
def test_a_limit_that_nothing_fits(limit):
    lib.pa_set_memory_limit(limit)
    blocks = [touched(n) for n in (1, 100, 5000, 70_000, 9 * MIB)]
    assert stats().over_limit == 1
    for p in blocks:
        lib.pa_free(p)


def test_refusals_near_the_limit():
    drop(40 * MIB)
    lib.pa_xvm_inject_refusal(NO_MADVISE)
    with limited(0):
        blocks = [touched(9 * MIB) for _ in range(12)]
        assert stats().over_limit == 1
        for p in blocks:
            lib.pa_free(p)


# ---- The thread


def test_the_thread_sleeps_when_the_os_refuses():
    """Locked memory cannot be given back: no wake-ups while nothing changes, and it works again afterwards."""
    run_script("""
def stats():
    out = ffi.new("pa_scavenge_stats *")
    lib.pa_read_scavenge_stats(out)
    return out
def until(what, seconds=30):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)
def drop(n):
    blocks = [lib.pa_malloc(9 * MIB) for _ in range(n)]
    for p in blocks:
        ffi.memmove(p, bytes(9 * MIB), 9 * MIB)
    for p in blocks:
        lib.pa_free(p)
    lib.pa_free(lib.pa_malloc(10 * MIB))    # a call that sees the notice
lib.pa_xscavenge_enable()
lib.pa_xvm_inject_refusal(2)
drop(10)
until(lambda: stats().madvise_refusals >= 1)
def asleep():                               # no look in what would be thirty
    looks = stats().background_looks
    time.sleep(1.5)
    return stats().background_looks == looks
until(asleep)
lib.pa_xvm_inject_refusal(0)
drop(20)
until(lambda: stats().background_bytes > 100 * MIB)
""", PYALLOC_DECAY_MS="50")
