"""Metrics that only a C program can move; tests/api/test_stats.py has the others."""

import os

import pytest

from cprograms import must_pass, run

CASES = ("frames", "assist", "idle", "tick")


def test_cases_are_all_there(built):
    listed = [line.split() for line in run([built("plain") / "moves", "list"]).stdout.splitlines()]
    assert tuple(name for name, _ in listed) == CASES and len({metric for _, metric in listed}) == len(CASES)


@pytest.mark.parametrize("case", CASES)
def test_moves(built, case):
    if case == "idle" and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor: the thread that waits for the collection is not beside it")
    must_pass([built("plain") / "moves", case], env={"PYALLOC_BACKGROUND": "0", "PYALLOC_DECAY_MS": "100"})
