"""MemStats, metrics and their sums: names, what moves each figure, and that classes sum to what was mapped."""

import dataclasses
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import pyalloc
from pyalloc import alloc, empty

MIB = 1 << 20


# ---- MemStats


def test_all_fields_of_go_are_there(root):
    """In Go's order, from the names in its documentation."""
    words = """Alloc TotalAlloc Sys Lookups Mallocs Frees HeapAlloc HeapSys HeapIdle HeapInuse HeapReleased HeapObjects
        StackInuse StackSys MSpanInuse MSpanSys MCacheInuse MCacheSys BuckHashSys GCSys OtherSys NextGC LastGC
        PauseTotalNs PauseNs PauseEnd NumGC NumForcedGC GCCPUFraction EnableGC DebugGC BySize""".split()
    stats = pyalloc.read_mem_stats()
    for word in words:
        name = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", word)
        name = {"M_Span_Inuse": "mspan_inuse", "MSpan_Inuse": "mspan_inuse"}.get(name, name.lower())
        name = {"m_span_inuse": "mspan_inuse", "m_span_sys": "mspan_sys", "m_cache_inuse": "mcache_inuse",
                "m_cache_sys": "mcache_sys", "gccpu_fraction": "gc_cpu_fraction"}.get(name, name)
        assert hasattr(stats, name), word
    assert len(stats.pause_ns) == len(stats.pause_end) == 256
    assert [row.size_class for row in stats.by_size] == list(range(67))
    assert stats.enable_gc is True and stats.debug_gc is False and stats.alloc == stats.heap_alloc


def test_the_collectors_fields_are_those_of_gc_stats():
    pyalloc.collect()
    stats, gc = pyalloc.read_mem_stats(), pyalloc.read_gc_stats()
    assert (stats.num_gc, stats.num_forced_gc, stats.pause_total_ns) == (gc.cycles, gc.forced_cycles, gc.pause_total_ns)
    assert (stats.last_gc, stats.next_gc, stats.pause_count) == (gc.last_gc_unix_ns, gc.next_gc_bytes, gc.pause_count)
    newest = (stats.pause_count + 255) % 256
    assert stats.pause_ns[newest] == gc.pauses_ns[0] and stats.pause_end[newest] == gc.pause_ends_unix_ns[0]
    assert abs(stats.last_gc / 1e9 - time.time()) < 60
    assert 0 < stats.gc_cpu_fraction < 1


class Pair(pyalloc.Struct):
    """48 bytes with the word that names its class, and without (decision 007: the first seven small classes)."""
    left: pyalloc.Ref
    right: pyalloc.Ref
    first: pyalloc.int64
    second: pyalloc.int64
    third: pyalloc.int64


def test_managed_objects_are_counted_exactly_by_class():
    pyalloc.collect()
    before = pyalloc.read_mem_stats()
    kept = [Pair() for _ in range(777)]
    large = pyalloc.managed_bytes(100_000)
    during = pyalloc.read_mem_stats()
    assert during.mallocs - before.mallocs == 779  # managed_bytes: a descriptor of 32 bytes and the bytes
    assert during.total_alloc - before.total_alloc == 777 * 48 + 32 + 106_496
    assert during.by_size[4].managed_mallocs - before.by_size[4].managed_mallocs == 777
    assert during.by_size[0].managed_mallocs - before.by_size[0].managed_mallocs == 1
    assert during.heap_objects - during.explicit_objects == during.mallocs - during.frees
    del kept, large
    pyalloc.collect()
    after = pyalloc.read_mem_stats()
    assert after.frees - before.frees == 779 and after.mallocs == during.mallocs
    assert after.by_size[4].managed_frees - before.by_size[4].managed_frees == 777


def test_counts_never_go_back_while_threads_allocate():
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            [Pair() for _ in range(200)]
            alloc(1000)

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    last = pyalloc.read_mem_stats()
    for _ in range(500):
        now = pyalloc.read_mem_stats()
        assert now.mallocs >= last.mallocs and now.frees >= last.frees and now.total_alloc >= last.total_alloc
        assert now.heap_objects == now.explicit_objects + now.mallocs - now.frees
        assert now.sys == now.heap_sys + now.mspan_sys + now.mcache_sys + now.gc_sys + now.other_sys
        last = now
    stop.set()
    for thread in threads:
        thread.join()


# ---- Metrics


def value(name):
    found = pyalloc.metrics()[name].value
    return found.total if isinstance(found, pyalloc.Histogram) else found


