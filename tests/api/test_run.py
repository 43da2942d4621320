"""python -m pyalloc run: the environment that a program gets, and errors in words."""

import json
import os
import re
import subprocess
import sys

import pytest

import pyalloc
from pyalloc import _limit, _run

SHOW = ("import json, os, sys, pyalloc; print(json.dumps([sys.argv[1:], pyalloc.preload.active(), "
        "{k: v for k, v in os.environ.items() if k.startswith(('PYALLOC', 'LD_PRELOAD', 'PYTHONMALLOC'))}]))")


def run(*words, env=None, cwd=None):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYALLOC", "LD_PRELOAD"))}
    return subprocess.run([sys.executable, "-m", "pyalloc", "run", *words], capture_output=True, text=True,
                          env={**environment, **(env or {})}, timeout=60, cwd=cwd)


def shown(*options, env=None):
    result = run(*options, "--", sys.executable, "-c", SHOW, "--flag", "a b", env=env)
    assert result.returncode == 0, result.stderr
    arguments, active, variables = json.loads(result.stdout)
    assert arguments == ["--flag", "a b"] and active
    return variables


def test_the_environment():
    path = pyalloc.preload.path()
    assert shown() == {"LD_PRELOAD": path, "PYALLOC_BACKGROUND": "1"}
    assert shown("--no-background", "--python-objects", "--stats-at-exit", "--memory-limit", "512MiB") == {
        "LD_PRELOAD": path, "PYALLOC_BACKGROUND": "0", "PYTHONMALLOC": "malloc", "PYALLOC_HUGE_PAGES": "1",
        "PYALLOC_STATS_AT_EXIT": "1", "PYALLOC_MEMLIMIT": str(512 << 20)}


def test_what_the_environment_says_already_holds():
    assert shown(env={"PYALLOC_BACKGROUND": "0"})["PYALLOC_BACKGROUND"] == "0"
    assert shown("--no-background", env={"PYALLOC_BACKGROUND": "1"})["PYALLOC_BACKGROUND"] == "0"
    assert shown(env={"PYALLOC_DECAY_MS": "100"})["PYALLOC_DECAY_MS"] == "100"
    assert shown("--python-objects", env={"PYALLOC_HUGE_PAGES": "0"})["PYALLOC_HUGE_PAGES"] == "0"


def test_other_preloaded_libraries_come_behind():
    other = next(line.split()[-1] for line in open("/proc/self/maps") if re.search(r"/libc\.so|/libc-", line))
    assert shown(env={"LD_PRELOAD": other})["LD_PRELOAD"] == f"{pyalloc.preload.path()}:{other}"


def test_it_is_the_same_process_with_the_same_exit_code():
    assert run("--", "sh", "-c", "exit 7").returncode == 7
    assert run("sh", "-c", "kill -TERM $$").returncode == -15      # without --
    with subprocess.Popen([sys.executable, "-m", "pyalloc", "run", "--", "sh", "-c", "echo $$"], text=True,
                          stdout=subprocess.PIPE) as process:
        assert int(process.stdout.read()) == process.pid


def test_stats_at_exit():
    result = run("--stats-at-exit", "--", "sort", os.devnull)
    assert result.returncode == 0
    assert re.match(r"pyalloc \S+: statistics at exit, process \d+ \(sort\)\n", result.stderr)


def test_a_script(tmp_path):
    (tmp_path / "app.py").write_text("import pyalloc, sys; print(pyalloc.preload.active(), sys.argv)")
    result = run("--", "app.py", "x", cwd=tmp_path)
    assert result.stdout == "True ['app.py', 'x']\n"


@pytest.mark.parametrize("words, code, message", [
    ([], 2, "no command; for example"),
    (["--"], 2, "no command; for example"),
    (["--", "no-such-command-here"], 127, "no such command: no-such-command-here"),
    (["--", "./no-such-file"], 127, "no such command: ./no-such-file"),
    (["--", "/"], 126, "/ is a directory"),
    (["--", "/proc/self/status"], 126, "/proc/self/status is not executable"),
    (["--memory-limit", "lots", "--", "true"], 2, "'lots' is no memory limit: use bytes"),
    (["--memory-limit", "0%", "--", "true"], 2, "a percentage is above 0 and at most 100"),
])
def test_errors_are_words(words, code, message):
    result = run(*words)
    assert result.returncode == code
    assert result.stderr.startswith("pyalloc run: ") and message in result.stderr and result.stderr.count("\n") == 1


def test_not_a_program(tmp_path):
    (tmp_path / "data").write_bytes(b"\0\1\2")
    (tmp_path / "data").chmod(0o755)
    result = run("--", str(tmp_path / "data"))
    assert (result.returncode, result.stderr) == (126, f"pyalloc run: {tmp_path}/data: Exec format error\n")


def test_a_static_program_is_told_apart(tmp_path):
    (tmp_path / "p.c").write_text("int main(void) { return 5; }\n")
    for name, flags in (("static", ["-static"]), ("pie", []), ("plain", ["-no-pie"])):
        subprocess.run(["gcc", *flags, tmp_path / "p.c", "-o", tmp_path / name], check=True)
        result = run("--", str(tmp_path / name))
        assert result.returncode == 5
        assert result.stderr == (f"pyalloc run: {tmp_path}/static is statically linked: it keeps its own malloc\n"
                                 if name == "static" else "")


def test_memory_limits(monkeypatch):
    def limit(text):
        return _run.environment({}, limit=text)["PYALLOC_MEMLIMIT"]

    assert [limit(text) for text in ("0", "17B", "512MiB", "8388607TiB", "8388608TiB", "off")] == [
        "0", "17", str(512 << 20), str(8388607 << 40), "off", "off"]
    for text in ("", "x", "1KB", "-1", "101%", "auto%"):
        with pytest.raises(ValueError, match="memory limit"):
            limit(text)
    monkeypatch.setattr(_limit, "cgroup_limit", lambda: 1000)
    assert limit("80%") == "800" and limit("auto") == "900"
    monkeypatch.setattr(_limit, "cgroup_limit", lambda: None)
    assert limit("auto") == "off"
    assert int(limit("100%")) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_path_that_cannot_be_preloaded(monkeypatch):
    monkeypatch.setattr(pyalloc.preload, "path", lambda: "/some folder/libpyalloc.so")
    with pytest.raises(ValueError, match="LD_PRELOAD cannot name"):
        pyalloc.preload.env({})
