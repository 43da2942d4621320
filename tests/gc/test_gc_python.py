"""Python threads beside a collector that is held: nobody keeps the GIL while waiting or marking."""

import os
import subprocess
import sys
import sysconfig

import pytest

import cprograms
from gc_programs import MODES

HELD = cprograms.TESTS / "gc" / "held"
ASSERTS = ["-O1", "-DPA_WHITEBOX=1", "-DPA_ASSERT_LEVEL=2"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A package with asserts in its C half, above a preloaded core with asserts and yield points."""
    core = cprograms.shared_library("held", "libpyalloc.so", [*cprograms.core_sources(), HELD / "hold.c"],
                                    [*ASSERTS, "-ftls-model=initial-exec"])
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    python = cprograms.shared_library("python", f"_core{suffix}", sorted((cprograms.CSRC / "python").glob("*.c")),
                                      ["-O1", "-DPA_ASSERT_LEVEL=1", f"-I{sysconfig.get_paths()['include']}"],
                                      [f"-L{core}", "-lpyalloc"])
    package = tmp_path_factory.mktemp("package") / "pyalloc"
    package.mkdir()
    for path in (cprograms.ROOT / "pyalloc").iterdir():
        if not path.name.startswith("_core") or path.suffix != ".so":
            (package / path.name).symlink_to(path)
    (package / f"_core{suffix}").symlink_to(python / f"_core{suffix}")
    return {**os.environ, "LD_PRELOAD": str(core / "libpyalloc.so"), "PYTHONPATH": str(package.parent)}


def operations(environment, case, mode):
    result = subprocess.run([sys.executable, HELD / "operations.py", case, mode], env=environment, text=True,
                            capture_output=True, timeout=120)
    assert (result.returncode, result.stdout) == (0, "ok\n"), result.stdout + result.stderr


@pytest.mark.parametrize("mode", MODES)
def test_who_waits_for_a_stop_lets_the_gil_go(environment, mode):
    operations(environment, "stopped", mode)


@pytest.mark.parametrize("mode", list(MODES)[2:])
def test_who_marks_lets_the_gil_go(environment, mode):
    operations(environment, "paying", mode)


@pytest.mark.parametrize("mode", MODES)
def test_threads_with_asserts(environment, mode):
    operations(environment, "stress", mode)
