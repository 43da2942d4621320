"""A pytest plugin for NumPy's own tests: the handler that NUMPY_SUITE_ALIGN asks for, and outcomes as JSON.

Without that variable the tests run as they are.  NUMPY_SUITE_REPORT is where the report goes.
"""

import json
import os

import numpy

import pyalloc
import pyalloc.numpy

_outcomes = {}
_ours = 0       # tests before which a new array of the main thread was pyalloc's
_peak = 0


def pytest_configure(config):
    align = os.environ.get("NUMPY_SUITE_ALIGN")
    if align:
        pyalloc.numpy.install(align=int(align))


def pytest_runtest_setup(item):
    global _ours, _peak
    _ours += pyalloc.owns(numpy.ones(3).ctypes.data)
    _peak = max(_peak, pyalloc.read_mem_stats().explicit_alloc)


def pytest_runtest_logreport(report):
    """One word a test: that of its last phase, or of the first that did not pass."""
    outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
    if _outcomes.get(report.nodeid, "passed") == "passed":
        _outcomes[report.nodeid] = outcome


def pytest_sessionfinish(session):
    pyalloc.heap_check()
    with open(os.environ["NUMPY_SUITE_REPORT"], "w") as file:
        json.dump({"outcomes": _outcomes, "ours": _ours, "peak_bytes": _peak, "numpy": numpy.__version__}, file)
