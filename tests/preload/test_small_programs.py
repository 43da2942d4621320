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
