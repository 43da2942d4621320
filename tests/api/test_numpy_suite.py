"""NumPy's own tests with every array in pyalloc's heap: test by test the same outcome as without."""

import collections
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")

PLUGIN = Path(__file__).with_name("numpy_suite_plugin.py")
CORE = "numpy._core" if int(np.__version__.split(".")[0]) >= 2 else "numpy.core"
CORE_MODULES = [f"{CORE}.tests.test_{name}" for name in (
    "multiarray", "mem_policy", "mem_overlap", "regression", "shape_base", "indexing", "item_selection", "records",
    "numeric", "einsum", "array_coercion", "api")]
MODULES = [
    *CORE_MODULES, "numpy.linalg.tests.test_linalg", "numpy.linalg.tests.test_regression",
    "numpy.random.tests.test_generator_mt19937", "numpy.random.tests.test_random", "numpy.fft.tests.test_pocketfft",
    "numpy.lib.tests.test_io",
]


def run(folder, align, modules):
    """The report of the plugin; the process must end with 0 or 1 (some test failed)."""
    report = folder / f"report-{align}.json"
    environment = {name: value for name, value in os.environ.items()
                   if name != "LD_PRELOAD" and not name.startswith(("PYALLOC_", "PYTEST_"))}
    environment.update(NUMPY_SUITE_ALIGN=align, NUMPY_SUITE_REPORT=str(report), OPENBLAS_NUM_THREADS="1",
                       PYTHONPATH=str(PLUGIN.parent))
    where = folder / f"run-{align}"
    where.mkdir()
    command = [sys.executable, "-m", "pytest", "-q", "-p", PLUGIN.stem, "-p", "no:cacheprovider", "-m", "not slow",
               "-W", "ignore", "--pyargs", *modules]
    done = subprocess.run(command, capture_output=True, text=True, cwd=where, env=environment, timeout=900)
    assert done.returncode in (0, 1), f"exit {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return {**json.loads(report.read_text()), "text": done.stdout}


@pytest.mark.soak
@pytest.mark.parametrize("align, modules, least", [("16", MODULES, 8000), ("64", CORE_MODULES[:2], 3000)])
def test_numpy_s_own_tests(tmp_path, align, modules, least):
    pytest.importorskip("hypothesis")
    with ThreadPoolExecutor(2) as pool:
        plain, hooked = pool.map(lambda which: run(tmp_path, which, modules), ("", align))
    assert len(plain["outcomes"]) > least and plain["ours"] == 0
    assert hooked["ours"] >= 0.99 * len(hooked["outcomes"])      # it was in use, all the time
    different = {name: (plain["outcomes"].get(name), hooked["outcomes"].get(name))
                 for name in plain["outcomes"].keys() | hooked["outcomes"].keys()
                 if plain["outcomes"].get(name) != hooked["outcomes"].get(name)}
    assert not different, f"{different}\n{hooked['text'][-6000:]}"
    counts = collections.Counter(hooked["outcomes"].values())
    print(f"NumPy {hooked['numpy']}, alignment {align}: {dict(counts)}, as without")
