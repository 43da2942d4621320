"""Ps: attached at a thread's first miss, given back at its exit, reused; fork from Python."""

import os
import threading
import time

import pytest

from whitebox import ffi, lib


def wait_until(true, seconds=20):
    """Python's join returns before the C library has run a thread's destructors: poll, with a deadline."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "not true in time"
        time.sleep(0.001)


def in_threads(count, body):
    """Runs body in so many threads that are all alive at once; their results."""
    attached = lib.pa_xprocs_attached()
    barrier, results = threading.Barrier(count), [None] * count

    def run(i):
        result = body()
        barrier.wait()          # nobody leaves before everybody has been here
        results[i] = result

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert None not in results
    wait_until(lambda: lib.pa_xprocs_attached() == attached)
    return results


@pytest.fixture(autouse=True)
def heap_checks():
    lib.pa_free(lib.pa_malloc(1))
    attached = lib.pa_xprocs_attached()
    yield
    wait_until(lambda: lib.pa_xprocs_attached() == attached)
    lib.pa_free_os_memory()
    message = ffi.new("char[]", 200)
    assert lib.pa_heap_check(message, 200) == 0, ffi.string(message).decode()
    assert lib.pa_xheap_lost_pages() == 0


def touch():
    lib.pa_free(lib.pa_malloc(100))
    return lib.pa_xproc_current()


def test_each_thread_has_a_p_of_its_own():
    mine = lib.pa_xproc_current()
    others = in_threads(8, touch)
    assert mine and 0 not in others
    assert len({mine, *others}) == 9
    assert all(p % 64 == 0 for p in others)


def test_ps_come_back_and_are_reused():
    attached = lib.pa_xprocs_attached()
    first = set(in_threads(6, touch))
    wait_until(lambda: lib.pa_xprocs_attached() == attached)
    count = lib.pa_xprocs_count()
    for _ in range(20):
        assert set(in_threads(6, touch)) <= first | set(in_threads(1, touch))
    assert lib.pa_xprocs_count() == count       # no growth, however many threads come and go


def test_a_reused_p_borrows_again():
    """The first blocks of a class come from a larger one's page (decision 011), of every thread, not of every P."""
    def first_blocks():
        larger = lib.pa_malloc(64)              # the class above has a page
        blocks = [lib.pa_malloc(48) for _ in range(12)]
        usable = [lib.pa_usable_size(p) for p in blocks]
        for p in (larger, *blocks):
            lib.pa_free(p)
        return lib.pa_xproc_current(), usable

    lib.pa_free_os_memory()                     # no span of the class is left to anybody
    seen = {}
    for _ in range(20):
        [(p, usable)] = in_threads(1, first_blocks)
        lib.pa_free_os_memory()
        assert usable[0] == 64 and usable[-1] == 48
        assert seen.setdefault(p, usable) == usable
    assert len(seen) < 20


def test_a_thread_that_never_misses_has_no_p():
    def idle():
        lib.pa_free(ffi.NULL)
        lib.pa_owns(ffi.NULL)
        return (lib.pa_xproc_current(),)

    assert in_threads(1, idle) == [(0,)]


def test_blocks_survive_their_thread():
    def allocate():
        blocks = [lib.pa_malloc(n) for n in (1, 100, 5000, 100_000)]
        for n, p in zip((1, 100, 5000, 100_000), blocks):
            ffi.buffer(p, n)[:] = b"\x5a" * n
        return blocks

    all_blocks = [p for blocks in in_threads(4, allocate) for p in blocks]
    again = [p for blocks in in_threads(4, allocate) for p in blocks]       # reuse the same Ps
    assert len({int(ffi.cast("uintptr_t", p)) for p in all_blocks + again}) == 32
    for i, p in enumerate(all_blocks):
        n = (1, 100, 5000, 100_000)[i % 4]
        assert bytes(ffi.buffer(p, n)) == b"\x5a" * n
    for p in all_blocks + again:
        lib.pa_free(p)


def test_statistics_count_threads():
    out = ffi.new("pa_mem_stats *")

    def look():
        lib.pa_free(lib.pa_malloc(1))
        return True

    lib.pa_read_mem_stats(out)
    before = out.threads
    started, leave = threading.Semaphore(0), threading.Event()

    def stay():
        look()
        started.release()
        leave.wait()

    threads = [threading.Thread(target=stay, daemon=True) for _ in range(3)]
    for t in threads:
        t.start()
    for _ in threads:
        started.acquire()
    lib.pa_read_mem_stats(out)
    assert out.threads == before + 3
    assert out.mcache_inuse == out.threads * lib.pa_xproc_bytes()
    assert out.mcache_sys == lib.pa_xprocs_count() * lib.pa_xproc_bytes()
    leave.set()
    for t in threads:
        t.join()
    wait_until(lambda: lib.pa_xprocs_attached() == before)
    lib.pa_read_mem_stats(out)
    assert out.threads == before


def test_a_forked_child_has_one_thread_and_all_blocks():
    """What other threads cached is free in the child, what they allocated stays, and the parent does not notice."""
    held, leave, ready = [], threading.Event(), threading.Semaphore(0)

    def stay():
        blocks = [lib.pa_malloc(n) for n in (16, 16, 3000, 3000, 70_000, 70_000)]
        for p in blocks[::2]:
            lib.pa_free(p)
        held.extend(blocks[1::2])
        ready.release()
        leave.wait()
        for p in blocks[1::2]:
            lib.pa_free(p)

    mine = lib.pa_malloc(1000)
    ffi.buffer(mine, 1000)[:] = b"m" * 1000
    threads = [threading.Thread(target=stay, daemon=True) for _ in range(3)]
    for t in threads:
        t.start()
    for _ in threads:
        ready.acquire()
    out, message = ffi.new("pa_mem_stats *"), ffi.new("char[]", 200)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            assert lib.pa_heap_check(message, 200) == 0, ffi.string(message)
            assert lib.pa_xheap_lost_pages() == 0
            assert lib.pa_xprocs_attached() == 1
            lib.pa_read_mem_stats(out)
            before = out.explicit_objects
            assert out.explicit_cached == 0 or lib.pa_free_os_memory() >= 0
            assert bytes(ffi.buffer(mine, 1000)) == b"m" * 1000
            for p in held:
                lib.pa_free(p)
            lib.pa_free(mine)
            lib.pa_free_os_memory()
            lib.pa_read_mem_stats(out)
            assert before - out.explicit_objects == len(held) + 1
            assert out.explicit_cached == 0
            assert lib.pa_heap_check(message, 200) == 0, ffi.string(message)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    leave.set()
    for t in threads:
        t.join()
    lib.pa_free(mine)
