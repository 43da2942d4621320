"""Storms of forks and threads in a program that knows nothing of pyalloc; also with the background thread."""

import os
import re
import subprocess

import pytest


@pytest.mark.parametrize("storm, count, background", [
    ("forks", 1000, "0"), ("forks", 200, "1"), ("threads", 10_000, "0"), ("threads", 10_000, "1")])
def test_storm(compiled, preloaded, storm, count, background):
    program = compiled("storms.c", "-D_GNU_SOURCE")
    result = preloaded([program, storm, count], timeout=200, env={"PYALLOC_BACKGROUND": background})
    assert (result.returncode, result.stdout, result.stderr) == (0, "ok\n", "")


def test_nothing_is_left_behind(compiled, library):
    """After 10,000 threads the heap holds next to nothing, and caches of a few threads at most."""

    result = subprocess.run([compiled("storms.c", "-D_GNU_SOURCE"), "threads", "10000"], capture_output=True, text=True,
                            env={**os.environ, "LD_PRELOAD": library, "PYALLOC_STATS_AT_EXIT": "1"}, timeout=200)
    values = {name: int(value) for name, value in re.findall(r"^  (\S[^0-9\n]*?)  +(\d+)", result.stderr, re.M)}
    assert result.returncode == 0 and values["threads with a cache"] == 1
    assert values["blocks in use"] < 100 and values["bytes in blocks"] < 100_000
    assert values["metadata"] < 4 << 20
