"""Small programs stay small: resident memory at exit against glibc's, by the pages that the kernel counts."""

import os
import statistics
import subprocess

import pytest

from preload.support import need

BOUND_KIB = 200
# The kernel maps file pages in groups of 16, at addresses that are random: figures come in two or three heaps some
# 90 KiB apart, of which a median of a few runs shows one or the other. So means, of many runs.
RUNS = 30


@pytest.mark.parametrize("command", [["true"], ["ls", "-l", "/usr/bin"]], ids=lambda c: c[0])
def test_resident_at_exit(compiled, library, command):
    program = compiled("exitrss.c", "-D_GNU_SOURCE")
    need(command[0], command[0])
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}

    def resident_kib(preload: str) -> int:
        result = subprocess.run([program, preload, *command], capture_output=True, text=True, env=environment)
        assert result.returncode == 0, result
        return int(result.stdout)

    pairs = [(resident_kib(""), resident_kib(library)) for _ in range(RUNS)]
    glibc, ours = (statistics.mean(column) for column in zip(*pairs))
    assert 0 < ours <= glibc + BOUND_KIB, pairs


def test_code_of_the_library_that_a_small_program_has(compiled, library):
    """Its first mapping, all of it perhaps; of the second nothing (csrc/preload/layout.ld)."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYALLOC_")}
    program = compiled("firstpages.c", "-D_GNU_SOURCE")
    later = []
    for _ in range(5):      # one that took more than half a second, on a busy machine, has looked for idle memory
        result = subprocess.run([program], text=True, capture_output=True, env={**environment, "LD_PRELOAD": library})
        assert result.returncode == 0, result
        (first_kib, _), (later_kib, resident_kib) = [map(int, line.split()) for line in result.stdout.splitlines()]
        assert first_kib <= 72 and later_kib >= 128, result
        later.append(resident_kib)
    assert min(later) == 0, later
