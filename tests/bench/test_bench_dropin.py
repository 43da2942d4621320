"""The drop-in bars: arithmetic on invented figures, refusal of differing output, and the command."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyalloc._bench import allocators, catalog, dropin, dropin_kernels, runner
from pyalloc._bench.allocators import BenchError

INVENTED = {
    "a": {"pyalloc": [(1.0, 100)], "glibc": [(2.0, 100)], "mimalloc": [(1.0, 200)]},
    "b": {"pyalloc": [(8.0, 121)], "glibc": [(4.0, 100)], "mimalloc": [(2.0, 200)]},
}


def test_geometric_means_best_peer_and_worst_program():
    best, glibc, worst, rss, nothp = dropin.rows_of(INVENTED, "programs")
    assert "(mimalloc of glibc, mimalloc)" in best.clause
    assert best.summary.median == pytest.approx(2.0) and best.met == "NO"
    assert glibc.summary.median == pytest.approx(1.0)
    assert "(b)" in worst.clause and worst.summary.median == pytest.approx(8 / 3)
    assert rss.summary.median == pytest.approx(1.1)
    assert nothp.summary is None and nothp.met == "skipped"


class Round:
    """Results of invented figures: test -> allocator -> fields of each round."""

    def __init__(self, figures):
        self.results = runner.Results([catalog.Workload(name, "", {}, 1, "") for name in figures],
                                      [allocators.Allocator(one, None) for one in ("pyalloc", "glibc", "jemalloc")])
        self.results.begin_round()
        for test, by in figures.items():
            for who, sample in by.items():
                self.results.put(test, who, sample)

    def clauses(self):
        return {text: (values, bound) for text, values, bound in dropin_kernels.clauses(self.results)}


def test_clauses_of_the_kernels():
    held = {"pyalloc": {"held_kib": 30}, "glibc": {"held_kib": 40}, "jemalloc": {"held_kib": 20}}
    churn = {"pyalloc": 10.0, "glibc": 12.0, "jemalloc": 16.0}
    got = Round({
        "survivors-phase": {"pyalloc": {"rss_over_live_percent": 150}},
        "survivors-random": held,
        "churn-1t": {who: {"ns_per_op": ns} for who, ns in churn.items()},
        "churn-2t": {who: {"ns_per_op": ns} for who, ns in (("pyalloc", 6.25), ("glibc", 12.0), ("jemalloc", 8.0))},
        "locks-larson": {"pyalloc": {"shared_locks": 40, "ops": 10_000}},
        "locks-huge": {"pyalloc": {"shared_locks": 40, "ops": 10, "lock_MHEAP_taken": 30, "lock_MHEAP_hold_ns": 3000,
                                   "lock_MHEAP_hold_max_ns": 700, "lock_MCENTRAL_taken": 10,
                                   "lock_MCENTRAL_hold_ns": 200, "lock_MCENTRAL_hold_max_ns": 900}},
        "growth-256m": {"pyalloc": {"ns_per_op": 1.0, "peak_rss_kib": 3},
                        "glibc": {"ns_per_op": 2.0, "peak_rss_kib": 2}},
    }).clauses()
    assert got["5 s after a burst, the first tenth survives: RSS / live bytes"] == ([1.5], 1.3)
    assert got["the same, a random tenth of small blocks: RSS / best peer (jemalloc)"] == ([1.5], 1.05)
    values, bound = got["speed-up from one thread to two: best peer (jemalloc) / ours"]
    assert values == [pytest.approx(2.0 / 1.6)] and bound == pytest.approx(1 / 0.97)
    assert got["locks-larson: shared locks taken / 1,000 operations"] == ([4.0], 5)
    assert got["locks-huge: shared locks taken / operation"] == ([4.0], 2)
    assert got["locks-huge: a shared lock is held, mean ns"] == ([80.0], None)
    assert got["locks-huge: the longest hold, ns (preemption included)"] == ([900.0], None)
    assert got["locks-larson: a shared lock is held, mean ns"] == ([], None), "a library without these figures"
    assert got["doubling to 256 MiB: time / glibc"] == ([0.5], 1.1)
    assert got["doubling to 256 MiB: peak RSS / glibc"] == ([1.5], 1.1)


def test_a_kernel_alone(tmp_path):
    done = command("--only", "locks-huge", "--rounds", "1", "--peers", "glibc", "--json", str(tmp_path / "out"))
    assert done.returncode in (0, 1), done.stderr
    rows = json.loads((tmp_path / "out").read_text())["rows"]
    assert [row["met"] in ("yes", "NO") for row in rows] == [True, False, False], "a bar and two reports"
    for row in rows:
        assert row["clause"].startswith("locks-huge") and row["measured"]["median"] > 0
    assert [row["met"] for row in rows[1:]] == ["reported", "reported"]


def test_startup_is_judged_against_an_empty_library_and_mimalloc():
    by = {"pyalloc": [(1.1, 0)], "empty": [(1.0, 0)], "mimalloc": [(2.0, 0)], "glibc": [(0.9, 0)]}
    assert [row.met for row in dropin.startup_rows(by)] == ["NO", "yes"]


def test_differing_output_is_an_error():
    dropin.check_output("sort", "mimalloc", b"same", b"same")
    with pytest.raises(BenchError, match="sort: the output under mimalloc differs"):
        dropin.check_output("sort", "mimalloc", b"one", b"two")


def test_a_missing_program_is_a_line(monkeypatch, capsys):
    absent = dropin.Program("absent", ["no-such-program-here"], "apt-get install absent")
    monkeypatch.setattr(dropin, "programs", lambda folder: [absent])
    assert dropin.run(1, ["absent"], None) == 0
    assert "absent is not installed, skipped; to get it: apt-get install absent" in capsys.readouterr().err


def test_command(tmp_path):
    words = ["--dropin", "--only", "startup", "--rounds", "1", "--json", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-m", "pyalloc._bench", *words], capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    assert "start-up of true" in done.stdout
    got = json.loads((tmp_path / "out").read_text())
    assert len(got["rows"]) == 2 and len(got["startup"]["empty"]) == 1


def command(*words):
    return subprocess.run([sys.executable, "-m", "pyalloc._bench", "--dropin", *words], capture_output=True, text=True)


def test_json_without_a_path_goes_to_stdout(tmp_path):
    done = command("--only", "startup", "--rounds", "1", "--peers", "glibc", "--json")
    assert done.returncode in (0, 1), done.stderr
    assert sorted(json.loads(done.stdout)["startup"]) == ["empty", "glibc", "pyalloc"]


@pytest.mark.parametrize("words", [["--list"], ["--bars"], ["--quick"], ["--scale", "2"], ["--png", "x.png"]])
def test_what_does_not_apply_is_refused(words):
    done = command("--only", "startup", *words)
    assert done.returncode == 2 and "--dropin runs whole programs" in done.stderr and words[0] in done.stderr


def build_starter(tmp_path):
    source = Path(dropin.__file__).with_name("starter.c").read_text()
    return dropin.build(tmp_path, "starter", source)


def ours():
    return next(one for one in allocators.find()[0] if one.name == "pyalloc")


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1] not in ("Z", "X")
    except OSError:
        return False


def test_a_timeout_ends_the_program_too(tmp_path, monkeypatch):
    monkeypatch.setattr(dropin, "TIMEOUT_S", 1)
    pidfile = tmp_path / "pid"
    with pytest.raises(BenchError, match="did not end within 1 s"):
        dropin.start(build_starter(tmp_path), ours(), ["sh", "-c", f"echo $$ >{pidfile}; sleep 1000"], tmp_path / "out")
    pid = int(pidfile.read_text())
    end = time.monotonic() + 20
    while runs(pid):
        assert time.monotonic() < end, "it still runs"
        time.sleep(0.01)


def test_a_program_without_the_allocator_is_an_error(tmp_path):
    starter = build_starter(tmp_path)
    dropin.check_preload(starter, ours(), dropin.Program("true", ["true"], ""), tmp_path)
    still = tmp_path / "static"
    source = tmp_path / "static.c"
    source.write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-static", "-o", still, source], check=True)
    with pytest.raises(BenchError, match="static runs without it"):
        dropin.check_preload(starter, ours(), dropin.Program("static", [str(still)], ""), tmp_path)
