"""bench/python_objects.py at a small scale: every setting really is what it says, and the figures are sound. Times are
never compared here."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "bench" / "python_objects.py"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    return importlib.import_module("python_objects")


def test_settings(bench, monkeypatch):
    monkeypatch.setenv("PYTHONMALLOC", "debug")
    monkeypatch.setenv("PYALLOC_GOGC", "50")
    found, missing = bench.settings()
    by_name = {setting.name: setting for setting in found}
    assert list(by_name)[:4] == ["pyalloc", "hook", "pymalloc", "glibc"]
    assert {"jemalloc", "tcmalloc", "mimalloc"} <= set(by_name) | set(missing)
    assert by_name["pyalloc"].env["PYTHONMALLOC"] == "malloc" and by_name["pyalloc"].env["PYALLOC_BACKGROUND"] == "1"
    assert all("PYTHONMALLOC" not in by_name[name].env for name in ("hook", "pymalloc"))
    assert not any("PYALLOC_GOGC" in setting.env for setting in found)
    if "jemalloc" in by_name:
        assert by_name["jemalloc"].env["MALLOC_CONF"] == "background_thread:true"


@pytest.mark.parametrize("name", ["pyalloc", "hook", "pymalloc", "glibc"])
def test_a_child_of_each_kind(bench, name):
    setting = next(one for one in bench.settings()[0] if one.name == name)
    assert bench.run(setting, "json", 0.02)["wall"] > 0
    figures = bench.run(setting, "drop", 0.02)
    assert 60 < figures["left"] < 140       # of 1000: a tenth


def test_a_child_that_does_not_get_its_allocator_ends(bench, capfd):
    wrong = bench.Setting("wrong", bench.settings()[0][0].env, "libother.so.7")
    with pytest.raises(SystemExit, match="wrong: churn ended with 1"):
        bench.run(wrong, "churn", 0.01)
    assert "libother.so.7 is not loaded" in capfd.readouterr().err


def test_memory_comes_back(bench):
    """All settings at once, small; ours are near the start again when everything was dropped."""
    found = [one for one in bench.settings()[0] if one.name in ("pyalloc", "hook", "pymalloc")]
    rows = bench.measure_rss(found, 1, 0.2, 4.0)
    assert len(rows) == 8
    values = {(row["what"].split("RSS ")[1], row["ours"]): row["ours_value"] for row in rows}
    for name in bench.OURS:
        grown = values["before", name] - values["after gc.collect(), too", name]
        assert grown > 8, values            # MiB, of some 18 that the objects took


def test_the_command(tmp_path):
    done = subprocess.run([sys.executable, str(PROGRAM), "--rounds", "3", "--scale", "0.01", "--only", "json,churn",
                           "--peers", "glibc", "--json"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode in (0, 1), done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [(row["what"], row["ours"], row["peer"]) for row in rows] == [
        (f"{workload}: time", ours, peer) for workload in ("json", "churn") for ours in ("pyalloc", "hook")
        for peer in ("pymalloc", "glibc")]
    for row in rows:
        assert row["q1"] <= row["ratio"] <= row["q3"] and (row["met"] is None or row["met"] == (
            row["ratio"] <= row["bound"]))
    assert done.returncode == any(row["met"] is False for row in rows)
    text = subprocess.run([sys.executable, str(PROGRAM), "--rounds", "3", "--scale", "0.01", "--only", "json",
                           "--peers", "glibc", "--cpu-time"], capture_output=True, text=True, cwd=tmp_path).stdout
    assert "json: time" in text and "pymalloc" in text
    wrong = subprocess.run([sys.executable, str(PROGRAM), "--only", "nothing"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "json, churn, drop" in wrong.stderr
