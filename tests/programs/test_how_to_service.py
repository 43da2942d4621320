"""docs/how-to-service.md: every command and every program on it runs, and does what the page says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from programs.hooked import plain_environment

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to-service.md"


def blocks(kind):
    text = PAGE.read_text(encoding="utf-8")
    return [pytest.param(match.group(2), id=f"line {text.count(chr(10), 0, match.start()) + 1}")
            for match in re.finditer(r"^```(%s)\n(.*?)^```" % kind, text, re.S | re.M)]


@pytest.fixture
def service(tmp_path):
    """A folder with the page's service.py, and an environment in which `python` is this interpreter."""
    (source,) = blocks("python file=service.py")
    (tmp_path / "service.py").write_text(source.values[0])
    (tmp_path / "bin").mkdir()
    # A script: a link would not find the virtual environment that it belongs to.
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    return tmp_path, {**plain_environment(), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}


@pytest.mark.parametrize("command", blocks("sh"))
def test_commands(service, command):
    folder, env = service
    done = subprocess.run(["sh", "-e", "-c", command], capture_output=True, text=True, cwd=folder, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    start, peak, now = map(int, re.search(r"start (\d+) MiB, peak (\d+) MiB, now (\d+) MiB", done.stdout).groups())
    assert peak > start + 20 and now <= start + (peak - start) // 2 + 1, done.stdout
    assert ("statistics at exit" in done.stderr) == ("--stats-at-exit" in command)


@pytest.mark.parametrize("program", blocks("python"))
def test_programs(program, tmp_path):
    path = tmp_path / "program.py"
    path.write_text(program)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, env=plain_environment(), timeout=120)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout


def test_there_are_examples():
    assert len(blocks("sh")) >= 4 and len(blocks("python")) >= 3
