"""Wheels as .ci/wheels builds them: what it must find wrong, and, as a soak, a whole run for this interpreter."""

import importlib.machinery
import importlib.util
import os
import re
import subprocess
import sys
import zipfile

import pytest


@pytest.fixture(scope="module")
def wheels(root):
    loader = importlib.machinery.SourceFileLoader("ci_wheels", str(root / ".ci" / "wheels"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("ci_wheels", loader))
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writes
    return module


SUFFIX = ".cpython-311-x86_64-linux-gnu.so"


@pytest.mark.parametrize("extra", [
    "pyalloc/_whitebox.abi3.so", "pyalloc.libs/libpyalloc-1a2b3c.so", "pyalloc/old.so", "csrc/api/malloc.c",
    "tests/conftest.py", "pyalloc/_core.cpython-310-x86_64-linux-gnu.so", "pyalloc/__pycache__/preload.cpython-311.pyc",
])
def test_a_file_too_many_is_found(wheels, root, extra):
    expected = wheels.expected_files(root, "1.0", SUFFIX)
    wheels.compare_files(set(expected), expected)
    with pytest.raises(wheels.CheckError, match=re.escape(extra)):
        wheels.compare_files(expected | {extra}, expected)


@pytest.mark.parametrize("name", ["pyalloc/libpyalloc.so", "pyalloc/py.typed", "pyalloc/_core.pyi",
                                  "pyalloc/_core" + SUFFIX, "pyalloc/_bench/kernels", "pyalloc/_bench/starter.c",
                                  "pyalloc/preload.py", "pytest_pyalloc.py",
                                  "pyalloc/_site/sitecustomize.py", "pyalloc/_pictures/html.py",
                                  "pyalloc-1.0.dist-info/licenses/LICENSE"])
def test_a_missing_file_is_found(wheels, root, name):
    expected = wheels.expected_files(root, "1.0", SUFFIX)
    with pytest.raises(wheels.CheckError, match="missing: .*" + re.escape(name)):
        wheels.compare_files(expected - {name}, expected)


@pytest.mark.parametrize("change", [
    {"pyalloc/libpyalloc.so": b"another rpath"},
    {"pyalloc.libs/libpyalloc-1a2b3c.so": b"library", "pyalloc/libpyalloc.so": None},
])
def test_a_repair_that_touches_a_library_is_found(wheels, change):
    raw = {"pyalloc/libpyalloc.so": b"library", "pyalloc-1.0.dist-info/WHEEL": b"Tag: linux"}
    wheels.check_repair(raw, {**raw, "pyalloc-1.0.dist-info/WHEEL": b"Tag: manylinux"})
    repaired = {name: data for name, data in {**raw, **change}.items() if data is not None}
    with pytest.raises(wheels.CheckError, match="libpyalloc"):
        wheels.check_repair(raw, repaired)


def test_an_interpreter_that_cannot_build_is_named(wheels, tmp_path):
    fake = tmp_path / "python3"
    fake.write_text("#!/bin/sh\nexit 3\n")
    fake.chmod(0o755)
    assert wheels.examine([str(fake)], must=False) == []
    with pytest.raises(wheels.CheckError, match="does not run"):
        wheels.examine([str(fake)], must=True)


def test_every_supported_version_has_a_classifier(root):
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    minors = [int(minor) for minor in re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', text)]
    assert minors == list(range(9, 14)) and 'requires-python = ">=3.9"' in text


@pytest.mark.soak
def test_a_wheel_for_this_interpreter(root, tmp_path):
    """From the sources to an installed wheel in use; .ci/run does the same for every CPython that it finds."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    # What a checkout for tests is built with must not reach a wheel.
    environment.update(PYALLOC_BUILD_WHITEBOX="1", PYALLOC_BUILD_ASSERTS="3")
    command = [sys.executable, str(root / ".ci" / "wheels"), str(tmp_path / "out"), "--python", sys.executable]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = (tmp_path / "out").glob("*.whl")
    assert re.search(r"-cp3\d+-cp3\d+-manylinux_2_\d+_(x86_64|aarch64)\.whl$", wheel.name), wheel.name
    assert len(list((tmp_path / "out").glob("*.tar.gz"))) == 1
    with zipfile.ZipFile(wheel) as file:
        library = file.read("pyalloc/libpyalloc.so")
        metadata = file.read(next(name for name in file.namelist() if name.endswith("/METADATA"))).decode()
    assert b"libpyalloc.so\0" in library and b".debug_info" not in library
    assert "Requires-Python: >=3.9" in metadata and "Typing :: Typed" in metadata


def test_a_directory_with_old_wheels_is_refused(root, tmp_path):
    (tmp_path / "pyalloc-0.0.1-py3-none-any.whl").write_text("")
    command = [sys.executable, str(root / ".ci" / "wheels"), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and "give an empty folder" in result.stderr
