"""What goes into an sdist: everything that a build from it needs, and nothing that was built."""

import re
import subprocess
import sys
import tarfile

import pytest


@pytest.fixture(scope="module")
def names(root, tmp_path_factory):
    pytest.importorskip("setuptools")
    target = tmp_path_factory.mktemp("sdist")
    command = ["egg_info", "--egg-base", str(target), "sdist", "-d", str(target)]
    subprocess.run([sys.executable, "setup.py", "-q", *command], cwd=root, check=True, capture_output=True)
    (archive,) = target.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        return {name.partition("/")[2] for name in file.getnames()}


def test_every_source_is_in(root, names):
    patterns = ("csrc/**/*.[ch]", "csrc/*.map", "csrc/**/*.ld", "gen/*.py", "bench/**/*.[ch]", "bench/*.py",
                "pyalloc/**/*.py", "pyalloc/*.pyi", "tests/**/*.py")
    wanted = {str(path.relative_to(root)) for pattern in patterns for path in root.glob(pattern)}
    wanted |= {"pyalloc/py.typed", "setup.py", "pyproject.toml", "LICENSE", "pytest_pyalloc.py"}
    wanted |= {str(path.relative_to(root)) for path in root.glob("pyalloc/_bench/traces/*")}
    assert not wanted - names


def test_nothing_built_is_in(names):
    assert not [name for name in names if re.search(r"\.(so|o|pyc)$|__pycache__|^build/|_bench/kernels$", name)]
