"""collect, settings, trace, statistics."""

import dataclasses
import io
import re
import threading
import time

import pytest

import pyalloc
from pyalloc import _limit


class Node(pyalloc.Struct):
    link: pyalloc.Ref
    key: pyalloc.int64


LINE = re.compile(
    r"gc \d+ @\d+\.\d{3}s \d+%: [\d.]+\+[\d.]+\+[\d.]+ ms clock, [\d.]+\+[\d.]+/[\d.]+/[\d.]+\+[\d.]+ ms cpu, "
    r"\d+->\d+->\d+ MB, \d+ MB goal, \d+ MB stacks, \d+ MB globals, \d+ P( \(forced\))?\n")


@pytest.fixture(autouse=True)
def settings_stay():
    yield
    pyalloc.set_gc_mode("concurrent")
    pyalloc.set_gc_percent(100)
    pyalloc.set_memory_limit("off")


def test_collect_frees():
    pyalloc.collect()
    before = pyalloc.read_gc_stats()
    kept = [Node(key=i) for i in range(50000)]
    pyalloc.collect()
    full = pyalloc.read_gc_stats()
    assert full.heap_marked_bytes >= 50000 * 16
    del kept
    pyalloc.collect()
    after = pyalloc.read_gc_stats()
    assert after.heap_marked_bytes <= before.heap_marked_bytes + 10000
    assert after.cycles >= before.cycles + 2 and after.forced_cycles >= before.forced_cycles + 2
    assert after.mallocs - after.frees <= before.mallocs - before.frees + 1000


def test_collect_lets_other_threads_run():
    array = pyalloc.ref_array([Node(key=i) for i in range(200000)])
    done = threading.Event()

    def collect():
        for _ in range(5):
            pyalloc.collect()
        done.set()

    thread = threading.Thread(target=collect)
    thread.start()
    rounds = 0
    while not done.is_set():
        rounds += 1
        time.sleep(0)
    thread.join()
    assert rounds > 1 and array[5].key == 5


def test_percent():
    assert pyalloc.set_gc_percent(50) == 100
    assert pyalloc.set_gc_percent("off") == 50
    assert pyalloc.set_gc_percent(None) == -1
    assert pyalloc.set_gc_percent(-5) == -1
    assert pyalloc.set_gc_percent("200") == -1
    assert pyalloc.set_gc_percent(100) == 200
    for wrong in ("much", 5.5, b"5"):
        with pytest.raises((TypeError, ValueError)):
            pyalloc.set_gc_percent(wrong)
    with pytest.raises(OverflowError):
        pyalloc.set_gc_percent(2**40)


def test_off_means_no_cycles():
    pyalloc.set_gc_percent("off")
    pyalloc.collect()
    before = pyalloc.read_gc_stats().cycles
    for _ in range(20000):
        pyalloc.managed_bytes(1000)
    assert pyalloc.read_gc_stats().cycles == before
    pyalloc.set_gc_percent(100)
    for _ in range(20000):
        pyalloc.managed_bytes(1000)
    assert pyalloc.read_gc_stats().cycles > before


def test_memory_limit():
    none = 2**63 - 1
    assert pyalloc.set_memory_limit(None) == none
    assert pyalloc.set_memory_limit(2**30) == none
    assert pyalloc.set_memory_limit("512MiB") == 2**30
    assert pyalloc.set_memory_limit("1.5 GiB") == 512 * 2**20
    assert pyalloc.set_memory_limit("80%") == 3 * 2**29
    percent = pyalloc.set_memory_limit("auto")
    assert 2**20 < percent < 2**50
    pyalloc.set_memory_limit("off")
    assert pyalloc.set_memory_limit(2**70) == none
    assert pyalloc.set_memory_limit(None) == none
    for wrong in ("", "much", "5 apples", "-5", "1.5", "MiB", "5mb", "0%", "101%", "1000%", "%", "auto%"):
        with pytest.raises(ValueError, match="is no memory limit"):
            pyalloc.set_memory_limit(wrong)
    with pytest.raises(ValueError, match="negative"):
        pyalloc.set_memory_limit(-5)
    with pytest.raises(TypeError):
        pyalloc.set_memory_limit(5.5)


@pytest.mark.parametrize("cgroup, files, expected", [
    ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "1000"}, 1000),
    ("0::/a/b\n", {"a/b/memory.max": "500", "a/memory.max": "1000"}, 500),
    ("0::/\n", {"memory.max": "700"}, 700),
    ("0::/\n", {}, None),
    ("0::/../x\n", {}, None),
    ("5:cpu:/x\n4:memory:/job\n", {"memory/job/memory.limit_in_bytes": "300"}, 300),
    ("4:memory:/job\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
    ("4:cpu,memory:/job\n0::/\n", {"memory/memory.limit_in_bytes": "400"}, 400),
])
def test_cgroup_limit(tmp_path, cgroup, files, expected):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert _limit.cgroup_limit(tmp_path) == expected