def test_metrics_describe_themselves():
    found = pyalloc.metrics()
    assert len(found) > 50 and list(found) == [one.name for one in found.values()]
    for one in found.values():
        assert re.fullmatch(r"(/[a-z0-9-]+)+:[a-z-]+", one.name) and one.name.endswith(":" + one.unit)
        assert one.doc.endswith(".") and len(one.doc) > 15
        assert {"count": int, "real": float, "histogram": pyalloc.Histogram}[one.kind] is type(one.value)
    for one in found.values():
        if one.kind == "histogram":
            assert len(one.value.bounds) == len(one.value.counts) + 1
            assert list(one.value.bounds) == sorted(one.value.bounds) and one.value.bounds[-1] == math.inf


def test_memory_classes_sum_to_the_total():
    kept = [empty(size) for size in (10, 1000, 100_000, 10 * MIB)]
    found = {name: one.value for name, one in pyalloc.metrics().items() if name.startswith("/memory/classes/")}
    total = found.pop("/memory/classes/total:bytes")
    assert sum(found.values()) == total > 64 * MIB and kept


def test_histograms_count_what_was_asked_for():
    before = pyalloc.metrics()["/gc/heap/allocs-by-size:bytes"].value
    kept = [Pair(), Pair(), pyalloc.ref_array(5000)]
    after = pyalloc.metrics()["/gc/heap/allocs-by-size:bytes"].value
    more = [b - a for a, b in zip(before.counts, after.counts)]
    bounds = [(low, high) for low, high, n in zip(after.bounds, after.bounds[1:], more) for _ in range(n)]
    assert bounds.count((33, 49)) == 2 and bounds.count((32769, math.inf)) == 1 and kept


def release_a_burst():
    pyalloc.free_os_memory()
    buf = empty(32 * MIB)
    memoryview(buf)[::4096] = b"x" * len(memoryview(buf)[::4096])
    return buf


def burst_and_free():
    release_a_burst().free()


def burst_and_release():
    burst_and_free()
    pyalloc.free_os_memory()


def leave_holes_and_release():
    kept = [empty(20_000) for _ in range(100)][::3]
    pyalloc.free_os_memory()
    return kept


def release_lazily():
    pyalloc.set_madvdontneed(False)
    burst_and_release()


def with_limit_near(more, action):
    """action() with the limit `more` bytes above what counts now."""
    pyalloc.set_memory_limit(int(value("/pyalloc/limit/backed:bytes")) + more)
    return action()


def until_moved(name, action):
    """For what happens in the background: waits for it, not longer than 20 s."""
    before, deadline = value(name), time.monotonic() + 20
    kept = action()
    while value(name) == before and time.monotonic() < deadline:
        time.sleep(0.02)
    return kept


def collect_garbage():
    kept = Pair(left=Pair())
    for _ in range(1000):
        Pair()
    pyalloc.collect()
    return kept


def allocate_until_a_cycle():
    before = value("/gc/cycles/automatic:gc-cycles")
    pyalloc.set_gc_percent(100)
    deadline = time.monotonic() + 60
    while value("/gc/cycles/automatic:gc-cycles") == before and time.monotonic() < deadline:
        pyalloc.managed_bytes(MIB)


def mark_a_large_heap():
    """With allocation going on, so that all kinds of marking get something to do."""
    kept = pyalloc.ref_array([Pair(left=Pair()) for _ in range(50_000)])
    pyalloc.set_gc_percent(10)
    for _ in range(40):
        pyalloc.managed_bytes(MIB)
    pyalloc.collect()
    pyalloc.set_gc_percent(100)
    return kept


def clean_up():
    done = []
    pyalloc.add_cleanup(Pair(), done.append, 1)
    pyalloc.collect()
    assert done == [1]


def stand_in_a_thread():
    ready, leave = threading.Event(), threading.Event()

    def stand():
        block = empty(100)
        ready.set()
        leave.wait()
        del block

    thread = threading.Thread(target=stand, daemon=True)
    thread.start()
    ready.wait()
    return Leaving(leave, thread)


class Leaving:
    """Lets the thread go when it is dropped."""

    def __init__(self, leave, thread):
        self.leave, self.thread = leave, thread

    def __del__(self):
        self.leave.set()
        self.thread.join()


def threads_that_end():
    standing = [stand_in_a_thread() for _ in range(3)]
    standing.clear()


def keep_many_and_collect():
    kept = [Pair() for _ in range(3000)]
    pyalloc.collect()
    return kept


UP, DOWN, ANY = "up", "down", "any"

