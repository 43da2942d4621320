"""pyalloc_leakcheck: pytest's fixture, marker, option and ini setting, in sessions of their own; and the registry."""

import gc
import sys
import threading
import tracemalloc

import pytest

import pyalloc
from pyalloc import _core, _leakcheck

pytest_plugins = ["pytester"]


class Node(pyalloc.Struct):
    next: pyalloc.Ref
    key: pyalloc.int64


@pytest.fixture
def session(pytester):
    """Runs pytest on a file; the result."""

    def run(text, *options, ini=""):
        pytester.makeini("[pytest]\n" + ini)
        pytester.makepyfile("import gc, threading, pytest, pyalloc\n"
                            "class Node(pyalloc.Struct):\n"
                            "    next: pyalloc.Ref\n"
                            "    key: pyalloc.int64\n"
                            "kept = []\n"
                            "def make(n):\n"
                            "    return pyalloc.empty(n)\n" + text)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *options, timeout=120)

    return run


FIRST = 8   # the line on which a test's own text begins


# ---- Tests that pass


PASSING = """
def test_nothing(pyalloc_leakcheck):
    pass
def test_dropped(pyalloc_leakcheck):
    buf = make(1 << 20)
    node = Node(next=Node())
def test_freed_and_kept(pyalloc_leakcheck):
    buf = make(100)
    buf.free()
    kept.append(buf)
def test_cycles_of_both_kinds(pyalloc_leakcheck):
    node = Node(next=Node())
    node.next.next = node
    cycle = [node, make(5)]
    cycle.append(cycle)
@pytest.fixture
def buf():
    return make(10)
def test_a_fixture_s_value(buf, pyalloc_leakcheck):
    assert buf
@pytest.fixture(scope="module")
def wide():
    return [make(20), Node()]
def test_a_wider_fixture_is_not_the_test_s(pyalloc_leakcheck, wide):
    assert wide
class TestClass:
    def test_attributes(self, pyalloc_leakcheck):
        self.buf = make(30)
import unittest
class TestCase(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def checked(self, pyalloc_leakcheck):
        pass
    def test_attributes(self):
        self.buf = make(30)
def test_a_thread_that_ended(pyalloc_leakcheck):
    thread = threading.Thread(target=lambda: Node(next=Node(), key=len(make(5))))
    thread.start()
    thread.join()
def test_older_than_the_test():
    kept.append(make(40))
def test_after_it(pyalloc_leakcheck):
    assert len(kept) == 2
"""


def test_passing(session):
    result = session(PASSING)
    result.assert_outcomes(passed=11)


# ---- Tests that fail


def lines_after(result, what):
    """What the last report that has a line with what says behind it."""
    lines = [line.strip() for line in result.outlines]
    start = max(i for i, line in enumerate(lines) if what in line)
    stop = next((i for i in range(start + 1, len(lines)) if " x " in lines[i] or set(lines[i]) & {"=", "_"} == {"="}),
                len(lines))
    return lines[start + 1:stop]


def test_a_buffer_names_its_site(session):
    result = session("def test_a(pyalloc_leakcheck):\n    kept.append(make(1 << 20))\n")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_a*", "what outlives the test: 1 Buffer (1 MiB in all):"])
    assert lines_after(result, "1 x Buffer, 1 MiB, made at")[:2] == [
        "test_a_buffer_names_its_site.py:7 in make", "test_a_buffer_names_its_site.py:9 in test_a"]


def test_objects_name_their_root(session):
    result = session("def build():\n"
                     "    return Node(next=Node(next=Node()))\n"
                     "def test_a(pyalloc_leakcheck):\n"
                     "    first = build()\n"
                     "    kept.append(first.next)\n")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["what outlives the test: 2 managed objects (32 B in all):"])
    found = lines_after(result, "2 x Node, 32 B, made at")
    name = "test_objects_name_their_root.py"
    assert found[:4] == [f"{name}:{FIRST + 1} in build", f"{name}:{FIRST + 3} in test_a", "kept by a reference made at",
                         f"{name}:{FIRST + 4} in test_a"]


def test_a_root_that_is_older(session):
    text = ("old = Node()\n"
            "def test_a(pyalloc_leakcheck):\n"
            "    old.next = Node()\n")
    result = session(text)
    result.assert_outcomes(passed=1, errors=1)
    assert "kept by a reference that is older than the check, or by C code" in lines_after(result, "1 x Node")
    text = ("def test_before():\n"
            "    kept.append(Node())\n"
            "def test_a():\n"
            "    kept[0].next = Node()\n")
    result = session(text, "--pyalloc-leakcheck")
    result.assert_outcomes(passed=2, errors=2)
    found = lines_after(result, "1 x Node, 16 B, made at")
    assert f"test_a_root_that_is_older.py:{FIRST + 1} in test_before" in found


