"""bench/numpy_pipeline.py at a small scale: it runs, says what it should, and the steady state has no page faults."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numpy")

PROGRAM = Path(__file__).resolve().parents[2] / "bench" / "numpy_pipeline.py"


def run(*options):
    return subprocess.run([sys.executable, str(PROGRAM), *options], capture_output=True, text=True, timeout=300)


def test_figures():
    done = run("--rows", "1 MiB,columns", "--rounds", "1", "--seconds", "0.3", "--rss-rounds", "1", "--cpu-time",
               "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["clock"] == "cpu" and set(report["rows"]) == {"1 MiB", "columns"}
    for row in report["rows"].values():
        ours, default = row["pyalloc"], row["default"]
        assert ours["ns"] > 0 and default["faults"] > 100
        assert ours["faults"] < 0.05 * default["faults"]
        assert default["ratio"] == pytest.approx(ours["ns"] / default["ns"])
        floor = row["no allocation"]
        assert floor["faults"] < 0.05 * default["faults"] and floor["ratio"] > 0.5 and "bar" not in floor
        if "mimalloc" in row:       # the library need not be there
            assert row["mimalloc"]["ratio"] > 0 and row["mimalloc"]["faults"] < 0.05 * default["faults"]
    rss = report["rows"]["columns"]["pyalloc"]["rss"]
    assert rss["peak_bytes"] > rss["start_bytes"] + (60 << 20)
    assert rss["back_s"] is not None and rss["back_s"] <= 12


def test_the_table():
    done = run("--rows", "256 KiB", "--rounds", "1", "--seconds", "0.05")
    assert done.returncode == 0, done.stderr
    assert "pyalloc / default, 256 KiB" in done.stdout and done.stdout.splitlines()[0].split()[0] == "ratio"


@pytest.mark.parametrize("options, message", [(["--rows", "5 MiB"], "no such row: 5 MiB"),
                                              (["--rounds", "0"], "--rounds must be at least 1")])
def test_bad_options(options, message):
    done = run(*options)
    assert done.returncode == 2 and message in done.stderr