MOVES = {
    "/memory/classes/total:bytes": (lambda: empty(80 * MIB), UP),
    "/memory/classes/heap/free:bytes": (burst_and_free, UP),
    "/memory/classes/heap/objects:bytes": (lambda: empty(MIB), UP),
    "/memory/classes/heap/released:bytes": (lambda: empty(80 * MIB), ANY),
    "/memory/classes/heap/unused:bytes": (lambda: [empty(size) for size in range(3000, 30000, 3000)], ANY),
    "/memory/classes/metadata/mcache/free:bytes": (threads_that_end, UP),
    "/memory/classes/metadata/mcache/inuse:bytes": (stand_in_a_thread, UP),
    "/memory/classes/metadata/mspan/free:bytes": (lambda: [empty(MIB) for _ in range(50)], ANY),
    "/memory/classes/metadata/mspan/inuse:bytes": (lambda: [empty(MIB) for _ in range(50)], UP),
    "/memory/classes/metadata/other:bytes": (lambda: empty(80 * MIB), UP),
    "/memory/classes/other:bytes": (lambda: [empty(40_000) for _ in range(3000)], ANY),
    "/gc/heap/allocs:bytes": (Pair, UP),
    "/gc/heap/allocs:objects": (Pair, UP),
    "/gc/heap/allocs-by-size:bytes": (Pair, UP),
    "/gc/heap/frees:bytes": (collect_garbage, UP),
    "/gc/heap/frees:objects": (collect_garbage, UP),
    "/gc/heap/frees-by-size:bytes": (collect_garbage, UP),
    "/gc/heap/objects:objects": (Pair, UP),
    "/gc/heap/goal:bytes": (lambda: pyalloc.set_gc_percent(300), UP),
    "/gc/heap/live:bytes": (keep_many_and_collect, UP),
    "/gc/cycles/automatic:gc-cycles": (allocate_until_a_cycle, UP),
    "/gc/cycles/forced:gc-cycles": (pyalloc.collect, UP),
    "/gc/cycles/total:gc-cycles": (pyalloc.collect, UP),
    "/gc/gogc:percent": (lambda: pyalloc.set_gc_percent(300), UP),
    "/gc/gomemlimit:bytes": (lambda: pyalloc.set_memory_limit("20GiB"), DOWN),
    "/gc/scan/heap:bytes": (keep_many_and_collect, UP),
    "/gc/scan/globals:bytes": (keep_many_and_collect, UP),
    "/gc/scan/total:bytes": (keep_many_and_collect, UP),
    "/gc/cleanups/queued:cleanups": (clean_up, UP),
    "/gc/cleanups/executed:cleanups": (clean_up, UP),
    "/cpu/classes/gc/mark/dedicated:cpu-seconds": (mark_a_large_heap, UP),
    "/cpu/classes/gc/pause:cpu-seconds": (pyalloc.collect, UP),
    "/cpu/classes/gc/total:cpu-seconds": (pyalloc.collect, UP),
    "/sched/pauses/total/gc:seconds": (pyalloc.collect, UP),
    "/sched/pauses/stopping/gc:seconds": (pyalloc.collect, UP),
    "/pyalloc/explicit/inuse:bytes": (lambda: empty(MIB), UP),
    "/pyalloc/explicit/live:bytes": (lambda: empty(MIB), UP),
    "/pyalloc/explicit/live:objects": (lambda: empty(MIB), UP),
    "/pyalloc/explicit/cached:bytes": (lambda: empty(MIB).free(), UP),
    "/pyalloc/explicit/hollow:bytes": (leave_holes_and_release, UP),
    "/pyalloc/managed/inuse:bytes": (lambda: pyalloc.managed_bytes(MIB), UP),
    "/pyalloc/handles:handles": (Pair, UP),
    "/pyalloc/weak-handles:handles": (lambda: weakly(Pair()), UP),
    "/pyalloc/heap/arenas:arenas": (lambda: empty(80 * MIB), UP),
    "/pyalloc/heap/mmaps:calls": (lambda: empty(80 * MIB), UP),
    "/pyalloc/heap/released:bytes": (burst_and_release, UP),
    "/cpu/classes/scavenge/background:cpu-seconds":
        (lambda: until_moved("/cpu/classes/scavenge/background:cpu-seconds", burst_and_free), UP),
    "/pyalloc/released/background:bytes":
        (lambda: until_moved("/pyalloc/released/background:bytes", burst_and_free), UP),
    "/pyalloc/released/limit:bytes":
        (lambda: [burst_and_free(), with_limit_near(-20 * MIB, lambda: empty(MIB))], UP),
    "/pyalloc/released/asked:bytes": (burst_and_release, UP),
    "/pyalloc/released/lazily:bytes": (release_lazily, UP),
    "/pyalloc/limit/backed:bytes": (lambda: empty(MIB), UP),
    "/pyalloc/limit/exceeded:events": (lambda: with_limit_near(MIB, lambda: empty(80 * MIB)), UP),
    "/pyalloc/heap/lock:acquisitions": (lambda: empty(MIB), UP),
    "/pyalloc/central/lock:acquisitions": (keep_many_and_collect, UP),
    "/pyalloc/threads/slow-paths:calls": (lambda: [empty(100) for _ in range(5000)], UP),
    "/pyalloc/spans/allocated:spans": (lambda: empty(MIB), UP),
    "/pyalloc/spans/freed:spans": (burst_and_release, UP),
    "/pyalloc/threads:threads": (stand_in_a_thread, UP),
}
# Moved by what Python cannot do, or only where there is no background thread: programs of tests/gc move them.
MOVED_FROM_C = Path(__file__).resolve().parents[1] / "gc" / "moves.c"
ELSEWHERE = set(re.findall(r'"(/[a-z][^"]+)"', MOVED_FROM_C.read_text()))


