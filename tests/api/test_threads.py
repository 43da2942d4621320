"""Many Python threads, fork among them, and the end of the process."""

import os
import queue
import random
import sys
import threading
import time

import pytest

import pyalloc
from pyalloc import alloc, empty


def run_all(functions):
    """Runs functions in threads, one each, and raises what they raised."""
    errors = []

    def guard(function):
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guard, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    deadline = time.monotonic() + 30
    for thread in threads:  # join() may return before the OS thread has ended and given its cache back
        while os.path.exists(f"/proc/self/task/{thread.native_id}"):
            assert time.monotonic() < deadline, "a thread does not end"
            time.sleep(0.001)
    if errors:
        raise errors[0]


def test_threads_create_write_check_and_drop():
    def work(seed):
        rng = random.Random(seed)
        kept = {}
        for step in range(3000):
            nbytes = rng.choice([0, 8, 64, 200, 1024, 5000, 40000, 200000])
            buf = (alloc if step % 2 else empty)(nbytes)
            if step % 2:
                assert not any(memoryview(buf)[:64])
            stamp = (step + seed) % 256
            memoryview(buf)[: min(nbytes, 64)] = bytes([stamp]) * min(nbytes, 64)
            kept[step] = buf, stamp
            if len(kept) > 50:
                old, stamp = kept.pop(rng.choice(list(kept)))
                assert all(byte == stamp for byte in memoryview(old)[:64])

    run_all([lambda seed=seed: work(seed) for seed in range(4)])


def test_buffers_made_here_and_dropped_there():
    line = queue.Queue(maxsize=100)

    def produce():
        for i in range(5000):
            buf = empty((i * 37) % 3000)
            memoryview(buf)[:1] = b"p" if len(buf) else b""
            line.put(buf)
        line.put(None)

    def consume():
        while (buf := line.get()) is not None:
            assert len(buf) == 0 or memoryview(buf)[0] == ord("p")

    pyalloc.free_os_memory()  # collects frees that wait on spans without an owner
    before = pyalloc.read_mem_stats().explicit_objects
    run_all([produce, consume])
    pyalloc.free_os_memory()
    assert pyalloc.read_mem_stats().explicit_objects <= before + 16


def test_short_threads_leave_nothing():
    def short():
        kept = [empty(size) for size in (16, 100, 3000, 50000)]
        assert kept

    for _ in range(5):
        run_all([short] * 10)
    before = pyalloc.read_mem_stats()
    for _ in range(50):
        run_all([short] * 10)
    after = pyalloc.read_mem_stats()
    assert after.heap_sys == before.heap_sys
    assert after.heap_inuse <= before.heap_inuse + (2 << 20)


def test_one_buffer_under_many_threads():
    """free, resize, views and DLPack of one object race: errors are the documented ones, never a crash."""
    buf = alloc(1000)
    stop = threading.Event()

    def look():
        while not stop.is_set():
            try:
                with memoryview(buf) as view:
                    assert len(view) >= 1000 and view[999] in (0, 1)
            except ValueError:
                assert buf.freed

    def change():
        rng = random.Random(1)
        for _ in range(3000):
            try:
                buf.resize(rng.choice([1000, 5000, 40000, 100000]))
            except BufferError:
                pass
        stop.set()

    def export():
        while not stop.is_set():
            buf.__dlpack__()

    run_all([look, look, change, export])
    while not buf.freed:
        buf.free()


def test_views_taken_while_the_gil_is_let_go():
    buf = alloc(20 << 20)
    stop = threading.Event()

    def look():
        while not stop.is_set():
            with memoryview(buf) as view:
                assert view[len(view) - 1] == 0

    def grow():
        for nbytes in (39 << 20, 20 << 20, 60 << 20, 1 << 20, 50 << 20):
            for _ in range(1000):
                try:
                    buf.resize(nbytes)
                    break
                except BufferError:
                    pass
        stop.set()

    run_all([look, grow])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_fork_in_a_threaded_process(run_python):
    """Children of a process whose threads are inside the allocator allocate, check the heap and exit 0."""
    run_python("-W", "ignore", "-c", FORK, timeout=120)


FORK = """
import os, threading, pyalloc
stop = threading.Event()
def churn():
    while not stop.is_set():
        kept = [pyalloc.alloc(size) for size in (64, 3000, 50000, 300000)]
threads = [threading.Thread(target=churn) for _ in range(3)]
for thread in threads: thread.start()
mine = pyalloc.alloc(100000)
memoryview(mine)[:6] = b"parent"
for i in range(40):
    child = os.fork()
    if child == 0:
        try:
            assert bytes(mine)[:6] == b"parent"
            kept = [pyalloc.alloc(size) for size in (16, 64, 1000, 9000, 100000, 1 << 20) * 5]
            assert not any(any(bytes(buf)) for buf in kept)
            memoryview(mine)[:5] = b"child"
            del kept
            mine.free()
            pyalloc.free_os_memory()
            grandchild = os.fork()
            if grandchild == 0:
                os._exit(0 if len(pyalloc.empty(5000)) == 5000 else 2)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, status
    assert bytes(mine)[:6] == b"parent"
stop.set()
for thread in threads: thread.join()
pyalloc.heap_check()
"""


@pytest.mark.parametrize(
    "script",
    [
        "import pyalloc; kept = [pyalloc.alloc(i) for i in range(1000)]",
        "import pyalloc, sys; sys.kept = memoryview(pyalloc.alloc(1 << 20))",
        "import pyalloc, sys; sys.kept = pyalloc.alloc(10).__dlpack__()",
        "import pyalloc, threading, time\n"
        "def run():\n    while True: pyalloc.alloc(1000)\n"
        "threading.Thread(target=run, daemon=True).start()",
    ],
)
def test_the_end_of_the_process(run_python, script):
    result = run_python("-c", script)
    assert result.stderr == "" and result.stdout == ""


def test_out_of_memory_under_a_limit(run_python):
    """Under an address-space limit: OutOfMemoryError, the heap still checks, and smaller requests still work."""
    run_python("-c", LIMITED)


LIMITED = """
import resource, pyalloc
first = pyalloc.alloc(1000)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20), resource.RLIM_INFINITY))
kept = []
try:
    while True:
        kept.append(pyalloc.empty(10 << 20))
except pyalloc.OutOfMemoryError as error:
    assert "cannot allocate 10485760 bytes" in str(error)
assert len(kept) >= 10
pyalloc.heap_check()
kept.pop()
assert len(pyalloc.alloc(1 << 20)) == 1 << 20 and len(pyalloc.empty(64)) == 64
kept.clear()
assert len(pyalloc.empty(100 << 20)) == 100 << 20
pyalloc.heap_check()
"""


def test_recursion_of_deallocs_is_flat():
    """A weakref callback that makes and drops Buffers runs inside a dealloc."""
    import weakref

    count = []

    def again(_):
        count.append(len(alloc(10)))

    buf = alloc(10)
    reference = weakref.ref(buf, again)
    del buf
    assert count == [10] and reference() is None and sys.getrefcount(again) < 4
