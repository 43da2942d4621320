"""gctrace lines: their grammar, and that their numbers say what happened; the collector's environment variables."""

import pytest

from cprograms import must_pass, run
from gc_programs import MODES
from gctrace_grammar import parse

# ---- The grammar itself

REAL = """\
gc 1 @0.310s 13%: 0.014+350+0.021 ms clock, 0.029+0/181/519+0.042 ms cpu, 157->157->152 MB, 157 MB goal, \
0 MB stacks, 0 MB globals, 2 P (forced)
gc 2 @0.885s 35%: 0.075+419+0.004 ms clock, 0.15+527/211/0+0.009 ms cpu, 301->319->170 MB, 305 MB goal, \
0 MB stacks, 0 MB globals, 2 P
gc 3 @1.477s 40%: 0.043+456+0.044 ms clock, 0.086+413/245/0+0.088 ms cpu, 290->339->200 MB, 340 MB goal, \
0 MB stacks, 0 MB globals, 2 P
"""


def test_real_lines_of_go_match():
    lines = [parse(line) for line in REAL.splitlines()]
    assert [line.number for line in lines] == [1, 2, 3]
    assert [line.forced for line in lines] == [True, False, False]
    assert lines[1].assist == 527 and lines[1].cpu_stop == (0.15, 0.009) and lines[2].goal_mb == 340


@pytest.mark.parametrize("good, bad", [
    ("0.014+", "0.0140+"), ("0.014+", "0.14000+"), ("0.014+", ".014+"), ("350+", "350.0+"), ("350+", "0350+"),
    ("0.021 ms", "0.210 ms"), ("0.014+", "10.5+"), ("0.014+", "0.000+"), ("0.014+", "1.25+"), ("0.310s", "0.31s"),
    ("13%", "13.0%"), ("gc 1", "gc 0"), ("157 MB goal", "157.2 MB goal"), ("2 P", "0 P"), (" (forced)", "(forced)"),
    ("0/181/519", "0/181"), ("->152", " -> 152"), ("ms clock,", "ms clock"), ("0 MB globals, ", ""),
])
def test_the_grammar_is_strict(good, bad):
    line = REAL.splitlines()[0]
    assert good in line
    with pytest.raises(ValueError):
        parse(line.replace(good, bad, 1))


@pytest.mark.parametrize("ms", ["0", "0.001", "0.099", "0.10", "0.99", "1.0", "9.9", "10", "99", "12345"])
def test_times_that_go_prints(ms):
    parse(REAL.splitlines()[0].replace("0.014", ms, 1))


# ---- Runs


def numbers(out):
    return {name: float(value) for name, value in (line.split() for line in out.splitlines())}


def trace(built, variant="plain", env=None, **options):
    """What the program says about itself, and the parsed lines."""
    result = run([built(variant) / "trace", *(f"{k}={v}" for k, v in options.items())],
                 env={"GODEBUG": "gctrace=1", **(env or {})})
    assert result.returncode == 0, result.stderr
    assert result.stderr.endswith("\n") or not result.stderr
    return numbers(result.stdout), [parse(line) for line in result.stderr.splitlines()]


def check_lines(said, lines):
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    assert len(lines) == said["cycles"]
    assert sum(line.forced for line in lines) == said["forced_cycles"]
    for line in lines:
        assert 0 <= line.percent <= 100
        assert line.processors == said["processors"]
        assert line.start_mb <= line.end_mb, "the heap grows while marking, if anything"
        assert line.live_mb <= line.end_mb
        wall = sum(line.clock)
        cpu = sum(line.cpu_stop) + line.assist + line.background + line.idle
        assert cpu <= wall * line.processors * 1.1 + 0.1, "more processor time than there is"
        assert line.cpu_stop[0] >= line.clock[0] * 0.9 and line.cpu_stop[1] >= line.clock[2] * 0.9
    for before, after in zip(lines, lines[1:]):
        assert after.at_seconds >= before.at_seconds
        assert (after.at_seconds - before.at_seconds) * 1000 >= sum(before.clock) * 0.9 - 2
        assert after.start_mb >= before.live_mb - 1


def check_goals(lines, percent):
    """A goal is what was live, and percent of it on top; whole MB on both sides."""
    for before, after in zip(lines, lines[1:]):
        least = max(before.live_mb * (1 + percent / 100), 4 * percent / 100)
        most = max((before.live_mb + 1) * (1 + percent / 100), 4 * percent / 100)
        assert least - 1 <= after.goal_mb <= most * 1.02 + 1, (before, after)


def test_lines(built):
    said, lines = trace(built)
    check_lines(said, lines)
    check_goals(lines, 100)
    assert said["forced_cycles"] == 2 and [line.forced for line in lines[-2:]] == [True, True]
    assert len(lines) >= 6, "200 MiB beside 16 MiB of live data: about every 16 MiB"
    assert 16 <= lines[-1].live_mb <= 18
    assert any(not line.forced for line in lines)
    # The pacer aims at the goal; 8 MiB are for a busy machine.
    for line in lines:
        if not line.forced:
            assert line.end_mb <= line.goal_mb * 1.1 + 8, line


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_lines_in_every_mode(built, mode):
    said, lines = trace(built, mode=mode, live=8, churn=60)
    check_lines(said, lines)
    stops = 1 if mode <= 1 else 2
    assert said["pauses"] >= stops * said["cycles"]
    if mode <= 1:
        assert all(line.assist == 0 for line in lines), "nobody allocates while the world is stopped"