def weakly(pair):
    return pair, pyalloc.weakref(pair)


def move(name):
    """In a fresh fork: what went before must not have moved it already."""
    action, way = MOVES[name]
    pid = os.fork()
    if pid == 0:
        before = value(name)
        kept = action()
        after = value(name)
        moved = {UP: after > before, DOWN: after < before, ANY: after != before}[way]
        del kept
        if not moved:
            os.write(1, f"{name}: {before} then {after}\n".encode())
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if status != 0: # an exception in the child ends it with 1
        os.write(1, f"{name}: wait status {status}\n".encode())


def test_every_metric_is_moved(run_python):
    assert set(MOVES) | ELSEWHERE == set(pyalloc.metrics())
    result = run_python("-c", """if True:
        import sys; sys.path.insert(0, "tests/api")
        import test_stats as t
        t.empty(10); t.Pair(); t.pyalloc.collect()
        for name in t.MOVES:
            t.move(name)
    """)
    assert result.stdout == ""


# ---- The GIL

MANY_SPANS = """if True:
    import sys, threading, time, pyalloc
    kept = [pyalloc.empty(40_000) for _ in range(110_000)] if many else []
    stats = pyalloc.read_mem_stats()
    assert (stats.mspan_inuse > 16 << 20) == many
    sys.setswitchinterval(1000)         # other threads run when the GIL is let go, not when time is up
    count, stop = [0], threading.Event()
    def run():
        while not stop.is_set():
            count[0] += 1
            time.sleep(0)
    thread = threading.Thread(target=run)
    thread.start()
    while not count[0]:
        time.sleep(0)
    moved = []
    for read in (pyalloc.read_mem_stats, pyalloc.class_stats, pyalloc.metrics):
        before, deadline = count[0], time.monotonic() + (10 if many else 0.2)
        while count[0] == before and time.monotonic() < deadline:
            read()
        moved.append(count[0] != before)
    stop.set()
    thread.join()
    print(moved)
"""


@pytest.mark.parametrize("many", [False, True])
def test_a_long_walk_lets_the_gil_go(run_python, many):
    assert run_python("-c", f"many = {many}\n" + MANY_SPANS).stdout == f"{[many] * 3}\n"


# ---- The classes sum to what was mapped

SHIM = r"""
#define _GNU_SOURCE 1
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
/* Writes a line for each successful call that comes from libpyalloc itself. */
static void tell(const void *caller, char what, void *p, size_t n, int prot)
{
    Dl_info info;
    char line[100];
    if (!dladdr(caller, &info) || !strstr(info.dli_fname, "libpyalloc"))
        return;
    int length = snprintf(line, sizeof line, "%c %zu %zu %d\n", what, (size_t)p, n, prot);
    if (write(MAPLOG, line, (size_t)length) != length)
        _exit(99);
}
long logged(long number, long a, long b, long c, long d, long e, long f) __asm__("syscall");
long logged(long number, long a, long b, long c, long d, long e, long f)
{
    static long (*real)(long, ...);
    if (!real)
        real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    long result = real(number, a, b, c, d, e, f);
    if (number == SYS_mmap && result != -1)
        tell(__builtin_return_address(0), 'm', (void *)result, (size_t)b, (int)c);
    if (number == SYS_munmap && result == 0)
        tell(__builtin_return_address(0), 'u', (void *)a, (size_t)b, 0);
    return result;
}
int mprotect(void *p, size_t n, int prot)
{
    static int (*real)(void *, size_t, int);
    if (!real)
        real = (int (*)(void *, size_t, int))dlsym(RTLD_NEXT, "mprotect");
    int rc = real(p, n, prot);
    if (rc == 0)
        tell(__builtin_return_address(0), 'p', p, n, prot);
    return rc;
}
"""

