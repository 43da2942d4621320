"""The drop-in bars: arithmetic on invented figures, refusal of differing output, and the command."""

import json
import subprocess
import sys

import pytest

from pyalloc._bench import dropin
from pyalloc._bench.allocators import BenchError

INVENTED = {
    "a": {"pyalloc": [(1.0, 100)], "glibc": [(2.0, 100)], "mimalloc": [(1.0, 200)]},
    "b": {"pyalloc": [(8.0, 121)], "glibc": [(4.0, 100)], "mimalloc": [(2.0, 200)]},
}


def test_geometric_means_best_peer_and_worst_program():
    best, glibc, worst, rss, nothp = dropin.program_rows(INVENTED)
    assert "(mimalloc)" in best.clause and best.summary.median == pytest.approx(2.0) and best.met == "NO"
    assert glibc.summary.median == pytest.approx(1.0)
    assert "(b)" in worst.clause and worst.summary.median == pytest.approx(8 / 3)
    assert rss.summary.median == pytest.approx(1.1)
    assert nothp.summary is None and nothp.met == "skipped"


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
