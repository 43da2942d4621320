"""Idle memory goes back to the operating system: from slow paths, or from the background thread if asked for."""

import re

import pytest


@pytest.fixture(scope="module")
def program(compiled):
    return compiled("idle.c", "-D_GNU_SOURCE")


def check(result):
    assert (result.returncode, result.stdout, result.stderr) == (0, "ok\n", "")


def test_slow_paths_release_and_start_no_thread(program, preloaded):
    check(preloaded([program, "ticks"]))


@pytest.mark.parametrize("case", ["still", "fork", "signals"])
def test_background_thread(program, preloaded, case):
    check(preloaded([program, case], env={"PYALLOC_BACKGROUND": "1", "PYALLOC_DECAY_MS": "100"}))


@pytest.mark.parametrize("how", ["trim", "ticks"])
def test_sleeping_threads_are_flushed(program, preloaded, how):
    check(preloaded([program, f"sleepers-{how}"], env={"PYALLOC_DECAY_MS": "100"}))


def test_sleeping_threads_are_flushed_by_the_background_thread(program, preloaded):
    check(preloaded([program, "sleepers-still"], env={"PYALLOC_DECAY_MS": "100", "PYALLOC_BACKGROUND": "1"}))


def test_small_programs_get_no_thread(program, preloaded):
    check(preloaded([program, "early"], env={"PYALLOC_BACKGROUND": "1"}))


def test_decay_can_be_turned_off(program, preloaded):
    check(preloaded([program, "off"], env={"PYALLOC_DECAY_MS": "0"}))


def test_scavtrace(program, preloaded):
    result = preloaded([program, "signals"], env={"PYALLOC_BACKGROUND": "1", "PYALLOC_DEBUG": "scavtrace=1"})
    lines = result.stderr.splitlines()
    assert result.returncode == 0 and lines
    go = re.compile(r"scav \d+ KiB work \(bg\), 0 KiB work \(eager\), \d+ KiB now, \d+% util")
    assert all(go.fullmatch(line) for line in lines), lines
