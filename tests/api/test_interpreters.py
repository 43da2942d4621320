"""More than one interpreter in a process: beside each other, and one after another in a program that embeds Python."""

import os
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest

import pyalloc

HERE = """
try:
    import _interpreters as interpreters                    # 3.13
    new = lambda: interpreters.create("legacy")
except ImportError:
    import _xxsubinterpreters as interpreters
    new = lambda: interpreters.create(isolated=False)
def there(one, text):
    found = getattr(interpreters, "exec", getattr(interpreters, "run_string", None))(one, text)
    assert found is None, found
import pyalloc
class Node(pyalloc.Struct):
    key: pyalloc.int64
"""
THERE = """
import pyalloc
class Node(pyalloc.Struct):
    key: pyalloc.int64
"""


def test_cleanups_belong_to_the_main_interpreter(run_python):
    """Neither importing, collecting nor ending another one takes them away, and there they are refused clearly."""
    result = run_python("-c", HERE + f'''
THERE = {THERE!r}
seen = []
def see(i):
    assert interpreters.get_current() == interpreters.get_main()
    seen.append(i)
one, two = new(), new()
there(one, THERE)
kept = [pyalloc.add_cleanup(Node(key=i), see, i) for i in range(3)]
there(two, THERE + """
try:
    pyalloc.add_cleanup(Node(), print, "never")
except RuntimeError as error:
    assert "main interpreter" in str(error), error
else:
    raise SystemExit("no error")
for _ in range(3):
    pyalloc.collect()
[Node(key=i) for i in range(1000)]
""")
there(one, "pyalloc.collect(); Node()")
pyalloc.collect()
assert sorted(seen) == [0, 1, 2], seen
for other in (one, two):
    interpreters.destroy(other)
pyalloc.add_cleanup(Node(), see, 3)
from pyalloc import _core
_core.gc_collect()                  # by the pending call alone, or by the next operation
while 3 not in seen:
    Node()
pyalloc.add_cleanup(Node(), print, "at exit")
_core.cleanup_listen(None)
_core.gc_collect()
''')
    assert result.stdout == "at exit\n" and result.stderr == ""


def test_objects_in_several_interpreters(run_python):
    run_python("-c", HERE + f"""
THERE = {THERE!r}
mine = [Node(key=i) for i in range(1000)]
others = [new() for _ in range(3)]
for one in others:
    there(one, THERE + "kept = [Node(key=-i) for i in range(1000)]")
for one in others:
    there(one, "pyalloc.collect(); assert [n.key for n in kept] == [-i for i in range(1000)]")
interpreters.destroy(others.pop())
pyalloc.collect()
for one in others:
    there(one, "assert [n.key for n in kept] == [-i for i in range(1000)]; pyalloc.heap_check()")
assert [n.key for n in mine] == list(range(1000))
""")


# ---- One after another

EMBED = r"""
#include <Python.h>

/* Each argument is a program for an interpreter of its own, one after another. */
int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        Py_Initialize();
        if (PyRun_SimpleString(argv[i]) != 0)
            return 1;
        if (Py_FinalizeEx() != 0)
            return 2;
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """Runs programs in one process, one interpreter after another; their output."""
    shared = sysconfig.get_config_var("LDLIBRARY") or ""
    folder, name = sysconfig.get_config_var("LIBDIR"), f"python{sysconfig.get_config_var('LDVERSION')}"
    if not sysconfig.get_config_var("Py_ENABLE_SHARED") or not os.path.exists(os.path.join(folder, shared)):
        pytest.skip("this CPython has no shared library")
    where = tmp_path_factory.mktemp("embed")
    (where / "embed.c").write_text(EMBED)
    subprocess.run([os.environ.get("CC", "cc"), where / "embed.c", "-o", where / "embed", "-I",
                    sysconfig.get_path("include"), f"-L{folder}", f"-l{name}", f"-Wl,-rpath,{folder}"], check=True)
    paths = [str(Path(pyalloc.__file__).parents[1]), sysconfig.get_path("purelib"), *filter(None, sys.path)]

    def run(*programs):
        env = {**os.environ, "PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}",
               "PYTHONPATH": os.pathsep.join(paths), "PYTHONFAULTHANDLER": "1"}
        result = subprocess.run([where / "embed", *map(textwrap.dedent, programs)], env=env, capture_output=True,
                                text=True, timeout=120)
        assert result.returncode == 0, (result.returncode, result.stderr)
        return result
    return run


USE = """
    import pyalloc
    class Node(pyalloc.Struct):
        next: pyalloc.Ref
    kept = None
    for _ in range(10000):
        kept = Node(next=kept)
    buffer = pyalloc.alloc(1 << 20)
    view = memoryview(buffer)
    pyalloc.add_cleanup(Node(), print, "clean")
    pyalloc.collect()
"""
AGAIN = """
    import json
    for _ in range(2):
        try:
            import pyalloc
        except ImportError as error:
            assert "Py_Finalize" in str(error), error
        else:
            raise SystemExit("imported again")
    print(json.loads("[1]"))
"""


def test_an_embedding_program_ends_well(embedded):
    result = embedded(USE)
    assert result.stdout == "clean\n" and result.stderr == ""


def test_the_second_interpreter_of_a_process_refuses(embedded):
    """Classes of the first are in the table of layouts, and among the subclasses of static types."""
    result = embedded("import math", USE, AGAIN, AGAIN)
    assert result.stdout == "clean\n[1]\n[1]\n" and result.stderr == ""
