"""memray and py-spy on processes that use pyalloc: they work, and see what docs/how-to-service.md says they see."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from programs.hooked import plain_environment
from pyalloc import preload

MIB = 1 << 20

PROGRAM = """
import sys
import pyalloc, pyalloc.python

def buffers():
    kept = []
    for _ in range(8):
        kept.append(pyalloc.alloc(1 << 20))
    return kept

def objects():
    kept = []
    for _ in range(2000):
        kept.append(bytearray(3000))
    return kept

if "hook" in sys.argv:
    pyalloc.python.install()
kept = buffers(), objects()
print(all(pyalloc.owns(memoryview(one)) for one in kept[1]))
"""


def tool(name):
    path = Path(sys.executable).parent / name
    found = str(path) if path.exists() else shutil.which(name)
    if not found:
        pytest.skip(f"{name} is missing: pip install {name}")
    return found


@pytest.fixture
def memray(tmp_path):
    """memray(*arguments of PROGRAM, options, env) -> {function: bytes allocated}, its statistics, its output."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def run(*arguments, options=(), env=None, fails=False):
        words = [tool("memray"), "run", "-q", "-f", *options, "-o", tmp_path / "out.bin", program, *arguments]
        done = subprocess.run(words, capture_output=True, text=True, env={**plain_environment(), **(env or {})},
                              timeout=120)
        assert (done.returncode != 0) == fails, done.stderr
        stats = tmp_path / "stats.json"
        subprocess.run([tool("memray"), "stats", "--json", "-f", "-n", "1000", "-o", stats, tmp_path / "out.bin"],
                       check=True, capture_output=True, timeout=120)
        figures = json.loads(stats.read_text())
        by_function: "dict[str, int]" = {}
        for row in figures["top_allocations_by_size"]:
            name = row["location"].split(":")[0]
            by_function[name] = by_function.get(name, 0) + row["size"]
        return by_function, figures, done

    return run


def test_memray_does_not_take_address_space_for_memory(memray):
    """It sees neither blocks of ours nor what they lie in, as little as it sees into malloc."""
    plain, figures, done = memray()
    assert done.stdout == "False\n" and plain["objects"] >= 2000 * 3000     # Python's own allocator calls malloc
    assert figures["metadata"]["peak_memory"] < 32 * MIB
    hooked, figures, done = memray("hook")
    assert done.stdout == "True\n" and figures["metadata"]["peak_memory"] < 32 * MIB
    assert hooked.get("objects", 0) < MIB and hooked.get("buffers", 0) < MIB


def test_memray_sees_every_object_under_the_drop_in(memray):
    """Preloaded, pyalloc is the malloc that memray watches."""
    seen, figures, done = memray(env=preload.env({"PYTHONMALLOC": "malloc"}))
    assert done.stdout == "True\n" and seen["objects"] >= 2000 * 3000
    assert "MMAP" not in figures["allocator_type_distribution"] and figures["metadata"]["peak_memory"] < 64 * MIB


def test_memray_that_hooks_python_s_allocators_is_refused(memray):
    _, _, done = memray("hook", options=["--trace-python-allocators"], fails=True)
    assert "_memray" in done.stderr and "call pyalloc.python.install() before it" in done.stderr
    _, _, done = memray(options=["--trace-python-allocators"])
    assert done.stdout == "False\n"


BUSY = """
import os, sys, time
import pyalloc, pyalloc.python
pyalloc.python.install()

class Node(pyalloc.Struct):
    next: pyalloc.Ref

def work_of_the_service():
    while os.getppid() == int(sys.argv[1]):
        [dict(a=i) for i in range(1000)]
        pyalloc.alloc(1 << 20).free()
        node = Node(next=Node())

print("ready", flush=True)
work_of_the_service()
"""


@pytest.fixture
def busy(tmp_path):
    """A process that works with pyalloc until the test ends."""
    program = tmp_path / "busy.py"
    program.write_text(textwrap.dedent(BUSY))
    with subprocess.Popen([sys.executable, program, str(os.getpid())], stdout=subprocess.PIPE, text=True,
                          env=plain_environment()) as process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def may_not(done):
    return "Permission denied" in done.stderr or "Operation not permitted" in done.stderr


def test_py_spy_dump(busy):
    end = time.monotonic() + 60
    while True:     # a sample now and then meets the interpreter in the middle of something, as everywhere
        done = subprocess.run([tool("py-spy"), "dump", "--pid", str(busy.pid)], capture_output=True, text=True,
                              timeout=60)
        if may_not(done):
            pytest.skip("this process may not trace others")
        if "work_of_the_service" in done.stdout:
            break
        assert time.monotonic() < end, done.stdout + done.stderr
    assert busy.poll() is None


def test_py_spy_record(busy, tmp_path):
    done = subprocess.run([tool("py-spy"), "record", "-d", "2", "-r", "50", "-f", "raw", "-o", tmp_path / "out.txt",
                           "--pid", str(busy.pid)], capture_output=True, text=True, timeout=120)
    if may_not(done):
        pytest.skip("this process may not trace others")
    assert done.returncode == 0, done.stderr
    stacks = (tmp_path / "out.txt").read_text().splitlines()
    assert any("work_of_the_service" in stack for stack in stacks), stacks
    assert busy.poll() is None
