"""pyalloc.trace, run --trace and PYALLOC_TRACE: the format, and that events say what happened."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest

import pyalloc
import traceformat

MIB = 2**20


class Node(pyalloc.Struct):
    next: pyalloc.Ref
    key: pyalloc.int64


def named(events, name):
    return [event for event in events if event["name"] == name]


def end(event):
    return traceformat.nanoseconds(event["ts"]) + traceformat.nanoseconds(event["dur"])


def list_of(length):
    head = None
    for key in range(length):
        head = Node(next=head, key=key)
    return head


# ---- The validator


GOOD = {"name": "x", "ph": "X", "pid": 1, "tid": 2, "ts": 1.0, "dur": 5.0}
NAMED = {"name": "thread_name", "ph": "M", "pid": 1, "tid": 2, "args": {"name": "a"}}


def document(*events):
    text = json.dumps({"traceEvents": [NAMED, *events]}, separators=(",", ":"))
    for number in ("1.0", "5.0", "2.0", "9.0"):
        text = text.replace(f":{number}", f":{number}00")
    return text


def test_the_validator_takes_what_is_right():
    traceformat.check(document(GOOD, {**GOOD, "ts": 2.0, "dur": 1.0}, {**GOOD, "ph": "i", "ts": 9.0, "s": "t"}))


@pytest.mark.parametrize("bad", [
    {"ph": "Q"}, {"ts": -1.0}, {"dur": "5"}, {"name": ""}, {"pid": "1"}, {"tid": 1.5}, {"tid": 3}, {"args": []},
    {"wrong": 1}, {"ph": "i", "s": "q"}, {"ph": "C", "args": {}}, {"ph": "C", "args": {"a": "text"}},
    {"ph": "M", "name": "thread_name", "args": {}}, {"ts": 2.0, "dur": 9.0}])
def test_the_validator_sees_violations(bad):
    with pytest.raises(ValueError):
        traceformat.check(document(GOOD, {**GOOD, "ts": 2.0, "dur": 1.0, **bad}))


@pytest.mark.parametrize("missing", ["name", "ph", "pid", "tid", "ts", "dur"])
def test_the_validator_misses_keys(missing):
    with pytest.raises(ValueError):
        traceformat.check(document({key: value for key, value in GOOD.items() if key != missing}))


def test_the_validator_sees_times_that_go_back():
    with pytest.raises(ValueError):
        traceformat.check(document({**GOOD, "ts": 9.0}, GOOD))


# ---- What is recorded


def test_a_forced_cycle_shows_its_phases(tmp_path):
    path = tmp_path / "out.json"
    kept = list_of(20000)
    before = pyalloc.read_gc_stats().cycles
    with pyalloc.trace(path) as t:
        pyalloc.collect()
    del kept
    written = traceformat.check(path.read_text())
    assert written["traceEvents"] == t.events() and t.lost == 0
    cycles = [cycle for cycle in named(t.events(), "cycle") if cycle["args"]["forced"]]
    assert len(cycles) == 1 and cycles[0]["args"]["cycle"] > before
    assert cycles[0]["args"]["marked_bytes"] >= 20000 * 16
    (number,) = [cycle["args"]["cycle"] for cycle in cycles]
    phases = [event for event in t.events() if event["args"].get("cycle") == number and event["name"] != "cycle"]
    assert [event["name"] for event in phases] == ["sweep termination", "mark", "mark termination"]
    for first, second in zip(phases, phases[1:]):
        assert end(first) == traceformat.nanoseconds(second["ts"])
    assert end(phases[-1]) <= end(cycles[0]) and phases[0]["ts"] == cycles[0]["ts"]
    (sweep,) = [one for one in named(t.events(), "sweep") if traceformat.nanoseconds(one["ts"]) >= end(phases[-1])]
    assert end(sweep) <= end(cycles[0]), "a forced cycle is over when everything is swept"
    (asked,) = named(t.events(), "forced collection")
    assert asked["ts"] <= cycles[0]["ts"] and asked["tid"] == threading.get_native_id()


def test_stops_are_those_of_the_statistics():
    before = pyalloc.read_gc_stats().pause_count
    with pyalloc.trace() as t:
        for _ in range(3):
            pyalloc.collect()
        after = pyalloc.read_gc_stats()
    stops = [traceformat.nanoseconds(stop["dur"]) for stop in named(t.events(), "stop")]
    count = after.pause_count - before
    assert count >= 6 and stops[:count] == list(reversed(after.pauses_ns[:count]))
    assert all(0 <= stop["args"]["stopping_ns"] <= stop["dur"] * 1000 + 1 for stop in named(t.events(), "stop"))


def test_the_heap_over_time():
    with pyalloc.trace() as t:
        kept = list_of(50000)
        pyalloc.collect()
        goal = pyalloc.read_gc_stats().next_gc_bytes
    del kept
    samples = named(t.events(), "managed heap")
    assert samples[-1]["args"]["live"] >= 50000 * 16 and samples[-1]["args"]["goal"] == goal
    memory = named(t.events(), "heap memory")[-1]["args"]
    assert sum(memory.values()) == pyalloc.read_mem_stats().heap_sys


def test_no_goal_while_the_collector_is_off():
    previous = pyalloc.set_gc_percent("off")
    try:
        with pyalloc.trace() as t:
            pyalloc.collect()
    finally:
        pyalloc.set_gc_percent(previous)
    assert "goal" not in named(t.events(), "managed heap")[-1]["args"]


def test_growth_is_what_heap_sys_grew_by():
    stats = pyalloc.read_mem_stats()
    with pyalloc.trace() as t:
        kept = [pyalloc.empty(stats.heap_idle + 100 * MIB), pyalloc.empty(300 * MIB)]   # untouched
        grown = pyalloc.read_mem_stats().heap_sys - stats.heap_sys
    assert sum(event["args"]["bytes"] for event in named(t.events(), "grow")) == grown > 0
    spans = {(event["args"]["address"], event["args"]["bytes"]) for event in named(t.events(), "span alloc")}
    assert {(hex(buf.address), buf.usable_size) for buf in kept} <= spans
    for buf in kept:
        buf.free()


def test_releases_are_what_was_returned():
    pyalloc.alloc(64 * MIB, zero=True).free()
    with pyalloc.trace() as t:
        buf = pyalloc.empty(32 * MIB)
        memoryview(buf)[::4096] = bytes(len(buf) // 4096)
        buf.free()
        returned = [pyalloc.free_os_memory(), pyalloc.free_os_memory()]
    asked = [event["args"] for event in named(t.events(), "release") if event["args"]["reason"] == "asked"]
    assert [one["heap_bytes"] + one["metadata_bytes"] for one in asked] == returned
    assert sum(returned) >= 32 * MIB


def test_spans_come_and_go():
    with pyalloc.trace() as t:
        addresses = []
        for _ in range(5):
            buf = pyalloc.empty(40 * MIB)
            addresses.append(hex(buf.address))
            buf.free()
        pyalloc.free_os_memory()
    alloc, free = (Counter(event["args"]["address"] for event in named(t.events(), name))
                   for name in ("span alloc", "span free"))
    assert set(addresses) <= set(alloc) and set(addresses) <= set(free)
    assert all(alloc[address] >= free[address] for address in addresses)


def test_going_over_the_limit(run_python, tmp_path):
    path = tmp_path / "limit.json"
    run_python("-c", "import pyalloc, sys\n"
               "pyalloc.set_memory_limit('16MiB')\n"
               "with pyalloc.trace(sys.argv[1]):\n"
               "    bufs = [pyalloc.alloc(2**20) for _ in range(40)]\n", str(path))
    events = traceformat.check(path.read_text())["traceEvents"]
    assert named(events, "over the memory limit")[0]["args"]["limit_bytes"] == 16 * MIB


def test_what_does_not_fit_is_counted():
    with pyalloc.trace(buffer_bytes=8 * 2**10) as t:
        for _ in range(200):
            pyalloc.collect()
    cycles = [event["args"]["cycle"] for event in named(t.events(), "cycle")]
    assert t.lost > 200 and len(t.events()) < 200
    assert pyalloc.read_gc_stats().cycles - 1 <= max(cycles, default=0) <= pyalloc.read_gc_stats().cycles, (
        "the newest stay")


def test_reading_while_it_runs():
    with pyalloc.trace() as t:
        pyalloc.collect()
        first = len(named(t.events(), "cycle"))
        pyalloc.collect()
        assert first >= 1 and len(named(t.events(), "cycle")) > first


# ---- Errors


def test_one_at_a_time():
    with pyalloc.trace():
        with pytest.raises(RuntimeError, match="already"):
            pyalloc.trace().__enter__()
    with pyalloc.trace() as t:
        pass
    with pytest.raises(RuntimeError, match="once"):
        t.__enter__()
    with pytest.raises(RuntimeError, match="not begun"):
        pyalloc.trace().events()


@pytest.mark.parametrize("size", [0, -1, 8191, 2**32 + 1])
def test_sizes_that_are_none(size):
    with pytest.raises(ValueError, match="8 KiB"):
        pyalloc.trace(buffer_bytes=size)


def test_no_such_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        pyalloc.trace(tmp_path / "none" / "out.json").__enter__()
    with pyalloc.trace(tmp_path / "out.json"):
        pass


def test_after_an_exception_the_file_is_there(tmp_path):
    with pytest.raises(KeyError):
        with pyalloc.trace(tmp_path / "out.json"):
            raise KeyError
    traceformat.check((tmp_path / "out.json").read_text())


# ---- Whole programs


CHURN = ("import pyalloc\n"
         "class N(pyalloc.Struct):\n"
         "    next: pyalloc.Ref\n"
         "head = None\n"
         "for _ in range(400000):\n"
         "    head = N(next=head)\n"
         "pyalloc.collect()\n")


def run(*words, env=None):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYALLOC", "LD_PRELOAD"))}
    return subprocess.run([sys.executable, "-m", "pyalloc", "run", *words], capture_output=True, text=True,
                          env={**environment, **(env or {})}, timeout=60)


def test_run_with_a_trace(tmp_path):
    path = tmp_path / "out.json"
    result = run("--trace", str(path), "--", sys.executable, "-c", CHURN)
    assert (result.returncode, result.stderr) == (0, "")
    events = traceformat.check(path.read_text())["traceEvents"]
    names = {event["name"] for event in events}
    assert {"cycle", "mark", "stop", "grow", "span alloc", "heap memory", "managed heap", "sweep"} <= names
    assert [one["args"]["name"] for one in named(events, "process_name")][0].startswith("python")
    tracks = {one["args"]["name"] for one in named(events, "thread_name")}
    assert {"collector: phases", "collector: stops", "pyalloc-gc"} <= tracks
    assert os.listdir(tmp_path) == ["out.json"], "nothing unfinished stays"


def test_a_file_a_process(tmp_path):
    twice = "import subprocess, sys; subprocess.run(['sort', '/dev/null']); sys.exit(3)"
    result = run("--trace", str(tmp_path / "t-%p.json"), "--", sys.executable, "-c", twice)
    assert result.returncode == 3
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 2
    for path in paths:
        (pid,) = {event["pid"] for event in traceformat.check(path.read_text())["traceEvents"]}
        assert path.name == f"t-{pid}.json"


def test_run_says_what_is_wrong(tmp_path):
    result = run("--trace", str(tmp_path / "none" / "t.json"), "--", "true")
    assert result.returncode == 2 and "no folder" in result.stderr
    env = {"PYALLOC_TRACE": str(tmp_path / "none" / "t.json")}
    result = run("--", "true", env=env)
    assert result.returncode == 0 and result.stderr.count("\n") == 1 and "no such folder" in result.stderr
    result = run("--", "true", env={"PYALLOC_TRACE": str(tmp_path / "t.json"), "PYALLOC_TRACE_BYTES": "1KiB"})
    assert result.returncode == 0 and "PYALLOC_TRACE_BYTES" in result.stderr and not list(tmp_path.iterdir())


def test_a_killed_process_leaves_nothing(tmp_path):
    result = run("--trace", str(tmp_path / "t.json"), "--", "sh", "-c", "kill -KILL $$")
    assert result.returncode == -signal.SIGKILL and not list(tmp_path.iterdir())


def test_the_option_is_listed(tmp_path):
    env = {**os.environ, "PYALLOC_TRACE": str(tmp_path / "t.json")}
    listed = subprocess.run([sys.executable, "-m", "pyalloc", "options", "--json"], capture_output=True, text=True,
                            env=env, check=True)
    (row,) = [row for row in json.loads(listed.stdout) if row["name"] == "PYALLOC_TRACE"]
    assert row["value"] == str(tmp_path / "t.json") and row["source"] == "PYALLOC_TRACE" and row["type"] == "PATH"


def test_a_fork_child_has_no_trace(tmp_path):
    path = tmp_path / "out.json"
    with pyalloc.trace(path) as t:
        pyalloc.collect()
        child = os.fork()
        if child == 0:
            quiet = not pyalloc.lib.pa_trace_stop() and pyalloc.lib.pa_trace_capacity_events() == 0
            with pyalloc.trace() as own:
                pyalloc.collect()
            os._exit(0 if quiet and len(named(own.events(), "cycle")) == 1 else 1)
        assert os.waitpid(child, 0)[1] == 0
        pyalloc.collect()
    assert len(named(t.events(), "forced collection")) == 2


def test_what_is_in_use_is_sampled_as_it_changes():
    """Steps of a thirty-second and 512 KiB, so that a line through the samples is the heap."""
    with pyalloc.trace() as t:
        kept = [pyalloc.empty(100_000) for _ in range(500)]
        inuse = pyalloc.read_mem_stats().heap_inuse
        del kept
        pyalloc.free_os_memory()
    samples = [event["args"]["in_use"] for event in named(t.events(), "heap in use")]
    top = max(range(len(samples)), key=samples.__getitem__)
    assert top >= 15 and abs(samples[top] - inuse) <= inuse / 32 + 2 * MIB
    rising = samples[:top + 1]
    assert all(abs(b - a) <= a / 32 + 2 * MIB for a, b in zip(rising, rising[1:]))
    assert samples[-1] <= inuse - 45 * MIB
