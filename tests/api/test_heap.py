"""owns, sizes, statistics, rss, release, check, and the raw interface through cffi."""

import csv
import dataclasses
import os
import re
import subprocess
import sys
import threading

import pytest

import pyalloc
from pyalloc import _core, alloc, empty

# ---- owns


def test_owns_addresses_and_objects():
    buf = alloc(100)
    assert pyalloc.owns(buf) and pyalloc.owns(buf.address) and pyalloc.owns(buf.address + 99)
    assert pyalloc.owns(memoryview(buf)[50:])
    buf.free()
    assert pyalloc.owns(buf) is False


@pytest.mark.parametrize("address", [0, 1, 8, -1, 2**47 - 1, 2**47, 2**48, 2**63, 2**64 - 1, 2**64, -(2**70)])
def test_owns_never_faults(address):
    assert pyalloc.owns(address) is False


def test_owns_nothing_else():
    assert not pyalloc.owns(bytearray(100)) or pyalloc.preload.active()
    for wrong in (1.5, "text", None, object()):
        with pytest.raises(TypeError, match=r"owns\(\) takes an address"):
            pyalloc.owns(wrong)


def test_owns_numpy_integers_and_arrays():
    numpy = pytest.importorskip("numpy")
    buf = alloc(64)
    assert pyalloc.owns(numpy.uint64(buf.address)) and pyalloc.owns(numpy.frombuffer(buf, dtype="u4"))


# ---- Sizes


def test_size_classes_equal_the_reference(root):
    rows = pyalloc.size_classes()
    assert [row.size_class for row in rows] == list(range(1, 67))
    for row in rows:
        assert row.span_bytes % 8192 == 0
        assert row.objects * row.object_bytes + row.tail_waste_bytes == row.span_bytes
    assert [row.object_bytes for row in rows] == sorted({row.object_bytes for row in rows})
    assert rows[-1].object_bytes == 32768
    reference = next(iter(sorted(root.glob("tests/**/size_classes.tsv"))), None)
    if reference is not None:  # the unit test of base/sizeclass compares the core; this one what Python shows
        with open(reference, newline="") as file:
            lines = [line for line in csv.reader(file, delimiter="\t") if line and line[0].isdigit()]
        known = {int(line[0]): int(line[1]) for line in lines}
        assert {row.size_class: row.object_bytes for row in rows} == {k: v for k, v in known.items() if k}