def test_marking_is_counted(built):
    """A heap that takes a while to mark: the processor time of marking cannot be nothing."""
    said, lines = trace(built, live=128, churn=0, forced=3)
    check_lines(said, lines)
    for line in lines[-3:]:
        assert line.forced and line.clock[1] > 0 and line.background + line.assist + line.idle > 0
        assert line.live_mb >= 128


def test_percent_50_and_1000(built):
    many, fifty = trace(built, env={"GOGC": "50"})
    check_lines(many, fifty)
    check_goals(fifty, 50)
    few, thousand = trace(built, env={"GOGC": "1000"}, churn=400)
    check_goals(thousand, 1000)
    assert many["gc_percent"] == 50 and few["gc_percent"] == 1000
    assert len(fifty) > len(thousand)


def test_by_call(built):
    said, lines = trace(built, gogc=50, env={"GOGC": "300"})
    assert said["previous_percent"] == 300 and said["gc_percent"] == 50
    check_goals([line for line in lines if not line.forced], 50)


def test_ours_wins(built):
    said, _ = trace(built, env={"GOGC": "50", "PYALLOC_GOGC": "200"})
    assert said["gc_percent"] == 200
    said, lines = trace(built, env={"GODEBUG": "gctrace=1", "PYALLOC_DEBUG": "gctrace=0"})
    assert lines == [] and said["cycles"] >= 2
    said, lines = trace(built, env={"GODEBUG": "", "PYALLOC_DEBUG": "gctrace=1"})
    check_lines(said, lines)


@pytest.mark.parametrize("name", ["GOGC", "PYALLOC_GOGC"])
def test_off(built, name):
    said, lines = trace(built, env={name: "off"})
    assert said["gc_percent"] < 0 and said["next_gc"] >= 2**63
    assert len(lines) == 2 and all(line.forced for line in lines)
    assert lines[0].start_mb >= 200, "nothing was collected before"
    said, lines = trace(built, env={name: "off"}, forced=0)
    assert lines == [] and said["cycles"] == 0 and said["heap_live"] >= 200 << 20


def test_silent_unless_asked(built):
    for env in ({"GODEBUG": ""}, {"GODEBUG": "gctrace=0"}, {"GODEBUG": "madvdontneed=1,nosuchkey=7"}):
        said, lines = trace(built, env=env)
        assert lines == [] and said["cycles"] >= 3


def test_among_other_keys(built):
    said, lines = trace(built, env={"GODEBUG": "madvdontneed=1,gctrace=1,nosuchkey=7"})
    check_lines(said, lines)


def test_to_a_file_descriptor(built):
    out = must_pass([built("plain") / "trace", "fd=1"])
    said = numbers("\n".join(line for line in out.splitlines() if not line.startswith("gc ")))
    assert said["previous_fd"] == -1
    check_lines(said, [parse(line) for line in out.splitlines() if line.startswith("gc ")])
    result = run([built("plain") / "trace", "fd=-1"], env={"GODEBUG": "gctrace=1"})
    assert result.returncode == 0 and result.stderr == "" and "previous_fd 2\n" in result.stdout


@pytest.mark.parametrize("text, nbytes", [
    ("512MiB", 512 << 20), ("1GiB", 1 << 30), ("300000000", 300000000), ("300000000B", 300000000),
    ("800000KiB", 800000 << 10), ("1TiB", 1 << 40), ("off", 2**63 - 1)])
def test_memory_limit(built, text, nbytes):
    said, _ = trace(built, env={"GOMEMLIMIT": text}, churn=20)
    assert said["memory_limit"] == float(nbytes)


def test_a_memory_limit_collects_although_the_percentage_is_off(built):
    said, lines = trace(built, env={"GOGC": "off", "PYALLOC_MEMLIMIT": "100MiB"}, forced=0, churn=400)
    assert lines and not any(line.forced for line in lines)
    for line in lines:
        assert line.goal_mb <= 100 and line.end_mb <= line.goal_mb * 1.1 + 8, line


@pytest.mark.parametrize("name, value", [
    ("GOGC", "many"), ("GOGC", "50%"), ("GOGC", "1e3"), ("GOGC", "99999999999999"), ("PYALLOC_GOGC", "12x"),
    ("PYALLOC_GOGC", "-"), ("GOMEMLIMIT", "10Q"), ("PYALLOC_MEMLIMIT", "-5MiB"), ("GOMEMLIMIT", "MiB")])
def test_malformed_values_give_one_warning(built, name, value):
    result = run([built("plain") / "trace", "churn=20"], env={name: value})
    assert result.returncode == 0, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("pyalloc: ") and name in line, line
    said = numbers(result.stdout)
    assert said["gc_percent"] == 100 and said["memory_limit"] == float(2**63 - 1), "as if it was not set"
