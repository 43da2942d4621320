"""malloc at awkward moments: tests/preload/moments.c, each case with and without the library."""

import os
import subprocess

import pytest


@pytest.fixture(scope="module")
def program(compiled):
    return compiled("moments.c", "-D_GNU_SOURCE", "-ldl")


CASES = {"": "ok\n", "keys": "ok\n", "exit": "ok\nlast\n", "children": "ok\n", "tls": "ok\n"}


@pytest.mark.parametrize("case", CASES)
def test_moment(program, compiled, preloaded, case):
    command = [program, case, compiled("tlslib.c", "-shared", "-fPIC")]
    plain = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (plain.returncode, plain.stdout, plain.stderr) == (0, CASES[case], "")
    result = preloaded(command)
    assert (result.returncode, result.stdout, result.stderr) == (0, CASES[case], "")


@pytest.mark.parametrize("case", CASES)
def test_moment_linked(program, compiled, library, case):
    """Linked with the library, which is then not the first to be initialised."""
    linked = compiled("moments.c", "-D_GNU_SOURCE", "-ldl", library, f"-Wl,-rpath,{os.path.dirname(library)}")
    result = subprocess.run([linked, case, compiled("tlslib.c", "-shared", "-fPIC")], capture_output=True, text=True,
                            env={**os.environ, "PYALLOC_STATS_AT_EXIT": "1"}, timeout=120)
    assert (result.returncode, result.stdout) == (0, CASES[case]), result.stderr
    assert "statistics at exit" in result.stderr
    assert "not so" not in result.stderr