def test_good_size_is_the_class_or_whole_pages():
    classes = [row.object_bytes for row in pyalloc.size_classes()]
    for nbytes in [1, 8, 9, 17, 100, 1024, 1025, 5000, 32767, 32768]:
        assert pyalloc.good_size(nbytes) == min(size for size in classes if size >= nbytes)
    for nbytes in [32769, 40960, 40961, 1 << 20, (1 << 20) + 1]:
        assert pyalloc.good_size(nbytes) == -(-nbytes // 8192) * 8192
    for nbytes in [16, 100, 5000, 40000]:
        assert empty(nbytes).usable_size >= pyalloc.good_size(nbytes) >= nbytes
    assert pyalloc.good_size(2**62) == 0
    with pytest.raises(ValueError):
        pyalloc.good_size(-1)
    with pytest.raises(OverflowError):
        pyalloc.good_size(2**63)
    with pytest.raises(TypeError):
        pyalloc.good_size(1.0)


# ---- Statistics


def c_fields(name):
    return [field for field, _ in pyalloc.ffi.typeof(name).fields]


def test_field_names_are_those_of_the_header():
    names = [field.name for field in dataclasses.fields(pyalloc.MemStats)]
    assert names[:len(c_fields("pa_mem_stats"))] == c_fields("pa_mem_stats")
    assert [field.name for field in dataclasses.fields(pyalloc.ClassStats)][1:] == c_fields("pa_class_stats")
    assert [field.name for field in dataclasses.fields(pyalloc.SizeClass)][1:] == c_fields("pa_size_class_info")


def check_identities(stats):
    assert stats.heap_sys == stats.heap_idle + stats.heap_inuse
    assert stats.heap_released <= stats.heap_idle
    assert stats.heap_alloc <= stats.heap_inuse
    assert stats.explicit_inuse <= stats.heap_inuse and stats.explicit_alloc <= stats.heap_alloc
    assert stats.sys == stats.heap_sys + stats.mspan_sys + stats.mcache_sys + stats.gc_sys + stats.other_sys


def test_mem_stats_follow_allocation():
    pyalloc.free_os_memory()  # collects frees that wait on spans without an owner
    before = pyalloc.read_mem_stats()
    check_identities(before)
    kept = [empty(1 << 20) for _ in range(10)] + [empty(100) for _ in range(1000)]
    during = pyalloc.read_mem_stats()
    check_identities(during)
    assert during.explicit_objects - before.explicit_objects == 1010
    assert during.explicit_alloc - before.explicit_alloc == 10 * (1 << 20) + 1000 * pyalloc.good_size(100)
    assert during.arenas >= 1 and during.threads >= 1 and during.heap_sys % (64 << 20) == 0
    del kept
    after = pyalloc.read_mem_stats()
    check_identities(after)
    assert after.explicit_objects == before.explicit_objects and after.explicit_alloc == before.explicit_alloc


def test_stats_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        pyalloc.read_mem_stats().sys = 1
    stats = dataclasses.asdict(pyalloc.read_mem_stats())
    assert all(isinstance(value, int) for name, value in stats.items() if name != "gc_cpu_fraction")


def test_class_stats_add_up():
    kept = [empty(size) for size in (10, 100, 1000, 10000, 100000) for _ in range(20)]
    rows = pyalloc.class_stats()
    stats = pyalloc.read_mem_stats()
    assert [row.size_class for row in rows] == list(range(67)) and len(kept) == 100
    assert [row.object_bytes for row in rows[1:]] == [row.object_bytes for row in pyalloc.size_classes()]
    assert sum(row.span_bytes for row in rows) <= stats.heap_inuse
    by_size = {row.object_bytes: row for row in rows}
    for size in (100, 1000, 10000):
        assert by_size[pyalloc.good_size(size)].objects >= 20
    assert rows[0].objects >= 20


# ---- Giving memory back


def test_free_os_memory_returns_what_is_free():
    buf = empty(64 << 20)
    memoryview(buf)[::4096] = b"x" * len(memoryview(buf)[::4096])
    resident = pyalloc.rss().rss
    buf.free()
    released = pyalloc.free_os_memory()
    assert isinstance(released, int) and released >= 60 << 20
    after = pyalloc.rss()
    assert after.rss - (after.lazy_free or 0) < resident - (60 << 20)
    assert pyalloc.free_os_memory() < 4 << 20
    if after.heap_released is not None:
        assert after.heap_released >= 60 << 20


def test_free_os_memory_lets_the_gil_go_and_can_race():
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            kept = [alloc(size) for size in (64, 5000, 70000, 1 << 20)]
            assert all(memoryview(buf)[0] == 0 for buf in kept)

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        assert pyalloc.free_os_memory() >= 0
    stop.set()
    for thread in threads:
        thread.join()


# ---- rss


def test_rss_of_this_process():
    memory = pyalloc.rss()
    stats = pyalloc.read_mem_stats()
    assert memory.pid == os.getpid() and memory.rss > 1 << 20
    assert memory.minor_faults > 0 and memory.major_faults >= 0
    assert memory.uss is None or 0 < memory.uss <= memory.pss <= memory.rss * 1.1
    assert memory.anonymous is None or 0 < memory.anonymous <= memory.rss * 1.1
    assert memory.lazy_free is None or memory.lazy_free >= 0
    assert memory.heap_inuse + memory.heap_idle == stats.heap_sys
    with pytest.raises(dataclasses.FrozenInstanceError):
        memory.rss = 0


def test_rss_sees_touched_pages():
    before = pyalloc.rss()
    buf = empty(32 << 20)
    memoryview(buf)[::4096] = b"x" * len(memoryview(buf)[::4096])
    after = pyalloc.rss()
    assert after.rss - before.rss > 16 << 20
    assert after.heap_inuse - before.heap_inuse >= 32 << 20


def test_a_zeroed_buffer_costs_nothing_until_it_is_touched():
    pyalloc.free_os_memory()
    before = pyalloc.rss().rss
    buf = alloc(512 << 20)
    assert pyalloc.rss().rss - before < 8 << 20
    assert memoryview(buf)[-1] == 0


def test_rss_of_another_process():
    import psutil

    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        memory = pyalloc.rss(child.pid)
        assert memory.pid == child.pid and memory.rss > 0 and memory.heap_inuse is None
    finally:
        child.communicate(b"\n")
    with pytest.raises(psutil.NoSuchProcess):
        pyalloc.rss(child.pid)


# ---- Check, versions, raw interface


def test_heap_check_passes():
    kept = [alloc(size) for size in range(0, 3000, 7)]
    assert pyalloc.heap_check() is None and kept


def test_versions_agree(root):
    version = re.search(r'^version = "(.*)"', (root / "pyproject.toml").read_text(), re.M).group(1)
    assert pyalloc.__version__ == _core.core_version() == version
    assert pyalloc.lib.pa_abi_version() == _core.ABI_VERSION


def test_raw_interface():
    lib, ffi = pyalloc.lib, pyalloc.ffi
    block = lib.pa_malloc(100)
    assert block != ffi.NULL and lib.pa_owns(block) and lib.pa_usable_size(block) >= 100
    assert pyalloc.owns(int(ffi.cast("uintptr_t", block)))  # one heap
    block = lib.pa_realloc(block, 5000)
    lib.pa_free(block)
    out = ffi.new("void **")
    assert lib.pa_posix_memalign(out, 64, 10) == 0 and int(ffi.cast("uintptr_t", out[0])) % 64 == 0
    lib.pa_free(out[0])
    assert lib.pa_malloc(2**62) == ffi.NULL and ffi.errno == 12
    message = ffi.new("char[]", 200)
    assert lib.pa_heap_check(message, 200) == 0


def test_names():
    assert set(pyalloc.__all__) <= set(dir(pyalloc))
    for name in pyalloc.__all__:
        assert getattr(pyalloc, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pyalloc.nothing


@pytest.mark.parametrize("name", [name for name in pyalloc.__all__ if name not in ("lib", "ffi", "__version__")])
def test_everything_has_a_docstring(name):
    assert len(getattr(pyalloc, name).__doc__) > 30
