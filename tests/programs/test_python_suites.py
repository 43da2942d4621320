"""Test suites of CPython and of a large application from PyPI with Python's objects in our heap: the same results as
without."""

import os
import re
import subprocess
import sys

import pytest

from programs.hooked import Hooked, interruptible, plain_environment, python_with
# ---- CPython's own

#: Without test__xxsubinterpreters, which hangs in 3.11 under any sitecustomize that imports threading, hook or not.
CPYTHON_TESTS = """
    test_dict test_list test_set test_gc test_threading test_json test_re test_io test_pickle test_unicode
    test_weakref test_subprocess test_capi test_tracemalloc test_fork1 test_tuple test_bytes test_memoryview
    test_array test_struct test_zlib test_bz2 test_lzma test_hashlib test_sqlite3 test_ctypes test_mmap test_deque
    test_collections test_sort test_itertools test_ast test_threading_local test_posix test_long test_float test_str
    test_descr test_generators test_coroutines test_functools test_decimal test_datetime test_atexit test_import
    test_email test_xml_etree test_csv test_random test_heapq test_codecs test_compile test_dataclasses test_enum
    test_exceptions test_fstring test_grammar test_marshal test_typing test_contextlib test_copy test_inspect
    test_ordered_dict test_code test_trace test_queue test_bisect test_super test_userdict
""".split()
#: Parts of a package that takes minutes as a whole.
ASYNCIO_TESTS = ["test_futures", "test_locks", "test_queues", "test_runners", "test_streams", "test_taskgroups"]


def failures_of_regrtest(text):
    """{module: how it failed}."""
    how = r"(?:failed|crashed|timed out|worker non-zero exit code)(?: \((?!\d+ min|\d+ sec|\d+\.\d)[^)]*\))?"
    return dict(re.findall(rf"^\d+:\d+:\d+ .*?\] ([\w.]+) ({how})", text, re.M))


@pytest.mark.soak
def test_cpython_s_own_tests_under_the_hook(tmp_path):
    """What fails with the hook must fail in the same way without it."""
    python = python_with("test.test_dict")
    if python is None:
        pytest.skip("CPython's tests are missing: apt-get install libpython3-testsuite")
    have = subprocess.run([python, "-c", "import importlib.util as u, sys\n"
                           "print(*[name for name in sys.argv[1:] if u.find_spec('test.' + name)])", *CPYTHON_TESTS],
                          capture_output=True, text=True, check=True).stdout.split()
    assert len(have) >= 50
    hooked = Hooked(tmp_path / "site", ("raw", "mem", "obj"))

    def run(modules, env):
        command = [python, "-m", "test", "-j2", "--timeout", "240", *modules]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
                                env=env, timeout=900, preexec_fn=interruptible)
        found = failures_of_regrtest(result.stdout)
        assert found or result.returncode == 0, result.stdout[-4000:]
        return found, result.stdout

    failed, out = run(have, hooked.environment())
    assert hooked.processes() > len(have)
    if failed:
        plain, _ = run(sorted(failed), plain_environment())
        assert failed == plain, out[-8000:]


@pytest.mark.soak
def test_asyncio_s_own_tests_under_the_hook(tmp_path):
    python = python_with("test.test_asyncio.test_futures")
    if python is None:
        pytest.skip("CPython's tests are missing: apt-get install libpython3-testsuite")
    hooked = Hooked(tmp_path / "site")
    names = [f"test.test_asyncio.{name}" for name in ASYNCIO_TESTS if python_with(f"test.test_asyncio.{name}")]
    found = []
    for env in (hooked.environment(), plain_environment()):
        result = subprocess.run([python, "-m", "unittest", "-q", *names], capture_output=True, text=True, cwd=tmp_path,
                                env=env, timeout=900, preexec_fn=interruptible)
        found.append((result.returncode, re.findall(r"^Ran (\d+) tests|^(OK|FAILED.*)$", result.stderr, re.M)))
    assert hooked.processes() >= 1 and found[0] == found[1] and found[0][1], result.stderr[-4000:]


# ---- pandas


PANDAS_TESTS = ["frame.methods.test_sort_values", "frame.methods.test_fillna", "frame.methods.test_astype",
                "frame.test_constructors", "groupby.test_apply", "reshape.merge.test_merge", "indexes.multi",
                "io.json.test_pandas", "io.parser.test_index_col", "strings.test_find_replace", "window.test_groupby"]


def outcome(result):
    """The counts, and the tests that did not pass."""
    counts = re.search(r"^(\d+ \w+, )*\d+ passed.* in ", result.stdout, re.M)
    assert counts, result.stdout[-3000:] + result.stderr[-3000:]
    bad = sorted(re.findall(r"^(?:FAILED|ERROR) (\S+)", result.stdout, re.M))
    return result.returncode, sorted(re.findall(r"\d+ (?!warning)\w+", counts.group(0))), bad


@pytest.mark.soak
def test_pandas_s_own_tests(tmp_path):
    """Under the hook, and under `run --python-objects`, which has no pymalloc at all: the same results as plain."""
    pytest.importorskip("pandas", reason="pandas is missing: pip install pandas")
    pytest.importorskip("hypothesis")
    modules = os.environ.get("PANDAS_TESTS", "").split() or PANDAS_TESTS    # a broader selection, by hand
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", "-p", "no:randomly",
               "-m", "not slow and not network and not single_cpu", "--pyargs",
               *(f"pandas.tests.{module}" for module in modules)]
    hooked = Hooked(tmp_path / "site")
    proof = ("import pyalloc.preload, sysconfig, os; "
             "print(pyalloc.preload.active(), os.environ['PYTHONMALLOC'])")
    run = [sys.executable, "-m", "pyalloc", "run", "--python-objects", "--"]
    proved = subprocess.run([*run, sys.executable, "-c", proof], capture_output=True, text=True)
    assert proved.stdout == "True malloc\n"

    def results(words, env):
        return outcome(subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=1800))

    plain = results(command, plain_environment())
    assert sum(int(count.split()[0]) for count in plain[1]) > 1000
    assert results(command, hooked.environment()) == plain
    assert hooked.processes() >= 1
    assert results([*run, *command], {**plain_environment(), "PYTHONPATH": ""}) == plain
