"""Builds the kernels and the recorder from source, once a session, for the tests of the benchmark."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILER = (os.environ.get("CC") or "cc").split()


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory):
    """compile_c(text, name, *flags) -> path of the program or library."""
    if shutil.which(COMPILER[0]) is None:
        pytest.fail("no C compiler: install gcc, the README asks for one")
    folder = tmp_path_factory.mktemp("compiled")

    def build(text: str, name: str, *flags: str) -> Path:
        source, target = folder / (name + ".c"), folder / name
        source.write_text(text)
        subprocess.run([*COMPILER, "-O1", "-pthread", str(source), "-o", str(target), *flags], check=True)
        return target

    return build


@pytest.fixture(scope="session")
def kernels(tmp_path_factory) -> Path:
    """The kernels executable, compiled with warnings as errors."""
    if shutil.which(COMPILER[0]) is None:
        pytest.fail("no C compiler: install gcc, the README asks for one")
    target = tmp_path_factory.mktemp("kernels") / "kernels"
    sources = sorted(str(path) for path in (ROOT / "bench" / "kernels").glob("*.c"))
    flags = ["-O2", "-pthread", "-Wall", "-Wextra", "-Werror", "-fno-builtin", f"-I{ROOT / 'csrc'}"]
    subprocess.run([*COMPILER, *flags, *sources, "-o", str(target), "-ldl"], check=True)
    return target


@pytest.fixture(scope="session")
def recorder(tmp_path_factory) -> Path:
    from pyalloc._bench import record

    try:
        return record.build(tmp_path_factory.mktemp("recorder"))
    except record.RecordError as error:
        pytest.fail(str(error))
