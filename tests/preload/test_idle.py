"""Idle memory goes back to the operating system: from slow paths, or from the background thread if asked for."""

import pytest

import scavtrace_grammar


@pytest.fixture(scope="module")
def program(compiled):
    return compiled("idle.c", "-D_GNU_SOURCE")


def check(result):
    assert (result.returncode, result.stdout, result.stderr) == (0, "ok\n", "")


def test_slow_paths_release_and_start_no_thread(program, preloaded):
    check(preloaded([program, "ticks"]))


@pytest.mark.parametrize("case", ["still", "fork", "signals", "shrink", "refused", "exit-last", "exit-first"])
def test_background_thread(program, preloaded, case):
    check(preloaded([program, case], env={"PYALLOC_BACKGROUND": "1", "PYALLOC_DECAY_MS": "100"}))


@pytest.mark.parametrize("how", ["trim", "ticks"])
def test_sleeping_threads_are_flushed(program, preloaded, how):
    check(preloaded([program, f"sleepers-{how}"], env={"PYALLOC_DECAY_MS": "100"}))


def test_sleeping_threads_are_flushed_by_the_background_thread(program, preloaded):
    check(preloaded([program, "sleepers-still"], env={"PYALLOC_DECAY_MS": "100", "PYALLOC_BACKGROUND": "1"}))


@pytest.mark.parametrize("how", ["trim", "ticks"])
def test_memory_between_survivors_goes_back(program, preloaded, how):
    check(preloaded([program, f"holes-{how}"]))


def test_small_programs_get_no_thread(program, preloaded):
    check(preloaded([program, "early"], env={"PYALLOC_BACKGROUND": "1"}))


def test_decay_can_be_turned_off(program, preloaded):
    check(preloaded([program, "off"], env={"PYALLOC_DECAY_MS": "0"}))


def test_scavtrace(program, preloaded):
    result = preloaded([program, "signals"], env={"PYALLOC_BACKGROUND": "1", "PYALLOC_DEBUG": "scavtrace=1"})
    lines = result.stderr.splitlines()
    assert result.returncode == 0 and lines
    found = [scavtrace_grammar.parse(line) for line in lines]
    assert all(line.background_kib > 0 and line.eager_kib == 0 and not line.forced for line in found)
    assert all(line.now_kib >= line.background_kib and line.util_percent <= 100 for line in found), lines


@pytest.mark.parametrize("line", [
    "scav 0 KiB work (bg), 0 KiB work (eager), 0 KiB now, 100% util",
    "scav 4096 KiB work (bg), 12 KiB work (eager), 65536 KiB now, 7% util",
    "scav 0 KiB work (bg), 0 KiB work (eager), 524288 KiB now, 99% util (forced)",
])
def test_scavtrace_grammar_takes_gos_lines(line):
    assert scavtrace_grammar.parse(line).forced == line.endswith("(forced)")


@pytest.mark.parametrize("line", [
    "scav 01 KiB work (bg), 0 KiB work (eager), 0 KiB now, 100% util",
    "scav 1 KiB work (bg), 0 KiB work (eager), 0 KiB now, 100% util ",
    "scav 1 KiB work, 0 KiB now, 100% util",
    "scav 1.5 KiB work (bg), 0 KiB work (eager), 0 KiB now, 100% util",
    "scvg: inuse: 5, idle: 60, sys: 66, released: 59, consumed: 6 (MB)",
])
def test_scavtrace_grammar_refuses_the_rest(line):
    with pytest.raises(ValueError):
        scavtrace_grammar.parse(line)
