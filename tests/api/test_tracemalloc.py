"""tracemalloc sees Buffers: who made them, how large they are, and that they are gone."""

import gc
import sys
import threading
import tracemalloc

import pytest

import pyalloc

MIB = 1 << 20
OURS = [tracemalloc.DomainFilter(True, pyalloc.TRACEMALLOC_DOMAIN)]


@pytest.fixture(autouse=True)
def tracing():
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


def traces():
    """{(line, bytes)} of our domain, with their number."""
    found = {}
    for trace in tracemalloc.take_snapshot().filter_traces(OURS).traces:
        frame = trace.traceback[0]
        assert frame.filename == __file__ and trace.domain == pyalloc.TRACEMALLOC_DOMAIN
        found[frame.lineno, trace.size] = found.get((frame.lineno, trace.size), 0) + 1
    return found


def line():
    return sys._getframe(1).f_lineno


def test_the_domain_is_documented_and_ours_alone():
    assert pyalloc.TRACEMALLOC_DOMAIN == int.from_bytes(b"pa", "big")
    bytearray(1000), [1] * 1000
    assert traces() == {}


def test_a_snapshot_names_the_line():
    kept = [pyalloc.alloc(1000) for _ in range(3)]; a = line()        # noqa: E702
    kept.append(pyalloc.empty(5 * MIB)); b = line()                   # noqa: E702
    kept.append(pyalloc.alloc(64 * MIB, align=4096)); c = line()      # noqa: E702
    kept.append(pyalloc.empty(0)); d = line()                         # noqa: E702
    assert traces() == {(a, 1000): 3, (b, 5 * MIB): 1, (c, 64 * MIB): 1, (d, 0): 1}
    largest = tracemalloc.take_snapshot().filter_traces(OURS).statistics("lineno")[0]
    assert (largest.size, largest.count, largest.traceback[0].lineno) == (64 * MIB, 1, c)
    assert tracemalloc.get_traced_memory()[0] >= 69 * MIB


@pytest.mark.parametrize("how", ["free", "with", "drop", "release after a view"])
def test_freed_buffers_vanish(how):
    buffer = pyalloc.empty(3000)
    assert [size for _, size in traces()] == [3000]
    if how == "free":
        buffer.free()
        buffer.free()
    elif how == "with":
        with buffer:
            pass
    elif how == "drop":
        del buffer
    else:
        view = memoryview(buffer)
        del buffer
        assert [size for _, size in traces()] == [3000]
        view.release()
    assert traces() == {}


def test_the_object_is_reused_without_its_trace():
    """A Buffer object out of the free list, made while tracing, then while not."""
    pyalloc.empty(10)
    tracemalloc.stop()
    buffer = pyalloc.empty(10)
    tracemalloc.start()
    other = pyalloc.empty(20); here = line()                          # noqa: E702
    buffer.free()
    assert traces() == {(here, 20): 1} and not other.freed


def test_the_peak_counts():
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(5):
        pyalloc.empty(20 * MIB).free()
    now, peak = tracemalloc.get_traced_memory()
    assert 20 * MIB <= peak - before < 21 * MIB and now - before < MIB


@pytest.mark.parametrize("make", [pyalloc.empty, pyalloc.alloc, lambda n: pyalloc.alloc(n, align=64),
                                  lambda n: pyalloc.alloc(n, align=1 << 16, zero=False)])
def test_resize_is_traced_where_it_happens(make):
    buffer = make(1000)
    for nbytes in (1001, 10, 100_000, 64, 3 * MIB, 9 * MIB, 2 * MIB, 0, 40 * MIB):
        buffer.resize(nbytes); here = line()                          # noqa: E702
        assert traces() == {(here, nbytes): 1}
    buffer.free()
    assert traces() == {}


def test_a_failed_resize_leaves_the_trace():
    buffer = pyalloc.empty(1000); here = line()                       # noqa: E702
    with pytest.raises(pyalloc.OutOfMemoryError):
        buffer.resize(1 << 61)
    with memoryview(buffer), pytest.raises(BufferError):
        buffer.resize(5)
    with pytest.raises(pyalloc.OutOfMemoryError):
        pyalloc.empty(1 << 61)
    assert traces() == {(here, 1000): 1}


def test_resize_of_a_buffer_from_before():
    tracemalloc.stop()
    buffer = pyalloc.empty(1000)
    tracemalloc.start()
    assert traces() == {}
    buffer.resize(5000); here = line()                                # noqa: E702
    assert traces() == {(here, 5000): 1}
    tracemalloc.stop()
    buffer.resize(50)
    tracemalloc.start()
    assert traces() == {}
    buffer.free()


def test_the_memory_of_a_dlpack_consumer_keeps_its_trace():
    numpy = pytest.importorskip("numpy")
    buffer = pyalloc.alloc(8000); here = line()                       # noqa: E702
    array = numpy.from_dlpack(buffer)
    del buffer
    assert traces() == {(here, 8000): 1}
    thread = threading.Thread(target=lambda held: held.clear(), args=([array],))
    del array
    thread.start()
    thread.join()
    del thread
    assert traces() == {}


def test_threads_and_a_stop_meanwhile():
    """Buffers come and go in threads while tracing stops and starts: no trace is left behind."""
    stop = threading.Event()

    def work():
        kept = []
        while not stop.is_set():
            kept.append(pyalloc.empty(100))
            kept[0].resize(20_000)
            del kept[:-20]

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        tracemalloc.stop()
        tracemalloc.start()
        tracemalloc.take_snapshot()
    stop.set()
    for thread in threads:
        thread.join()
    del threads, thread
    gc.collect()
    assert traces() == {}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="up to 3.11 tracemalloc itself hangs in sub-interpreters")
def test_sub_interpreters(run_python):
    run_python("-X", "tracemalloc", "-c", """if True:
        import sys, pyalloc, tracemalloc
        try:
            import _interpreters as interpreters
            one = interpreters.create("legacy")
        except ImportError:
            import _xxsubinterpreters as interpreters
            one = interpreters.create(isolated=False)
        run = getattr(interpreters, "exec", getattr(interpreters, "run_string", None))
        text = "import pyalloc; b = pyalloc.empty(100); b.resize(10**6); b.free(); c = pyalloc.empty(5)"
        assert run(one, text) is None
        interpreters.destroy(one)
        pyalloc.empty(5)
    """, timeout=60)


def test_at_exit(run_python):
    result = run_python("-X", "tracemalloc", "-c", """if True:
        import sys, pyalloc
        kept = [pyalloc.empty(n) for n in range(1000)]
        sys.kept = kept, {i: pyalloc.empty(i) for i in range(1000)}
        kept.append(kept)
        print(len(kept))
    """)
    assert (result.stdout, result.stderr) == ("1001\n", "")
