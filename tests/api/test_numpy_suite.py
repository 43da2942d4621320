"""NumPy's own tests with every array in pyalloc's heap: test by test the same outcome as without."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")

PLUGIN = Path(__file__).with_name("numpy_suite_plugin.py")
CORE = "numpy._core" if int(np.__version__.split(".")[0]) >= 2 else "numpy.core"
MODULES = [
    *(f"{CORE}.tests.test_{name}" for name in (
        "multiarray", "mem_policy", "mem_overlap", "regression", "shape_base", "indexing", "item_selection", "records",
        "nditer", "ufunc", "numeric", "dtype", "einsum", "array_coercion", "api", "overrides")),
    "numpy.linalg.tests.test_linalg", "numpy.linalg.tests.test_regression",
    "numpy.random.tests.test_generator_mt19937", "numpy.random.tests.test_random", "numpy.random.tests.test_smoke",
    "numpy.fft.tests.test_pocketfft", "numpy.lib.tests.test_io", "numpy.lib.tests.test_function_base",
]
#: Tests that look at what a handler is rather than at what it does; NumPy's name for its own is in them.
ABOUT_THE_DEFAULT = ()


def run(folder, align):
    """The report of the plugin; the process must end by itself, with 0 or 1 (some test failed)."""
    report = folder / f"report-{align}.json"
    environment = {name: value for name, value in os.environ.items()
                   if name != "LD_PRELOAD" and not name.startswith(("PYALLOC_", "PYTEST_"))}
    environment.update(NUMPY_SUITE_ALIGN=align, NUMPY_SUITE_REPORT=str(report), OPENBLAS_NUM_THREADS="1",
                       PYTHONPATH=str(PLUGIN.parent))
    where = folder / f"run-{align}"
    where.mkdir()
    command = [sys.executable, "-m", "pytest", "-q", "-p", PLUGIN.stem, "-p", "no:cacheprovider", "-m", "not slow",
               "-W", "ignore", "--pyargs", *MODULES]
    done = subprocess.run(command, capture_output=True, text=True, cwd=where, env=environment, timeout=900)
    assert done.returncode in (0, 1), f"exit {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return json.loads(report.read_text()), done.stdout


@pytest.mark.soak
def test_numpy_s_own_tests(tmp_path):
    pytest.importorskip("hypothesis")
    plain, _ = run(tmp_path, "")
    assert len(plain["outcomes"]) > 8000 and plain["ours"] == 0
    for align in ("16", "64"):
        hooked, text = run(tmp_path, align)
        assert hooked["ours"] >= 0.99 * len(hooked["outcomes"])      # it was in use, all the time
        different = {name: (plain["outcomes"].get(name), hooked["outcomes"].get(name))
                     for name in plain["outcomes"].keys() | hooked["outcomes"].keys()
                     if plain["outcomes"].get(name) != hooked["outcomes"].get(name)
                     and not name.endswith(ABOUT_THE_DEFAULT)}
        assert not different, f"{different}\n{text[-6000:]}"
        print(f"{len(hooked['outcomes'])} tests of NumPy {hooked['numpy']} at {align}: as without")
