"""Instructions per malloc+free pair, counted by valgrind's callgrind.

Callgrind does not replace malloc, so a preloaded allocator runs as it is.  A whole process costs far more
than the pairs; two runs that differ only in the number of pairs leave just those, and the same two runs
with an empty loop leave the loop, which is subtracted.  The calls through the PLT are part of the figure.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Dict, List, Sequence

from pyalloc._bench import runner
from pyalloc._bench.allocators import Allocator, BenchError

SIZES = (16, 64, 256, 1024, 8192, 65536)
FEW, MANY = 2_000, 22_000


def _count(program: Path, allocator: Allocator, words: Sequence[str]) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(program), "pair"]
    command += ["--expect", runner.expectation(allocator), *words]
    done = subprocess.run(
        command, env=runner.child_environment(allocator), capture_output=True, text=True, errors="replace"
    )
    found = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    if done.returncode != 0 or found is None:
        raise BenchError(f"{allocator.name}: callgrind failed: {done.stderr.strip()[-800:]}")
    return int(found.group(1))


def _per_iteration(program: Path, allocator: Allocator, words: List[str]) -> float:
    few, many = (_count(program, allocator, [*words, "--ops", str(n)]) for n in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def count(
    program: Path, allocators: Sequence[Allocator], sizes: Sequence[int] = SIZES
) -> Dict[str, Dict[int, float]]:
    """{allocator: {size: instructions per pair}}; :class:`BenchError` when valgrind is missing."""
    if shutil.which("valgrind") is None:
        raise BenchError("--instructions needs valgrind (apt-get install valgrind)")
    loop = _per_iteration(program, Allocator("glibc", None), ["--size", "64", "--order", "loop"])
    return {
        one.name: {size: _per_iteration(program, one, ["--size", str(size)]) - loop for size in sizes}
        for one in allocators
    }