MAPPING_PROGRAM = """if True:
    import os, threading, pyalloc
    class Node(pyalloc.Struct):
        next: pyalloc.Ref
    kept = [pyalloc.empty(n) for n in (10, 5000, 100_000, 100 << 20, 300 << 20)]
    nodes = [Node() for _ in range(100_000)]
    big = pyalloc.managed_bytes(80 << 20)
    weak = [pyalloc.weakref(node) for node in nodes[:20_000]]
    threads = [threading.Thread(target=lambda: [pyalloc.empty(n) for n in range(0, 90_000, 777)]) for _ in range(20)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    kept.pop().free()
    pyalloc.collect()
    pyalloc.free_os_memory()
    print(pyalloc.read_mem_stats().sys)
"""


def writable_bytes(log):
    """Bytes that are mapped writable after all these calls, by OS page."""
    page = os.sysconf("SC_PAGESIZE")
    events = [line.split() for line in log.splitlines()]
    edges = sorted({edge for _, at, n, _ in events for edge in (int(at), int(at) + -(-int(n) // page) * page)})
    index = {edge: i for i, edge in enumerate(edges)}
    writable = bytearray(len(edges))
    for what, at, n, prot in events:
        low, high = index[int(at)], index[int(at) + -(-int(n) // page) * page]
        writable[low:high] = bytes([what != "u" and int(prot) & 2 != 0]) * (high - low)
    return sum(edges[i + 1] - edges[i] for i in range(len(edges) - 1) if writable[i])


def test_sys_is_what_was_mapped(tmp_path):
    """Every mmap, mprotect and munmap of the library, logged by a shim: sys is their sum, to the byte."""
    if shutil.which(os.environ.get("CC", "cc").split()[0]) is None:
        pytest.fail("no C compiler: install gcc, the README asks for one")
    source, shim, log = tmp_path / "shim.c", tmp_path / "shim.so", tmp_path / "log"
    source.write_text(SHIM)
    compiler = os.environ.get("CC", "cc").split()
    subprocess.run([*compiler, "-O1", "-shared", "-fPIC", "-DMAPLOG=200", source, "-o", shim, "-ldl"], check=True)
    with open(log, "w") as file:
        os.dup2(file.fileno(), 200)
        done = subprocess.run([sys.executable, "-c", MAPPING_PROGRAM], env={**os.environ, "LD_PRELOAD": str(shim)},
                              capture_output=True, text=True, pass_fds=(200,))
        os.close(200)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == writable_bytes(log.read_text()) > 400 * MIB


def test_asdict_and_pickle():
    import pickle

    stats = pyalloc.read_mem_stats()
    again = pickle.loads(pickle.dumps(stats))
    assert dataclasses.asdict(again) == dataclasses.asdict(stats) and again.by_size == stats.by_size


def test_each_field_of_the_collector_moves():
    before = pyalloc.read_mem_stats()
    kept = pyalloc.ref_array(4 * 2**20)  # 32 MiB: the goal must follow
    pyalloc.collect()
    after = pyalloc.read_mem_stats()
    assert after.num_gc > before.num_gc and after.num_forced_gc == before.num_forced_gc + 1
    assert after.last_gc > before.last_gc and after.pause_total_ns > before.pause_total_ns
    assert after.pause_count >= before.pause_count + 2
    assert after.next_gc >= 64 * 2**20 > before.next_gc
    ring = {(before.pause_count + i) % 256 for i in range(after.pause_count - before.pause_count)}
    assert sum(after.pause_ns[i] for i in ring) == after.pause_total_ns - before.pause_total_ns
    assert all(before.last_gc < after.pause_end[i] <= after.last_gc for i in ring)
    assert after.total_alloc >= before.total_alloc + 32 * 2**20 and after.mallocs > before.mallocs
    del kept
    pyalloc.collect()
    assert pyalloc.read_mem_stats().frees > after.frees
    assert pyalloc.read_mem_stats().next_gc < after.next_gc
