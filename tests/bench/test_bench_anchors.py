"""The anchors: the runner with next to no work gives sane figures, and its arithmetic is right."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ANCHORS = ROOT / "bench" / "anchors"
NAMES = ("catalog", "gctrace", "programs", "run")
TINY = ["--scale", "0.0005", "--rounds", "1", "--timeout", "120"]
TESTS = "trees,full-random-2,full-alloc-1,mutate-5m,churn-5m,alloc-bytes-16,alloc-pointers-64"
FIGURES = {
    "trees": {"nodes", "wall_s", "cpu_s", "cycles", "stops", "stop_p99_us", "stop_max_us"},
    "full": {"ns_per_object", "cpu_ns_per_object", "ms", "ms_min", "whole", "cycles"},
    "mutate": {"mops", "op_p50_ns", "op_p99_ns", "op_p999_ns", "op_max_us", "stop_p99_us", "stop_max_us", "whole"},
    "alloc": {"ns_alloc", "cpu_ns_alloc", "cycles"},
}


def load(path):
    """A module of bench/, which is no package; its neighbours must not stay importable by their plain names."""
    kept = {name: sys.modules.pop(name) for name in NAMES if name in sys.modules}
    before = list(sys.path)
    sys.path.insert(0, str(ANCHORS))
    try:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path[:] = before
        for name in NAMES:
            sys.modules.pop(name, None)
        sys.modules.update(kept)


@pytest.fixture(scope="module")
def run():
    return load(ANCHORS / "run.py")


@pytest.fixture(scope="module")
def generations():
    return load(ROOT / "bench" / "generations.py")


@pytest.fixture(scope="module")
def gctrace():
    return load(ANCHORS / "gctrace.py")


def built(run, collector, tmp_path):
    found, missing = run.programs.build_all(tmp_path, None, [collector])
    return found.get(collector), missing.get(collector)


@pytest.mark.parametrize("collector", ["pyalloc", "go", "boehm"])
def test_each_collector_runs_small(run, tmp_path, collector):
    """A peer may be absent, pyalloc's own programs must build and run."""
    found, why = built(run, collector, tmp_path)
    if found is None and collector != "pyalloc":
        pytest.skip(why)
    assert found is not None, why
    target = tmp_path / "out.json"
    words = ["--collectors", collector, "--only", TESTS, "--json", str(target), *TINY]
    done = subprocess.run([sys.executable, str(ANCHORS / "run.py"), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    value = json.loads(target.read_text())
    assert set(value["collectors"]) == {collector} and value["machine"]["processors"] >= 1
    assert set(value["tests"]) == set(TESTS.split(","))
    for name, test in value["tests"].items():
        (sample,) = test["samples"][collector]
        assert FIGURES[sample["program"]] <= set(sample), name
        assert sample["collector"] == collector
        assert 0.5 < sample["peak_rss_mib"] < 500
        if sample["program"] == "trees":
            assert sample["nodes"] == expected_nodes(test["arguments"]["depth"])
        if sample["program"] in ("full", "mutate"):
            assert sample["whole"] is True and sample["n"] == test["arguments"]["n"]
        if sample["program"] == "full":
            assert sample["cycles"] >= 3 and 0 < sample["ms_min"] <= sample["ms"] < 10_000
        if sample["program"] == "mutate":
            assert 0 < sample["op_p50_ns"] <= sample["op_p99_ns"] <= sample["op_p999_ns"] <= 1e3 * sample["op_max_us"]
            assert 0 < sample["mops"] < 1000
        if sample["program"] == "alloc":
            assert 0.5 < sample["ns_alloc"] < 100_000
    assert all(set(bar) >= {"bar", "text", "bound", "status", "measured"} for bar in value["bars"])
    assert "peak_rss_mib" in done.stdout


def expected_nodes(depth):
    """Nodes counted by binary-trees: the stretch tree, the lasting one, and those of each depth."""
    nodes = (2 ** (depth + 2) - 1) + (2 ** (depth + 1) - 1)
    return nodes + sum(2 ** (depth - d + 4) * (2 ** (d + 1) - 1) for d in range(4, depth + 1, 2))


def test_pyalloc_while_marking(run, tmp_path):
    found, why = built(run, "pyalloc", tmp_path)
    assert found is not None, why
    (test,) = [one for one in run.catalog.tests() if one.name == "marking-bytes-16"]
    sample = run.programs.measure(found, test, 0.05, 120)
    assert sample["batches_outside"] > 0 and sample["ns_outside"] > 0


@pytest.mark.parametrize("mode", ["serial", "parallel", "concurrent-1.5", "concurrent-1.6", "concurrent"])
def test_generations_run_small(tmp_path, mode):
    target = tmp_path / "out.json"
    command = [sys.executable, str(ROOT / "bench" / "generations.py"), "--live", "1", "--modes", mode, "--cycles", "2"]
    done = subprocess.run([*command, "--json", str(target), "--timeout", "120"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(target.read_text())["rows"]
    assert row["mode"] == mode and row["stops"] >= 2
    assert 0 < row["stop_median_ms"] <= row["stop_max_ms"] < 1000
    assert 0 <= row["utilisation_10_ms"] <= row["utilisation_100_ms"] + 1e-9
    assert 0 < row["utilisation"] <= 1 and row["cycle_ms"] > 0


# ---- The same in all languages


@pytest.mark.parametrize("program", sorted(FIGURES))
def test_the_three_sides_print_the_same(program):
    sides = [(ANCHORS / f"{side}_{program}.c").read_text() for side in ("pa", "boehm")]
    sides.append("".join(path.read_text() for path in sorted((ANCHORS / "go").glob("*.go"))))
    pa, boehm, go = (set(re.findall(r'"(\w+)\\?": \\?"?%', text)) & FIGURES[program] for text in sides)
    assert boehm and boehm == pa and boehm <= go


def test_the_linked_objects_are_as_many():
    (c,) = re.findall(r"LINKED = (\d+)", (ANCHORS / "pa_heap.h").read_text())
    assert re.findall(r"LINKED = (\d+)", (ANCHORS / "boehm_heap.h").read_text()) == [c]
    assert re.findall(r"const linked = (\d+)", (ANCHORS / "go" / "heap.go").read_text()) == [c]


# ---- Arithmetic

END = "0 MB stacks, 0 MB globals, 2 P"
REAL = f"""\
gc 1 @0.310s 13%: 0.014+350+0.021 ms clock, 0.029+0/181/519+0.042 ms cpu, 157->157->152 MB, 157 MB goal, {END} (forced)
gc 2 @0.885s 35%: 0.075+419+0.004 ms clock, 0.15+527/211/0+0.009 ms cpu, 301->319->170 MB, 305 MB goal, {END}
scav 4 KiB work (bg), 0 KiB work (eager), 300 KiB now, 90% util
gc 3 @1.477s 40%: 0.043+456+0.044 ms clock, 0.086+413/245/0+0.088 ms cpu, 290->339->200 MB, 340 MB goal, {END}
"""


def test_gctrace_lines(gctrace):
    cycles = gctrace.parse(REAL.splitlines())
    assert [one.number for one in cycles] == [1, 2, 3]
    assert [one.forced for one in cycles] == [True, False, False]
    second = cycles[1]
    assert (second.started_s, second.mark_ms, second.assist_ms, second.background_ms) == (0.885, 419, 527, 211)
    assert (second.heap_started_mb, second.heap_marked_mb, second.live_mb, second.goal_mb) == (301, 319, 170, 305)
    assert second.processors == 2 and second.total_ms == pytest.approx(419.079)


def test_shares_of_the_processors(gctrace):
    found = gctrace.shares(gctrace.parse(REAL.splitlines()))
    assert found["background_share"] == pytest.approx((211 + 245) / (2 * (419 + 456)))
    assert found["marking_share"] == pytest.approx((211 + 245 + 527 + 413) / (2 * (419 + 456)))
    assert found["idle_share"] == 0
    assert found["total_share"] == pytest.approx((527 + 211) / (2 * 592))
    assert found["peak_over_goal"] == pytest.approx(319 / 305)
    assert set(gctrace.shares([]).values()) == {None, 0}


def test_cycles_between_marks(gctrace):
    lines = REAL.splitlines()
    marked = ["mutate begins @0.300s", lines[0], lines[1], "mutate ends @1.600s", lines[3]]
    inside, after = gctrace.split(marked, "mutate begins", "mutate ends")
    assert [one.number for one in inside] == [1, 2] and after == 1.477
    assert gctrace.shares(inside, after)["total_share"] == pytest.approx((527 + 211) / (2 * 592))
    marked[0], marked[3] = "mutate begins @0.500s", "mutate ends @1.400s"
    inside, after = gctrace.split(marked, "mutate begins", "mutate ends")
    assert [one.number for one in inside] == [2] and after is None
    assert gctrace.shares(inside, after)["total_share"] is None
    assert gctrace.split(lines, "mutate begins", "mutate ends") == ([], None)


def test_utilisation(generations):
    ms = 1_000_000
    stops = [(10 * ms, 14 * ms), (17 * ms, 18 * ms)]
    assert generations.utilisation(stops, 0, 100 * ms) == pytest.approx(0.95)
    assert generations.worst_utilisation(stops, 0, 100 * ms, 4 * ms) == 0
    assert generations.worst_utilisation(stops, 0, 100 * ms, 8 * ms) == pytest.approx(3 / 8)
    assert generations.worst_utilisation(stops, 0, 100 * ms, 10 * ms) == pytest.approx(0.5)
    assert generations.worst_utilisation(stops, 0, 100 * ms, 200 * ms) == pytest.approx(0.95)
    assert generations.worst_utilisation([], 0, 100 * ms, 10 * ms) == 1


def test_every_bar_names_a_test_and_a_figure(run):
    tests = {test.name: test for test in run.catalog.tests()}
    for clause in run.catalog.clauses():
        test = tests[clause.test]
        assert clause.figure in (*test.figures, "peak_rss_mib")
        assert "pyalloc" in test.collectors and (not clause.against or clause.against in test.collectors)
        assert not clause.against_test or clause.against_test in tests
    assert {clause.bar for clause in run.catalog.clauses()} == {1, 2, 3, 4, 5}


def test_verdicts(run):
    clauses = {clause.text: clause for clause in run.catalog.clauses()}
    samples = {"full-random-1": {"pyalloc": [{"ns_per_object": 30.0}, {"ns_per_object": 36.0}, None]},
               "full-random-2": {"pyalloc": [{"ns_per_object": 20.0}, {"ns_per_object": 20.0}, None], "go": [None] * 3}}
    assert run.judge(samples, clauses["... ns an object, 1 worker"]).status == run.MET
    speedup = run.judge(samples, clauses["... 1 worker / 2 workers"])
    assert speedup.status == run.MET and speedup.measured.median == pytest.approx(1.65)
    assert run.judge(samples, clauses["full collection, random, 2 workers"]).status == run.SKIPPED


def test_scaled_work(run):
    tests = {test.name: test for test in run.catalog.tests()}
    assert tests["trees"].scaled(1)["depth"] == 18 and tests["trees"].scaled(0.25)["depth"] == 16
    assert tests["full-random-2"].scaled(0.5)["n"] == 10_000_000
    assert tests["mutate-20m"].scaled(0.001)["seconds"] == 0.2


@pytest.mark.parametrize("words", [["--only", "nonsense"], ["--collectors", "nonsense"], ["--lib", "/nonexistent.so",
                                   "--collectors", "pyalloc"]])
def test_one_line_for_what_the_caller_can_mend(words):
    done = subprocess.run([sys.executable, str(ANCHORS / "run.py"), *words], capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("anchors: ")


def test_latency_runs_small():
    """It runs small, and has a row for each control and for pyalloc."""
    words = ["--no-go", "--n", "2000", "--seconds", "0.3", "--rounds", "1"]
    out = subprocess.run([sys.executable, str(ANCHORS / "latency.py"), *words], capture_output=True, text=True,
                         timeout=120, check=True).stdout
    assert all(re.search(rf"{name}\s+[\d.,]+", out) for name in ("two threads", r"\+ helper", "GOGC=off", "pyalloc"))


def test_what_long_operations_are_made_of(run, tmp_path):
    """On one processor two threads that compute wait for each other, and their books say so."""
    source, target = ANCHORS / "machine.c", tmp_path / "machine"
    subprocess.run([*run.programs.compiler(), *run.programs.C_FLAGS, source, "-o", target, "-lm"], check=True)
    one = {min(os.sched_getaffinity(0))}
    done = subprocess.run([target, "threads=2", "seconds=1"], capture_output=True, text=True, timeout=60, check=True,
                          preexec_fn=lambda: os.sched_setaffinity(0, one))
    found = json.loads(done.stdout)
    assert found["long_ops"] >= 10 and found["long_waited_ms"] > 0.3 * found["long_ms"]
    assert 0.8 * found["long_ms"] <= found["long_waited_ms"] + found["long_stolen_ms"] <= 1.05 * found["long_ms"]
    assert found["long_cpu_ms"] < 0.2 * found["long_ms"] and found["own_max_us"] < found["op_max_us"]
