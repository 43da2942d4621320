"""PYALLOC_REPORT: the heap of a process at its peak and at exit, as the core writes it and record.py reads it."""

import json
import os
import signal
import subprocess
import sys

import pytest

import pyalloc
from pyalloc._heapmap import STATES
from pyalloc._pictures import record

MIB = 2**20
GROW = """
import pyalloc
kept = [pyalloc.empty(64 << 10) for _ in range(1600)]      # 100 MiB
small = [pyalloc.empty(100) for _ in range(20000)]
"""

LEAVE = """
import ctypes
ctypes.CDLL(None).exit(0)       # the exit handlers of C, without Python's: it would free the blocks
"""


def child(code, report, *, preload=False, **env):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYALLOC", "LD_PRELOAD"))}
    env = {**clean, "PYALLOC_REPORT": str(report), **env}
    if preload:
        env = pyalloc.preload.env(env)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)


def recorded(code, tmp_path, **env):
    result = child(code, tmp_path / "heap.jsonl", **env)
    assert (result.returncode, result.stderr) == (0, "")
    return record.read(tmp_path / "heap.jsonl")


def is_whole(state):
    """What one state says in several ways agrees: the map, the metrics, the classes."""
    pages = state.heap_map.counts()
    assert len(state.heap_map.arenas) == state.number("/pyalloc/heap/arenas:arenas")
    assert sum(pages.values()) == 8192 * len(state.heap_map.arenas)
    inuse = (pages["explicit"] + pages["cached"] + pages["managed"]) * 8192
    assert abs(inuse - state.inuse) <= MIB  # of one snapshot a moment apart: the process has one thread, nothing moves
    spans = sum(row.span_bytes + row.managed_span_bytes for row in state.classes)
    assert spans + state.number("/pyalloc/explicit/cached:bytes") == state.inuse
    return pages


def test_peak_and_exit(tmp_path):
    found = recorded(GROW + "del kept, small; pyalloc.free_os_memory()", tmp_path)
    assert (found.peak.kind, found.exit.kind) == ("peak", "exit")
    assert found.peak.inuse > 90 * MIB and found.exit.inuse < 10 * MIB
    assert 100 * MIB <= found.last.peak_heap_inuse < 110 * MIB
    assert found.highest is found.peak and found.last is found.exit
    assert found.peak.seconds < found.exit.seconds
    assert found.exit.number("/pyalloc/heap/released:bytes") > 90 * MIB
    for state in (found.peak, found.exit):
        is_whole(state)
        assert list(state.metrics) == list(pyalloc.metrics()) and len(state.classes) == 67


def test_the_picture_is_of_the_peak(tmp_path):
    """64 KiB blocks are large: eight pages each, and the map has them."""
    found = recorded(GROW + LEAVE, tmp_path)
    arenas = found.highest.heap_map.arenas
    explicit = STATES.index("explicit")
    large = sum(1 for arena in arenas for at in range(8192) if arena.state[at] == explicit and not arena.size_class[at]
                and arena.first[at])
    assert found.highest.inuse >= 90 * MIB and large >= 1400
    small = [row for row in found.exit.classes if row.object_bytes == 112]
    assert small[0].objects >= 20000


def test_what_is_killed_leaves_its_peak(tmp_path):
    result = child(GROW + "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", tmp_path / "heap.jsonl")
    assert result.returncode == -signal.SIGKILL
    found = record.read(tmp_path / "heap.jsonl")
    assert found.exit is None and found.peak.inuse > 80 * MIB and found.last is found.peak
    is_whole(found.peak)


def test_a_small_program(tmp_path):
    result = subprocess.run(["sort", os.devnull], env=pyalloc.preload.env(
        {"PATH": os.environ["PATH"], "PYALLOC_REPORT": str(tmp_path / "%p.jsonl")}), capture_output=True, check=True)
    (path,) = tmp_path.iterdir()
    found = record.read(path)
    assert found.program == "sort" and path.name == f"{found.pid}.jsonl" and found.exit and result.stderr == b""


def test_options(tmp_path):
    found = recorded("import pyalloc", tmp_path, PYALLOC_GOGC="50", PYALLOC_MEMLIMIT="512MiB")
    options = {one["name"]: one for one in found.options}
    from pyalloc._options import options as listed

    assert list(options) == [one.name for one in listed()]
    assert options["PYALLOC_GOGC"]["value"] == 50 and options["PYALLOC_GOGC"]["source"] == "PYALLOC_GOGC"
    assert options["PYALLOC_MEMLIMIT"]["value"] == 512 * MIB
    assert options["PYALLOC_DECAY_MS"]["source"] == "default"
    assert options["PYALLOC_REPORT"]["value"] == str(tmp_path / "heap.jsonl")


