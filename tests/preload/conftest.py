"""What the tests of the drop-in share: the library, compilers, and runs that prove that it was in use."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from preload.support import SUMMARY, need
from pyalloc import preload as drop_in

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def library() -> str:
    path = os.fspath(drop_in.path())
    assert os.path.isfile(path), f"{path} is not built: pip install -e ."
    return path


@pytest.fixture(scope="session")
def compiled(library, tmp_path_factory):
    """Compiles a program of this folder once: compiled("early.c"), compiled("news.cc", "-std=c++20")."""
    folder = tmp_path_factory.mktemp("compiled")
    done: "dict[tuple[str, ...], str]" = {}

    def compile(source: str, *flags: str, name: str = "") -> str:
        key = (source, *flags)
        if key not in done:
            out = folder / (name or f"{len(done)}-{Path(source).stem}")
            compiler = need("g++", "g++") if source.endswith(".cc") else need("gcc", "gcc")
            command = [compiler, "-O1", "-g", "-fno-builtin", "-Wall", "-Wno-unused-result", "-pthread",
                       str(HERE / source), "-o", str(out), *flags]
            result = subprocess.run(command, capture_output=True, text=True)
            assert result.returncode == 0, result.stderr
            done[key] = str(out)
        return done[key]

    return compile


@pytest.fixture
def preloaded(library):
    """Runs a command with the library as its malloc, which its summary at exit proves; gives the result with the
    summaries cut out of its output (names of the processes in .summaries)."""

    def run(command, env=(), timeout=120, active=True, **more):
        environment = {**os.environ, "LC_ALL": "C", **dict(env), "LD_PRELOAD": library, "PYALLOC_STATS_AT_EXIT": "1"}
        result = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment,
                                timeout=timeout, **more)
        result.summaries = [match.group(2) for match in SUMMARY.finditer(result.stderr + result.stdout)]
        result.stdout, result.stderr = SUMMARY.sub("", result.stdout), SUMMARY.sub("", result.stderr)
        if active:
            assert result.summaries, f"the library was not in use: {command}\n{result.stdout}{result.stderr}"
        return result

    return run


@pytest.fixture
def compare(preloaded):
    """Runs a command without and with the library; exit code, stdout and stderr must be the same. Returns stdout.
    cwd may be a function of "plain" or "preloaded"; program is a name that must be among those that used the library;
    normal maps an output to what must be equal."""

    def run(command, env=(), timeout=120, cwd=None, code=0, program=None, normal=lambda text: text, **more):
        folder = cwd if callable(cwd) else lambda name: cwd
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        plain = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=timeout,
                               env={**environment, "LC_ALL": "C", **dict(env)}, cwd=folder("plain"), **more)
        assert plain.returncode == code, f"{command}: {plain.returncode}\n{plain.stdout[-2000:]}{plain.stderr[-2000:]}"
        result = preloaded(command, env=env, timeout=timeout, cwd=folder("preloaded"), **more)
        assert (result.returncode, normal(result.stdout), normal(result.stderr)) == (
            code, normal(plain.stdout), normal(plain.stderr))
        assert program is None or program in result.summaries, result.summaries
        return result.stdout

    return run