def test_auto_and_percent_use_the_cgroup(monkeypatch):
    monkeypatch.setattr(_limit, "cgroup_limit", lambda: 2**30)
    pyalloc.set_memory_limit("auto")
    assert pyalloc.set_memory_limit("50%") == int(2**30 * 0.9)
    assert pyalloc.set_memory_limit(None) == 2**29
    monkeypatch.setattr(_limit, "cgroup_limit", lambda: None)
    pyalloc.set_memory_limit("auto")
    assert pyalloc.set_memory_limit(None) == 2**63 - 1


def test_modes():
    previous = "concurrent"
    for mode in ("serial", "parallel", "concurrent-1.5", "concurrent-1.6", "concurrent"):
        assert pyalloc.set_gc_mode(mode) == previous
        assert pyalloc.read_gc_stats().mode == mode
        node = Node(link=Node(key=5))
        pyalloc.collect()
        assert node.link.key == 5
        previous = mode
    for wrong in ("", "Concurrent", 3, None):
        with pytest.raises(ValueError, match="no mode of the collector"):
            pyalloc.set_gc_mode(wrong)


def test_gctrace_as_a_context_manager(tmp_path):
    path = tmp_path / "trace"
    with open(path, "w") as file:
        with pyalloc.gctrace(file=file):
            pyalloc.collect()
            pyalloc.collect()
        pyalloc.collect()
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 2
    for line in lines:
        assert LINE.fullmatch(line), line
        assert "(forced)" in line


def test_gctrace_nests_and_calls(tmp_path):
    with open(tmp_path / "outer", "w") as outer, open(tmp_path / "inner", "w") as inner:
        pyalloc.gctrace(True, outer.fileno())
        with pyalloc.gctrace(file=inner):
            pyalloc.collect()
            with pyalloc.gctrace(False):
                pyalloc.collect()
        pyalloc.collect()
        pyalloc.gctrace(False)
        pyalloc.collect()
    assert len((tmp_path / "outer").read_text().splitlines()) == 1
    assert len((tmp_path / "inner").read_text().splitlines()) == 1


def test_gctrace_errors():
    for wrong in (io.StringIO(), 5.5, "x"):
        with pytest.raises((io.UnsupportedOperation, AttributeError)):
            pyalloc.gctrace(file=wrong)
    with pytest.raises(ValueError):
        pyalloc.gctrace(file=-5)
    with pytest.raises(OSError):
        pyalloc.gctrace(file=10**6)


def test_gctrace_default_is_stderr(run_python):
    result = run_python("-c", "import pyalloc; pyalloc.gctrace(); pyalloc.collect()")
    assert LINE.fullmatch(result.stderr)


def test_stats_are_the_structure(root):
    header = (root / "csrc/include/pyalloc.h").read_text()
    body = re.search(r"typedef struct pa_gc_stats \{(.*?)\} pa_gc_stats;", header, re.S)[1]
    lines = re.findall(r"\w+ ([^;/]+);", re.sub(r"/\*.*?\*/", "", body))
    names = [name.strip() for line in lines for name in line.split(",")]
    fields = [field.name for field in dataclasses.fields(pyalloc.GCStats)]
    assert fields == [*names, "pauses_ns", "pause_ends_unix_ns"]


def test_pause_history():
    for _ in range(5):
        pyalloc.collect()
    stats = pyalloc.read_gc_stats()
    assert len(stats.pauses_ns) == len(stats.pause_ends_unix_ns) >= 10
    assert list(stats.pause_ends_unix_ns) == sorted(stats.pause_ends_unix_ns, reverse=True)
    assert abs(stats.last_gc_unix_ns / 1e9 - time.time()) < 60
    quantiles = stats.pause_quantiles_ns
    assert quantiles == tuple(sorted(quantiles)) and quantiles[0] == min(stats.pauses_ns)
    assert quantiles[-1] == max(stats.pauses_ns) == stats.pause_percentile(100)
    with pytest.raises(ValueError):
        stats.pause_percentile(101)


def test_percentiles_by_hand():
    stats = dataclasses.replace(pyalloc.read_gc_stats(), pauses_ns=tuple(range(100, 0, -1)))
    assert [stats.pause_percentile(p) for p in (0, 1, 50, 99, 99.5, 100)] == [1, 1, 50, 99, 100, 100]
    assert dataclasses.replace(stats, pauses_ns=()).pause_quantiles_ns == (0, 0, 0, 0, 0)


def test_handles_are_given_back():
    kept = [Node() for _ in range(10000)]
    assert pyalloc.read_gc_stats().handles >= 10000
    del kept
    pyalloc.collect()
    assert pyalloc.read_gc_stats().handles < 5000