FORK = GROW + """
import os
pid = os.fork()
if pid == 0:
    more = [pyalloc.empty(64 << 10) for _ in range(1600)]
    os._exit(0) if CHILD == "_exit" else None
else:
    assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.parametrize("way", ["_exit", "exit"])
def test_children_of_fork_have_files_of_their_own(tmp_path, way):
    result = child(f"CHILD = {way!r}" + FORK, tmp_path / "%p.jsonl")
    assert (result.returncode, result.stderr) == (0, "")
    found = sorted(map(record.read, tmp_path.iterdir()), key=lambda one: one.last.peak_heap_inuse)
    assert len(found) == 2
    parent, forked = found
    assert forked.parent == parent.pid and parent.exit
    assert forked.peak.inuse > 180 * MIB and (forked.exit is None) == (way == "_exit")


def test_children_of_fork_leave_a_single_file_alone(tmp_path):
    found = recorded("CHILD = '_exit'" + FORK, tmp_path)
    assert found.last.peak_heap_inuse < 110 * MIB and found.exit


def test_threads_that_grow_at_once(tmp_path):
    code = """
import threading, pyalloc
def work():
    kept = [pyalloc.empty(size) for _ in range(200) for size in (100, 3000, 20_000, 70_000)]
    del kept[::2]
threads = [threading.Thread(target=work) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
pyalloc.heap_check()
"""
    found = recorded(code, tmp_path)
    assert found.peak.inuse > 10 * MIB and found.exit
    assert sum(found.peak.heap_map.counts().values()) == 8192 * len(found.peak.heap_map.arenas)


def test_managed_objects_count(tmp_path):
    found = recorded("import pyalloc; kept = [pyalloc.managed_bytes(30000) for _ in range(2000)]", tmp_path)
    assert found.highest.number("/pyalloc/managed/inuse:bytes") > 50 * MIB
    assert found.highest.heap_map.counts()["managed"] > 6000


def test_nobody_has_to_be_able_to_write(tmp_path):
    result = child(GROW, tmp_path / "nowhere" / "heap.jsonl")
    assert result.returncode == 0
    assert result.stderr == (f"pyalloc: PYALLOC_REPORT={tmp_path}/nowhere/heap.jsonl: could not be written: "
                             "no such folder\n")
    result = child("pass", "/" + "x" * 5000, preload=True)
    assert result.returncode == 0 and "the path is too long" in result.stderr


def test_a_relative_path_is_from_where_the_program_started(tmp_path):
    code = "import os, pyalloc; os.chdir('/')"
    env = {**os.environ, "PYALLOC_REPORT": "heap.jsonl"}
    subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, check=True)
    assert record.read(tmp_path / "heap.jsonl").exit


@pytest.mark.parametrize("text", ["", "{}", "[]", "not json", '{"kind":"process","pid":1,"parent":0,"program":"x"}',
                                  '{"kind":"process","pid":1,"parent":0,"program":"x","options":[]}'])
def test_what_is_no_report(tmp_path, text):
    (tmp_path / "bad").write_text(text)
    with pytest.raises(record.RecordError, match="bad"):
        record.read(tmp_path / "bad")


def test_a_damaged_map_is_found(tmp_path):
    recorded("import pyalloc; kept = pyalloc.empty(1 << 20)", tmp_path)
    lines = (tmp_path / "heap.jsonl").read_text().splitlines()
    state = json.loads(lines[-1])
    state["arenas"][0]["runs"] = state["arenas"][0]["runs"][:-6]
    (tmp_path / "heap.jsonl").write_text("\n".join([lines[0], json.dumps(state)]))
    with pytest.raises(record.RecordError, match="pages"):
        record.read(tmp_path / "heap.jsonl")


def test_the_map_is_the_one_that_the_process_sees(tmp_path):
    """Runs, expanded, are what heap_map() has: page by page, at a moment when nothing moves."""
    code = GROW + """
import json, sys
del small[::3]
found = pyalloc.heap_map()
rows = [[arena.address, arena.state.hex(), arena.size_class.hex(), arena.first.hex(), list(arena.live),
         list(arena.capacity)] for arena in found.arenas]
sys.stdout.write(json.dumps(rows)); sys.stdout.flush()
""" + LEAVE
    result = child(code, tmp_path / "heap.jsonl")
    assert result.returncode == 0, result.stderr
    rows, arenas = json.loads(result.stdout), record.read(tmp_path / "heap.jsonl").exit.heap_map.arenas
    assert [row[0] for row in rows] == [arena.address for arena in arenas]
    differ = compared = 0
    for row, arena in zip(rows, arenas):
        theirs = zip(bytes.fromhex(row[1]), bytes.fromhex(row[2]), bytes.fromhex(row[3]), row[4], row[5])
        ours = zip(arena.state, arena.size_class, arena.first, arena.live, arena.capacity)
        differ += sum(a != b for a, b in zip(theirs, ours))
        compared += 8192
    assert compared >= 8192 and differ <= compared // 100  # what json and ctypes needed in between
