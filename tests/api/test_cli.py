"""python -m pyalloc: each command as text and as JSON."""

import json
import os
import pty
import subprocess
import sys

import pytest

import pyalloc


def run_json(run_python, *words):
    return json.loads(run_python("-m", "pyalloc", *words, "--json").stdout)


def test_classes(run_python):
    rows = run_json(run_python, "classes")
    assert len(rows) == 66 and list(rows[0]) == list(pyalloc.SizeClass.__dataclass_fields__)
    text = run_python("-m", "pyalloc", "classes").stdout.splitlines()
    assert len(text) == 68 and text[2].split()[:4] == ["1", "8", "8,192", "1,024"]


def test_stats(run_python):
    result = run_json(run_python, "stats")
    assert set(result) == {"mem_stats", "classes"}
    assert set(result["mem_stats"]) == set(pyalloc.MemStats.__dataclass_fields__)
    assert "heap_inuse" in run_python("-m", "pyalloc", "stats").stdout


def test_metrics(run_python):
    def strict(name):
        raise AssertionError(f"{name} is no JSON")

    text = run_python("-m", "pyalloc", "metrics", "--json").stdout
    result = json.loads(text, parse_constant=strict)
    assert list(result) == list(pyalloc.metrics())
    assert result["/memory/classes/total:bytes"]["value"] > 64 << 20
    histogram = result["/sched/pauses/total/gc:seconds"]["value"]
    assert len(histogram["bounds"]) == len(histogram["counts"]) + 1 and histogram["bounds"][-1] is None
    assert "/gc/gomemlimit:bytes" in run_python("-m", "pyalloc", "metrics").stdout


def test_map(run_python, tmp_path):
    result = run_json(run_python, "map", "--png", str(tmp_path / "map.png"))
    assert sum(result["pages"].values()) == 8192 * len(result["arenas"]) and set(result["pinned"]) >= {"spans", "live"}
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert "released" in run_python("-m", "pyalloc", "map").stdout
    failed = run_python("-m", "pyalloc", "map", "--png", str(tmp_path / "no" / "map.png"), check=False)
    assert failed.returncode == 1 and "Traceback" not in failed.stderr


def test_rss(run_python):
    result = run_json(run_python, "rss")
    assert set(result) == set(pyalloc.Rss.__dataclass_fields__) and result["rss"] > 0
    assert run_json(run_python, "rss", "--pid", str(os.getpid()))["pid"] == os.getpid()
    assert "minor_faults" in run_python("-m", "pyalloc", "rss").stdout
    failed = run_python("-m", "pyalloc", "rss", "--pid", "999999999", check=False)
    assert failed.returncode == 1 and "999999999" in failed.stderr and "Traceback" not in failed.stderr


def test_doctor(run_python):
    findings = run_json(run_python, "doctor")
    by_name = {one["check"]: one for one in findings}
    assert set(findings[0]) == {"check", "status", "value", "hint"}
    assert {one["status"] for one in findings} <= {"ok", "info", "warn"}
    assert by_name["library"]["value"].endswith("libpyalloc.so")
    assert by_name["self test"]["status"] == by_name["heap check"]["status"] == "ok"
    assert by_name["preloaded"]["value"] == ("yes" if pyalloc.preload.active() else "no")
    assert {"page size", "transparent huge pages", "overcommit", "ulimit -v", "valgrind", "extra: rich"} <= set(by_name)
    assert "self test" in run_python("-m", "pyalloc", "doctor").stdout


def test_doctor_fails_on_a_broken_heap(monkeypatch, capsys):
    from pyalloc import __main__

    def broken():
        raise RuntimeError("heap check failed: span list")

    monkeypatch.setattr(pyalloc, "heap_check", broken)
    assert __main__.main(["doctor"]) == 1
    assert "heap check failed: span list" in capsys.readouterr().out


def test_bench_has_options(run_python):
    assert "--json" in run_python("-m", "pyalloc", "bench", "--help").stdout


def test_help_names_every_command(run_python):
    text = run_python("-m", "pyalloc", "--help").stdout
    for command in ("run", "top", "bench", "classes", "stats", "rss", "doctor"):
        assert command in text


@pytest.mark.parametrize("words", [[], ["nothing"], ["classes", "--nothing"]])
def test_usage_errors(run_python, words):
    result = run_python("-m", "pyalloc", *words, check=False)
    assert result.returncode == 2 and "usage:" in result.stderr


def test_version(run_python):
    assert run_python("-m", "pyalloc", "--version").stdout.strip() == f"pyalloc {pyalloc.__version__}"


def test_a_closed_pipe_is_quiet(root):
    command = f"'{sys.executable}' -m pyalloc classes | head -1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=root, check=True)
    assert result.stdout.startswith("Size classes") and result.stderr == ""


def test_tables_on_a_terminal(root):
    pytest.importorskip("rich")
    main, child = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "pyalloc", "doctor"], stdout=child, stderr=child, cwd=root,
                               env={**os.environ, "TERM": "xterm", "COLUMNS": "120"})
    os.close(child)
    shown = b""
    try:
        while block := os.read(main, 65536):
            shown += block
    except OSError:  # the other end is closed
        pass
    os.close(main)
    assert process.wait() == 0
    assert "━" in shown.decode() and "self test" in shown.decode()
