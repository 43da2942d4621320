"""Lock ranks: ascending order passes, anything else ends the process. Each case in a process of its own."""

import os
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from whitebox import ffi, lib
ranks = [int(word) for word in sys.argv[2].split(",")]
for _ in range(2):
    lib.pa_xlocks_take(ffi.new("unsigned[]", ranks), len(ranks), sys.argv[1] == "up")
print("taken", lib.pa_xlock_rank_count())
"""


def take(root, direction, ranks):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, direction, ",".join(map(str, ranks))],
        cwd=root / "tests",
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(root),
    )


def environment(root):
    return {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}"}


@pytest.mark.parametrize(
    "direction, ranks", [("up", [1, 2, 3, 4, 5]), ("up", [1, 1, 2, 2, 2, 5]), ("up", [2, 5]), ("down", [1, 4])]
)
def test_ascending_ranks_pass(root, direction, ranks):
    result = take(root, direction, ranks)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("taken ") and result.stderr == ""


@pytest.mark.parametrize(
    "direction, ranks, reason",
    [
        ("up", [2, 1], "held[r].count == 0"),  # a higher rank is held
        ("up", [1, 2, 5, 4], "held[r].count == 0"),
        ("up", [4, 3, 4], "held[r].count == 0"),
        ("down", [3, 3], "highest < l"),  # equal ranks, descending addresses
        ("up", [0], "PA_RANK_NONE"),  # a lock without a rank
        ("up", [99], "RANKS"),
    ],
)
def test_any_other_order_aborts_with_one_line(root, direction, ranks, reason):
    result = take(root, direction, ranks)
    assert result.returncode == -signal.SIGABRT, (result.returncode, result.stdout, result.stderr)
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("pyalloc: ") and "lock.c:" in lines[0]
    assert "check failed: " in lines[0] and reason in lines[0]
