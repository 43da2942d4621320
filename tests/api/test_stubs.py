"""The stubs are what the modules are, and the package is typed throughout."""

import re
import sys
from pathlib import Path

import pytest

import pyalloc

pytest.importorskip("mypy")

PACKAGE = Path(pyalloc.__file__).parent


def public_modules():
    """Modules and packages without an underscore in front: what users import, found by itself."""
    found = ["pyalloc"]
    for path in sorted(PACKAGE.iterdir()):
        is_package = path.is_dir() and (path / "__init__.py").exists()
        if not path.name.startswith("_") and (is_package or path.suffix in (".py", ".pyi")):
            found.append(f"pyalloc.{path.stem}")
    return sorted(set(found))


def test_public_modules_are_found():
    assert {"pyalloc", "pyalloc.preload"} <= set(public_modules())


def test_what_is_written_in_c_has_a_stub():
    """An extension module that type checkers see must say what is in it; _cffi and _whitebox are Any on purpose."""
    built = {path.name.partition(".")[0] for path in PACKAGE.glob("*.so")} - {"libpyalloc", "_cffi", "_whitebox"}
    assert "_core" in built
    assert not [name for name in built if not (PACKAGE / f"{name}.pyi").exists()]


#: Where stub and module differ on purpose: pattern -> why.
DIFFERENCES = {
    r"pyalloc\._core\.weakref\.__call__": "a type with tp_call has no signature",
    r"pyalloc\._fields\.(u?int\d+|float\d+|bool_|Ref)": "markers at run time; int, float, bool, Optional for checkers",
    r"pyalloc\.preload\.active": "lru_cache takes anything",
    r"pyalloc\._pictures\.raster\._table": "lru_cache, again",
    r"pyalloc\.libpyalloc": "a library and no module",
    r"pyalloc\._bench\.__main__": "a program: importing it runs it",
}
if sys.version_info < (3, 12):
    # Python code sees __buffer__ from 3.12 on; type checkers want it always.
    DIFFERENCES[r"pyalloc\._core\.(Buffer|ManagedBytes)\.__buffer__"] = "3.12"


def test_stubs_match_the_modules(run_python, tmp_path):
    """Every module of the package, the private ones too, as it is found."""
    allowed = tmp_path / "allowlist"
    allowed.write_text("".join(f"{pattern}\n" for pattern in DIFFERENCES))
    result = run_python("-m", "mypy.stubtest", "--mypy-config-file", "pyproject.toml", "--allowlist", str(allowed),
                        "pyalloc", check=False, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    checked = int(re.search(r"no issues found in (\d+) modules", result.stdout).group(1))
    assert checked > len(public_modules()) + 15, result.stdout


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
