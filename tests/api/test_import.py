"""Import: a core of another version is a clear error; preloading; what an import loads."""

import os
import re
import shutil
import subprocess
import sys

import pytest

import pyalloc


@pytest.fixture(scope="module")
def stub_library(root, tmp_path_factory):
    """Builds libpyalloc.so files that only have an ABI number, with the symbol versions of the real one."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "building pyalloc needed a C compiler; so does this test"
    text = (root / "csrc" / "include" / "pyalloc.h").read_text()
    names = sorted(set(re.findall(r"\b(pa_\w+)\(", text)) - {"pa_abi_version"})
    assert "pa_malloc" in names

    def build(folder, without=()):
        target = tmp_path_factory.mktemp(folder)
        source = target / "stub.c"
        source.write_text("int pa_abi_version(void) { return 4711; }\n"
                          + "".join(f"void *{name}(void) {{ return 0; }}\n" for name in names if name not in without))
        (target / "stub.map").write_text("LIBPYALLOC_1 { global: pa_*; local: *; };\n")
        library = target / "libpyalloc.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-Wl,-soname,libpyalloc.so",
                        f"-Wl,--version-script={target}/stub.map"], check=True)
        return str(library)

    return build


def test_another_abi_is_a_clear_import_error(run_python, stub_library):
    result = run_python("-c", "import pyalloc", env={"LD_PRELOAD": stub_library("other")}, check=False)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: the libpyalloc.so in this process has ABI 4711, but this pyalloc was built ")
    assert "LD_PRELOAD" in last


def test_a_core_that_lacks_functions_is_a_clear_import_error(run_python, stub_library):
    result = run_python("-c", "import pyalloc", check=False,
                        env={"LD_PRELOAD": stub_library("older", without=("pa_heap_check", "pa_good_size"))})
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: the libpyalloc.so in this process does not fit this pyalloc")


def test_import_interposes_nothing(run_python):
    script = "import pyalloc; print(pyalloc.preload.active(), pyalloc.owns(bytearray(100000)))"
    assert run_python("-c", script, env={"LD_PRELOAD": ""}).stdout.split() == ["False", "False"]


def test_preloaded_it_is_malloc_and_one_heap(run_python):
    script = ("import pyalloc; print(pyalloc.preload.active(), pyalloc.owns(bytearray(100000)), "
              "pyalloc.preload.loaded_path() == pyalloc.preload.path())")
    result = run_python("-c", script, env={"LD_PRELOAD": pyalloc.preload.path()})
    assert result.stdout.split() == ["True", "True", "True"] and result.stderr == ""


def test_preload_env():
    path = pyalloc.preload.path()
    assert os.path.isabs(path) and os.path.exists(path)
    base = {"A": "1", "LD_PRELOAD": f"/other.so:{path}"}
    assert pyalloc.preload.env(base) == {"A": "1", "LD_PRELOAD": f"{path}:/other.so"}
    assert base["LD_PRELOAD"].startswith("/other.so")
    assert pyalloc.preload.env({}) == {"LD_PRELOAD": path}
    assert pyalloc.preload.env()["LD_PRELOAD"].startswith(path)


def test_import_is_light(run_python):
    heavy = ["numpy", "rich", "psutil", "cffi", "matplotlib", "argparse"]
    script = f"import sys, pyalloc; print([name for name in {heavy} if name in sys.modules])"
    assert run_python("-c", script).stdout.strip() == "[]"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="interpreters with a GIL of their own came with 3.12")
def test_no_interpreter_with_its_own_gil(run_python):
    script = """
try:
    import _interpreters as interpreters
    new = lambda: interpreters.create("isolated")
except ImportError:
    import _xxsubinterpreters as interpreters
    new = lambda: interpreters.create(isolated=True)
import pyalloc
result = interpreters.run_string(new(), '''
try:
    import pyalloc
except ImportError:
    pass
else:
    raise SystemExit("imported")
''')
assert result is None, result
"""
    run_python("-c", script)