def test_other_kinds(session):
    result = session("def test_a(pyalloc_leakcheck):\n"
                     "    array = pyalloc.ref_array(10)\n"
                     "    array[3] = Node()\n"
                     "    kept.append(array)\n"
                     "    kept.append(pyalloc.managed_bytes(5000))\n"
                     "    kept.append(memoryview(pyalloc.alloc(70)))\n")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["what outlives the test: 1 Buffer and 3 managed objects (*"])
    # With CI set, pytest says all of it once more in its summary.
    summary = next(i for i, line in enumerate(result.outlines) if "short test summary" in line)
    assert [sum(f"1 x {kind}," in line for line in result.outlines[:summary]) for kind in
            ("RefArray", "Node", "ManagedBytes", "Buffer")] == [1, 1, 1, 1]


def test_threads_count(session):
    result = session("def test_a(pyalloc_leakcheck):\n"
                     "    def work():\n"
                     "        kept.append(make(9))\n"
                     "    thread = threading.Thread(target=work)\n"
                     "    thread.start()\n"
                     "    thread.join()\n")
    result.assert_outcomes(passed=1, errors=1)
    assert f"test_threads_count.py:{FIRST + 2} in work" in lines_after(result, "1 x Buffer")


def test_a_fixture_s_leak_is_the_test_s(session):
    result = session("@pytest.fixture\n"
                     "def leaking():\n"
                     "    kept.append(make(9))\n"
                     "def test_a(leaking, pyalloc_leakcheck):\n"
                     "    pass\n")
    result.assert_outcomes(passed=1, errors=1)


def test_a_failing_test_is_not_judged(session):
    result = session("def test_a(pyalloc_leakcheck):\n    kept.append(make(5))\n    assert 0\n"
                     "def test_b(pyalloc_leakcheck):\n    buf = make(5)\n    pytest.skip('no')\n"
                     "@pytest.mark.xfail\n"
                     "def test_c(pyalloc_leakcheck):\n    buf = make(5)\n    assert 0\n"
                     "def test_d(pyalloc_leakcheck):\n    pass\n"
                     "@pytest.fixture\n"
                     "def broken():\n    yield\n    buf = make(5)\n    raise ValueError\n"
                     "def test_e(pyalloc_leakcheck, broken):\n    pass\n")
    result.assert_outcomes(failed=1, skipped=1, xfailed=1, passed=2, errors=1)
    assert "what outlives" not in result.stdout.str()


# ---- Which tests, and what is allowed


def test_option_marker_and_ini(session):
    text = ("def test_a():\n    kept.append(make(5))\n"
            "@pytest.mark.pyalloc_leakcheck\n"
            "def test_b():\n    kept.append(make(5))\n"
            "@pytest.mark.pyalloc_leakcheck(enabled=False)\n"
            "def test_c():\n    kept.append(make(5))\n"
            "@pytest.mark.parametrize('n', [1, pytest.param(2, marks=pytest.mark.pyalloc_leakcheck), 3])\n"
            "def test_d(n):\n    kept.append(make(n))\n")
    session(text).assert_outcomes(passed=6, errors=2)
    session(text, "--pyalloc-leakcheck").assert_outcomes(passed=6, errors=5)
    session(text, ini="pyalloc_leakcheck = true\n").assert_outcomes(passed=6, errors=5)
    session(text, "--strict-markers", "--pyalloc-leakcheck", "-n2").assert_outcomes(passed=6, errors=5)


def test_allow(session):
    text = ("@pytest.mark.pyalloc_leakcheck(allow='in make')\n"
            "def test_a():\n    kept.append(make(5))\n"
            "@pytest.mark.pyalloc_leakcheck(allow=['Node', 'nowhere'])\n"
            "def test_b():\n    kept.append(Node())\n"
            "@pytest.mark.pyalloc_leakcheck(allow='*.py:7 in ma*')\n"
            "def test_c():\n    kept.append(make(5))\n    kept.append(Node())\n"
            "def test_d(pyalloc_leakcheck):\n"
            "    kept.append(make(5))\n"
            "    (one,) = pyalloc_leakcheck.survivors()\n"
            "    assert one.nbytes == 5\n"
            "    pyalloc_leakcheck.allow(one.site[0])\n"
            "    assert pyalloc_leakcheck.survivors() == []\n"
            "def test_e(pyalloc_leakcheck):\n    kept.append(make(5))\n")
    result = session(text)
    result.assert_outcomes(passed=5, errors=2)
    result.stdout.fnmatch_lines(["what outlives the test: 1 managed object (16 B in all):"])
    text = "def test_a(pyalloc_leakcheck):\n    kept.append(make(5))\n    kept.append(Node())\n"
    session(text, ini="pyalloc_leakcheck_allow =\n    in make\n    Node\n").assert_outcomes(passed=1)


