"""Rounds, rotation, deadlines, failures, verdicts: everything but the measuring itself."""

import sys
from contextlib import ExitStack

import pytest

from pyalloc._bench import allocators, bars, catalog, report, runner
from pyalloc._bench.allocators import OURS, Allocator, BenchError

ALLOCATORS = [
    Allocator(OURS, "/x/libpyalloc.so"),
    Allocator("glibc", None),
    Allocator("mimalloc", "/x/libmi.so"),
]
SPEED = {OURS: 1.0, "glibc": 2.0, "mimalloc": 0.5}


def jobs(*names):
    return [runner.Job(test, test.arguments()) for test in catalog.by_name(names)]


class Machine:
    """A machine whose speed drifts with every measurement; one second a measurement."""

    def __init__(self):
        self.now, self.order = -1.0, []

    def measure(self, program, arguments, allocator):
        self.now += 1
        self.order.append((arguments[0], allocator.name))
        drift = 10 ** (self.now // 3)  # changes between turns, not within one
        return {
            "ns_per_op": SPEED[allocator.name] * drift,
            "peak_rss_kib": 1000 * SPEED[allocator.name],
            "minor_faults": 0,
        }

    def run(self, names, **options):
        return runner.run_rounds(
            None, jobs(*names), ALLOCATORS, clock=lambda: self.now, measure_one=self.measure, **options
        )


def test_allocators_take_turns_and_rotate():
    machine = Machine()
    machine.run(["pair-16", "larson"], rounds=3)
    turns = [machine.order[i : i + 3] for i in range(0, 18, 3)]
    assert [turn[0][0] for turn in turns] == ["pair", "larson"] * 3
    assert all(
        {name for _, name in turn} == set(SPEED) and len({kernel for kernel, _ in turn}) == 1
        for turn in turns
    )
    first = [turn[0][1] for turn in turns]
    assert first == [OURS, "glibc", "glibc", "mimalloc", "mimalloc", OURS]


def test_paired_ratios_survive_drift():
    machine = Machine()
    results = machine.run(["pair-16", "larson"], rounds=3)
    assert results.ratio("larson", "glibc", "ns_per_op").median == pytest.approx(0.5)
    assert results.geometric_mean("mimalloc", "ns_per_op") == pytest.approx(2)
    assert results.geometric_mean("mimalloc", "ns_per_op", catalog.TRACES) is None
    assert report.headlines(results)[0] == "pyalloc vs glibc: time 0.50x, RSS 0.50x (2 tests)"


def test_deadline_ends_after_a_complete_turn_but_not_in_the_first_round():
    results = Machine().run(["pair-16", "pair-64", "pair-256"], rounds=9, deadline=0.0)
    assert results.rounds == 1 and all(
        results.summary(t.name, OURS, "ns_per_op").n == 1 for t in results.tests
    )
    results = Machine().run(["pair-16", "pair-64", "pair-256"], rounds=9, deadline=9.0)
    assert results.rounds == 2
    counts = [[results.summary(t.name, a.name, "ns_per_op").n for a in ALLOCATORS] for t in results.tests]
    assert counts == [[2, 2, 2], [1, 1, 1], [1, 1, 1]]
    assert len(results.ratios("pair-16", "glibc", "ns_per_op")) == 2


def test_json_has_samples_and_ratios():
    (row,) = runner.as_json(Machine().run(["pair-16"], rounds=2))
    assert row["name"] == "pair-16" and row["group"] == "kernels"
    assert set(row["samples"]) == set(SPEED) and len(row["samples"][OURS]) == 2
    assert set(row["ratios"]) == {"glibc", "mimalloc"}
    assert set(row["ratios"]["glibc"]["time"]) == {"median", "q1", "q3", "iqr", "n"}


def test_selection():
    tests = catalog.all_tests()
    assert len({test.name for test in tests}) == len(tests)
    assert [t.name for t in catalog.select(tests, ["pair-6*"])] == ["pair-64", "pair-64k"]
    assert {t.group for t in catalog.select(tests, ["trace"])} == {catalog.TRACES}
    with pytest.raises(BenchError, match="nosuch"):
        catalog.select(tests, ["pair", "nosuch"])
    assert [a.name for a in allocators.select(ALLOCATORS, "glibc")] == [OURS, "glibc"]
    with pytest.raises(BenchError, match="other.*found: glibc"):
        allocators.select(ALLOCATORS, "glibc,other")


def test_peers_from_the_environment(monkeypatch, tmp_path):
    library = tmp_path / "libmine.so"
    library.write_bytes(b"")
    monkeypatch.setenv("PYALLOC_BENCH_LIB", str(library))
    monkeypatch.setenv("PYALLOC_BENCH_PEERS", f"mine={library},mimalloc={library}")
    found, missing = allocators.find()
    by_name = {one.name: one for one in found}
    assert list(by_name)[:2] == [OURS, "glibc"] and by_name["mine"].library == str(library)
    assert by_name["mimalloc-nothp"].env == {"MIMALLOC_ALLOW_THP": "0"} and "mimalloc" not in missing
    monkeypatch.setenv("PYALLOC_BENCH_PEERS", "mine=/nowhere.so")
    with pytest.raises(BenchError, match="NAME=PATH"):
        allocators.find()
    monkeypatch.setenv("PYALLOC_BENCH_LIB", "/nowhere/lib.so")
    with pytest.raises(BenchError, match="build the package"):
        allocators.find()


def test_absent_peers_come_with_a_hint(monkeypatch, tmp_path):
    library = tmp_path / "lib.so"
    library.write_bytes(b"")
    monkeypatch.setenv("PYALLOC_BENCH_LIB", str(library))
    monkeypatch.delenv("PYALLOC_BENCH_PEERS", raising=False)
    monkeypatch.setattr(allocators, "_candidates", lambda soname, cache: [])
    found, missing = allocators.find()
    assert [one.name for one in found] == [OURS, "glibc"]
    assert missing["jemalloc"] == "apt-get install libjemalloc2" and set(missing) == {
        "jemalloc",
        "tcmalloc",
        "mimalloc",
    }


def test_failures_name_allocator_and_cause(tmp_path, kernels):
    script = tmp_path / "kernels"
    script.write_text("#!/bin/sh\necho something broke >&2\nexit 9\n")
    script.chmod(0o755)
    glibc = ALLOCATORS[1]
    with pytest.raises(BenchError, match="glibc: kernels pair failed with exit code 9: something broke"):
        runner.measure(script, ["pair"], glibc)
    script.write_text("#!/bin/sh\nkill -SEGV $$\n")
    with pytest.raises(BenchError, match="signal 11"):
        runner.measure(script, ["pair"], glibc)
    script.write_text("#!/bin/sh\necho hello\n")
    with pytest.raises(BenchError, match="printed no JSON"):
        runner.measure(script, ["pair"], glibc)
    with pytest.raises(BenchError, match="cannot start"):
        runner.measure(tmp_path / "absent", ["pair"], glibc)
    with pytest.raises(BenchError, match="did not take effect"):
        runner.measure(kernels, ["pair", "--ops", "1"], Allocator("ghost", "/nowhere/libghost.so"))


def test_processor_time(kernels):
    sample = runner.measure_cpu(kernels, ["pair", "--ops", "200000"], ALLOCATORS[1])
    assert sample["ns_per_op"] == sample["cpu_ns_per_op"] > 0
    # one thread cannot use more processor time than passes; clocks tick apart by less than this
    assert sample["ns_per_op"] <= sample["wall_ns_per_op"] * 1.2


def test_missing_executable(monkeypatch, tmp_path):
    monkeypatch.setenv("PYALLOC_BENCH_KERNELS", str(tmp_path / "kernels"))
    with pytest.raises(BenchError, match="build the package"):
        runner.kernels_path()
    monkeypatch.setenv("PYALLOC_BENCH_KERNELS", sys.executable)
    assert str(runner.kernels_path()) == sys.executable


def test_damaged_trace_is_an_error(kernels, tmp_path):
    path = tmp_path / "bad.patrace.xz"
    path.write_bytes(b"?")
    test = catalog.Workload("trace-bad", "replay", {}, 10, "", path)
    with ExitStack() as stack, pytest.raises(BenchError, match="trace-bad"):
        runner.prepare(stack, kernels, [test], 1.0)


def test_every_clause_names_tests_that_are_run():
    names = [test.name for test in bars.tests()]
    assert len(set(names)) == len(names)
    for clause in bars.clauses():
        assert set(clause.tests) <= set(names), clause
    assert {clause.bar for clause in bars.clauses()} == {1, 2, 3, 4}


def fixed_results(samples):
    names = sorted({test for test, _ in samples})
    tests = [test for test in bars.tests() if test.name in names]
    results = runner.Results(tests, ALLOCATORS)
    for at in range(bars.ROUNDS):
        results.begin_round()
        for (test, allocator), make in samples.items():
            results.put(test, allocator, make(at))
    return results


@pytest.mark.parametrize("ours, status", [(69, bars.PASS), (70, bars.PASS), (71, bars.FAIL)])
def test_verdict_is_on_the_median_of_paired_ratios(ours, status):
    noise = [1, 50, 1, 1, 1, 1, 1, 1, 1]  # one disturbed round, for both
    results = fixed_results(
        {
            ("pair-64", OURS): lambda at: {"ns_per_op": ours * noise[at]},
            ("pair-64", "glibc"): lambda at: {"ns_per_op": 100 * noise[at]},
            ("pair-64", "mimalloc"): lambda at: {"ns_per_op": 1000},
        }
    )
    clause = bars.Clause(1, "x", ("pair-64",), "time", 0.70, ("glibc",))
    verdict = bars.judge(results, clause)
    assert (verdict.status, verdict.against, verdict.summary.n) == (status, "glibc", 9)
    assert verdict.summary.median == pytest.approx(ours / 100)
    best = bars.judge(results, clause._replace(peers=()))
    assert best.against == "glibc"
    absent = bars.judge(results, clause._replace(peers=("mimalloc", "tcmalloc")))
    assert absent.status == bars.SKIPPED and absent.summary is None


def test_verdicts_without_a_peer():
    own = {"minor_faults": 0, "rss_start_kib": 1000, "rss_released_kib": 5000}
    results = fixed_results({("large-mixed", OURS): lambda at: own})
    faults, kept = [c for c in bars.clauses() if c.tests == ("large-mixed",) and c.field not in runner.FIELDS]
    assert bars.judge(results, faults).status == bars.PASS
    verdict = bars.judge(results, kept)
    assert verdict.status == bars.FAIL and verdict.summary.median == 4000
    own["minor_faults"] = 1
    assert bars.judge(results, faults).status == bars.FAIL
    del own["rss_released_kib"]
    assert bars.judge(results, kept).status == bars.SKIPPED


def test_plain_tables(capsys):
    report.print_results(Machine().run(["pair-16", "larson"], rounds=2))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("pyalloc vs glibc: time 0.")
    assert any(line.startswith("pair-16 ") and line.split()[2] == "0.50" for line in lines)
    assert any(line.startswith("geometric mean, all tests") for line in lines)


def test_rich_tables(monkeypatch, capsys):
    pytest.importorskip("rich")
    monkeypatch.setattr(report, "use_rich", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "120")
    report.print_results(Machine().run(["pair-16"], rounds=2))
    assert "/ mimalloc" in capsys.readouterr().out


def test_chart(tmp_path):
    pytest.importorskip("matplotlib")
    from pyalloc._bench import chart

    results = Machine().run(["pair-16", "larson"], rounds=3)
    chart.write(str(tmp_path / "x.png"), results, "test")
    assert (tmp_path / "x.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(BenchError, match="cannot write"):
        chart.write(str(tmp_path / "no" / "x.png"), results, "test")
