"""PYALLOC_* in the environment of real processes: warnings, the summary at exit, privileged programs."""

import json
import os
import re
import subprocess
import sys
import tempfile

import pytest

from preload.support import SUMMARY, need


def run(command, **env):
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C", **env}, timeout=60)


def test_a_mistake_is_one_line_and_the_program_runs(library):
    result = run(["echo", "fine"], LD_PRELOAD=library, PYALLOC_DECAY_MS="soon", PYALLOC_BOGUS="1")
    assert (result.returncode, result.stdout) == (0, "fine\n")
    assert result.stderr.splitlines() == [
        "pyalloc: PYALLOC_DECAY_MS=soon: not a number of milliseconds; using the default, 500",
        "pyalloc: PYALLOC_BOGUS: unknown option, ignored (python -m pyalloc options lists them)"]


def test_good_options_say_nothing(library):
    assert run(["echo"], LD_PRELOAD=library, PYALLOC_DECAY_MS="1", PYALLOC_MEMLIMIT="1GiB").stderr == ""


def test_options_command(run_python):
    env = {"PYALLOC_GOGC": "70", "GOMEMLIMIT": "2GiB", "GODEBUG": "gctrace=1,other=2"}
    rows = json.loads(run_python("-m", "pyalloc", "options", "--json", env=env).stdout)
    assert list(rows[0]) == ["name", "type", "default", "value", "source", "doc"]
    shown = {row["name"]: (row["value"], row["source"]) for row in rows}
    assert shown["PYALLOC_GOGC"] == (70, "PYALLOC_GOGC")
    assert shown["PYALLOC_MEMLIMIT"] == (2 << 30, "GOMEMLIMIT")
    assert shown["PYALLOC_DEBUG=gctrace"] == (1, "GODEBUG")
    assert shown["PYALLOC_DECAY_MS"] == (500, "default")
    text = run_python("-m", "pyalloc", "options", env=env).stdout
    assert "PYALLOC_STATS_AT_EXIT" in text and "summary of the heap" in text


def test_summary_at_exit(library):
    """Of a program that closes its own stderr before it ends, as coreutils do."""
    result = run(["ls", "/"], LD_PRELOAD=library, PYALLOC_STATS_AT_EXIT="1")
    match = SUMMARY.fullmatch(result.stderr)
    assert match and match.group(2) == "ls", result.stderr
    values = dict(re.findall(r"^  (\S[^0-9\n]*?)  +(\d+)", result.stderr, re.M))
    assert int(values["blocks in use"]) > 0 and int(values["peak RSS of process"]) > 100_000
    assert int(values["pages in use"]) >= int(values["bytes in blocks"]) > 0
    assert run(["ls", "/"], LD_PRELOAD=library).stderr == ""


def test_lock_statistics_at_exit(library):
    """A line for each kind of lock, only when asked for; the figures are checked in tests/stress/lockstat.c."""
    words = ["sort", "--parallel=1", "/dev/null"]
    silent = run(words, LD_PRELOAD=library, PYALLOC_STATS_AT_EXIT="1")
    assert silent.returncode == 0 and "  lock " not in silent.stderr
    result = run(words, LD_PRELOAD=library, PYALLOC_STATS_AT_EXIT="1", PYALLOC_DEBUG="lockstat=1")
    assert result.returncode == 0 and SUMMARY.match(result.stderr)
    lines = [line for line in result.stderr.splitlines() if line.startswith("  lock ")]
    figures = {line.split()[1]: [int(n) for n in re.findall(r"\d+", line.split(None, 2)[2])] for line in lines}
    assert {"PROC_SLOW", "MHEAP"} <= set(figures)
    for times, mean, longest, waits, *_ in figures.values():
        assert times > 0 and waits <= times and mean <= longest
    assert figures["MHEAP"][2] > 0, "to grow the heap takes more than 4 ns"


def test_no_summary_into_a_reused_descriptor(library, tmp_path):
    """A daemon closes every descriptor and opens its own: the summary must not land there."""
    program = ("import os, resource\nos.closerange(2, 1024)\n"
               "for i in range(2, 400): os.open(%r, os.O_RDWR | os.O_CREAT)\n" % str(tmp_path / "data"))
    result = run([sys.executable, "-c", program], LD_PRELOAD=library, PYALLOC_STATS_AT_EXIT="1")
    assert result.returncode == 0 and result.stderr == ""
    assert (tmp_path / "data").read_bytes() == b""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a setuid program for another user to run")
def test_a_privileged_program_does_not_read_the_environment(library):
    """setuid, linked with the library: neither options nor warnings come from whoever runs it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        copy = os.path.join(folder, "libpyalloc.so")
        with open(library, "rb") as source, open(copy, "wb") as target:
            target.write(source.read())
        program = os.path.join(folder, "program")
        text = ("#include <stdio.h>\n#include <stdlib.h>\n#include <sys/auxv.h>\n"
                "int main(void) { puts(malloc(5) && getauxval(AT_SECURE) ? \"secure\" : \"not\"); return 0; }\n")
        subprocess.run([need("gcc", "gcc"), "-x", "c", "-", "-x", "none", "-o", program, copy, f"-Wl,-rpath,{folder}"],
                       input=text, text=True, check=True)
        os.chmod(copy, 0o755)
        env = {"PYALLOC_STATS_AT_EXIT": "1", "PYALLOC_BOGUS": "1", "PATH": os.environ["PATH"]}
        os.chmod(program, 0o755)
        plain = subprocess.run([program], capture_output=True, text=True, env=env, user=65534, group=65534)
        assert plain.stdout == "not\n" and "BOGUS" in plain.stderr and SUMMARY.search(plain.stderr)
        os.chmod(program, 0o4755)
        secure = subprocess.run([program], capture_output=True, text=True, env=env, user=65534, group=65534)
        if secure.stdout != "secure\n":
            pytest.skip("the temporary directory is mounted nosuid")
        assert secure.stderr == ""


def test_a_report_makes_malloc_no_cancellation_point(compiled, library, tmp_path):
    program = compiled("cancelled.c", "-pthread", "-fno-builtin")
    result = subprocess.run([program], capture_output=True, text=True, timeout=60,
                            env={**os.environ, "LD_PRELOAD": library, "PYALLOC_REPORT": str(tmp_path / "heap.jsonl")})
    assert (result.returncode, result.stdout, result.stderr) == (0, "2 cancelled\n", "")
    assert (tmp_path / "heap.jsonl").read_text().count("\n") == 3  # the process, its peak, its exit
