"""The drop-in bars: arithmetic on invented figures, refusal of differing output, and the command."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyalloc._bench import allocators, dropin
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
