"""The stubs are what the module is, and the package is typed throughout."""

import sys

import pytest

pytest.importorskip("mypy")


def test_stubs_match_the_module(run_python, tmp_path):
    allowed = tmp_path / "allowlist"
    # Python code sees __buffer__ from 3.12 on; type checkers want it always.  A type with tp_call has no signature.
    lines = ["weakref.__call__"]
    if sys.version_info < (3, 12):
        lines += ["Buffer.__buffer__", "ManagedBytes.__buffer__"]
    allowed.write_text("".join("pyalloc._core.{}\n".format(line).replace(".", "\\.") for line in lines))
    result = run_python("-m", "mypy.stubtest", "--mypy-config-file", "pyproject.toml", "--allowlist", str(allowed),
                        "pyalloc._core", check=False, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr


def test_mypy_strict(run_python):
    result = run_python("-m", "mypy", "--strict", "-p", "pyalloc", "-m", "pytest_pyalloc", check=False, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_program_of_a_user(run_python, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import pyalloc\n"
        "with pyalloc.alloc(10, zero=False, align=64) as buf:\n"
        "    view: memoryview = memoryview(buf)\n"
        "    n: int = len(buf) + buf.address + pyalloc.read_mem_stats().heap_inuse\n"
        "    owned: bool = pyalloc.owns(buf) and pyalloc.owns(b'') and pyalloc.owns(5)\n"
        "buf.nbytes = 5  # error\n"
        "pyalloc.alloc('5')  # error\n"
    )
    result = run_python("-m", "mypy", "--strict", str(program), check=False, timeout=300)
    errors = [line for line in result.stdout.splitlines() if ": error:" in line]
    assert [line.split(":")[-3] for line in errors] and len(errors) == 2, result.stdout + result.stderr
    assert all(f":{number}:" in line for number, line in zip((6, 7), errors))


def test_a_program_with_managed_objects(run_python, tmp_path):
    program = tmp_path / "managed.py"
    program.write_text(
        "from __future__ import annotations\n"
        "import pyalloc\n"
        "from pyalloc import Ref, int64\n"
        "class Node(pyalloc.Struct):\n"
        "    left: Ref\n"
        "    right: Ref[Node]\n"
        "    key: int64\n"
        "node = Node(left=None, key=5)\n"
        "n: int = node.key + len(pyalloc.ref_array(5, Node)) + Node.__fields__['key'].offset\n"
        "weak = pyalloc.weakref(node)\n"
        "again: Node | None = weak()\n"
        "node.right = node\n"
        "cleanup: pyalloc.Cleanup = pyalloc.add_cleanup(node, print, 1)\n"
        "with pyalloc.gctrace():\n"
        "    pyalloc.collect()\n"
        "mode: str = pyalloc.set_gc_mode('serial')\n"
        "p: int = pyalloc.read_gc_stats().pause_percentile(99)\n"
        "node.key = 'text'  # error\n"
        "node.right = 5  # error\n"
        "pyalloc.weakref(5)  # error\n"
    )
    result = run_python("-m", "mypy", "--strict", str(program), check=False, timeout=300)
    errors = [line for line in result.stdout.splitlines() if ": error:" in line]
    assert [int(line.split("managed.py:")[1].split(":")[0]) for line in errors] == [18, 19, 20], result.stdout