def test_a_wrong_marker_says_so(session):
    result = session("@pytest.mark.pyalloc_leakcheck(alow='x')\ndef test_a():\n    pass\n")
    assert result.ret != 0 and "pyalloc_leakcheck" in result.stderr.str() + result.stdout.str()
    assert "alow" in result.stderr.str() + result.stdout.str()


def test_the_plugin_alone_imports_nothing(pytester, run_python):
    pytester.makepyfile("import sys\ndef test_a(request):\n    assert 'pytest_pyalloc' in sys.modules\n"
                        "    assert 'pyalloc' not in sys.modules\n")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    pytester.makepyfile("import sys\ndef test_a(pyalloc_leakcheck):\n    assert 'pyalloc' in sys.modules\n")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


# ---- The registry


@pytest.fixture
def check():
    with _leakcheck.LeakCheck() as one:
        yield one


def test_it_is_off_unless_asked():
    kept = [pyalloc.empty(5), Node()]
    assert _core.sites_rows(0) == []
    with _leakcheck.LeakCheck(), _leakcheck.LeakCheck() as inner:
        kept.append(pyalloc.empty(5))
        assert len(inner.survivors()) == 1
        inner.close()
        inner.close()
        assert len(_core.sites_rows(0)) == 1
        with pytest.raises(ValueError, match="closed"):
            inner.survivors()
    assert _core.sites_rows(0) == [] and _core.sites_note(False) is False


def test_the_dead_are_weeded_out(check):
    tracemalloc.start()
    try:
        for _ in range(20):
            for _ in range(2000):
                pyalloc.empty(8)
                Node()
        pyalloc.collect()
        for _ in range(2000):
            pyalloc.empty(8)
        kept = len(_core.sites_rows(0))
        assert tracemalloc.get_traced_memory()[1] < 30 * 2**20
    finally:
        tracemalloc.stop()
    assert kept <= 80000 and _core.sites_mark()[0] >= 80000 and check.survivors() == []


def test_a_hundred_thousand_survivors(check):
    kept = [Node() for _ in range(100_000)]
    found = check.survivors()
    assert len(found) == len(kept) and len({one.site for one in found}) == 1
    assert _leakcheck.describe(found).splitlines()[1].startswith("  100000 x Node, 1.526 MiB")


def test_threads_note_while_another_lists(check):
    stop = threading.Event()
    failures = []

    def churn():
        try:
            while not stop.is_set():
                kept = [Node(next=Node()) for _ in range(50)] + [pyalloc.empty(10) for _ in range(50)]
                assert all(kept[i].next is not None for i in range(50))
        except Exception as error:
            failures.append(error)

    workers = [threading.Thread(target=churn) for _ in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for one in workers:
            one.start()
        for _ in range(30):
            for kind, thing, frames in _core.sites_rows(0):
                assert kind in (0, 1, 2) and thing is not None and "churn" in {code.co_name for code, _ in frames}
            thing = None
            pyalloc.collect()
    finally:
        stop.set()
        for one in workers:
            one.join()
        sys.setswitchinterval(interval)
    assert not failures and check.survivors() == []
    pyalloc.heap_check()


def test_code_that_runs_while_noting_may_make_more(check):
    """CPython's collector runs in the middle of a note, and what it calls makes Buffers."""
    made = []

    class Noisy:
        def __init__(self):
            self.me = self

        def __del__(self):
            made.append(pyalloc.empty(3))

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        kept = []
        for _ in range(500):
            Noisy()
            kept.append(pyalloc.empty(4))
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert sorted(one.nbytes for one in check.survivors()) == [3] * len(made) + [4] * 500 and len(made) == 500


def test_deep_chains_of_frames_are_cut(check):
    def down(n):
        return down(n - 1) if n else pyalloc.empty(1)

    kept = down(50)
    ((_, _, frames),) = _core.sites_rows(0)
    assert kept and len(frames) == 8 and {code.co_name for code, _ in frames} == {"down"}


def test_long_lists_do_not_recurse(check):
    head = None
    for _ in range(50_000):
        head = Node(next=head)
    found = check.survivors()
    assert len(found) == 50_000 and all(one.root for one in found)


def test_reports_are_short(check):
    source = "\n".join(f"def f{n}(): return pyalloc.empty({n})" for n in range(30))
    space = {"pyalloc": pyalloc}
    exec(compile(source, "many.py", "exec"), space)
    kept = [space[f"f{n}"]() for n in range(30)]
    text = check.report()
    assert len(kept) == 30 and text.endswith("  and 10 places more") and "many.py:30 in f29" in text


def test_arguments_of_the_registry():
    for bad in (-1, "x", 1.5):
        with pytest.raises((TypeError, OverflowError)):
            _core.sites_rows(bad)
    with pytest.raises(KeyError):
        _core.sites_quietly(lambda: {}["x"])
