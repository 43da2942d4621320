"""The stress programs, each in the builds where it says something, bounded so that the folder ends within 90 s.

Longer runs stand behind the marker soak: pytest -m soak tests/stress.
Also: running out of address space under ulimit -v, a run under valgrind, and misuse, one pointer a process.
"""

import re
import shutil
import signal

import pytest

from cprograms import must_pass, run
from pyalloc._pictures import record
from stress.build import PROGRAMS

EVERYWHERE = ("plain", "asan", "tsan")
# program -> arguments in the plain build, and under sanitizers (a TSan child of fork takes half a second)
RUNS = {
    "churn": {"plain": ["60000", "4"], "asan": ["15000", "3"], "tsan": ["12000", "3"]},
    "storm": {"plain": ["10000"], "asan": ["1000"], "tsan": ["600"]},
    "forks": {"plain": ["150", "3"], "asan": ["40", "2"], "tsan": ["6", "2"]},
    "attaching": {"plain": [], "asan": []},  # a TSan child of a process with threads cannot be left with them
    "inject": {"plain": [], "asan": []},
    "protocol": {"plain": [], "asan": [], "tsan": []},
    "exitfree": {"plain": ["100"], "asan": ["20"], "tsan": ["8"]},
    "realloc": {"plain": ["8000"], "asan": ["1500"], "tsan": ["1000"]},
    "scavenge": {"plain": ["120", "3"], "asan": ["60", "2"], "tsan": ["60", "2", "0"]},
    "flushing": {"plain": [], "asan": [], "tsan": []},
    "idle": {"plain": ["20000", "3"], "asan": ["5000", "3"], "tsan": ["3000", "3", "0"]},
    "hollow": {"plain": ["60", "3"], "asan": ["20", "2"], "tsan": ["10", "2", "0"]},
    "laps": {"plain": [], "asan": [], "tsan": []},
    "relay": {"plain": ["5000", "10", "4"], "asan": ["1500", "5", "3"], "tsan": ["1000", "4", "3"]},
    "pieces": {"plain": ["6000", "4"], "asan": ["1000", "3"], "tsan": ["600", "3"]},
    "lockstat": {"plain": ["40000", "4"], "asan": ["5000", "3"], "tsan": ["3000", "3"]},
    "onesided": {"plain": ["1000"], "asan": ["150"], "tsan": ["40"]},
    "profiling": {"plain": ["60", "3"], "asan": ["20", "3"], "tsan": ["8", "2"]},
    "snapshots": {"asan": ["1500", "3"], "tsan": ["600", "3"]},
    "live": {"plain": ["4000", "3", "2", "12"], "asan": ["800", "2", "2", "4"], "tsan": ["400", "2", "2", "0"]},
    "oom": {"plain": ["limit", "300"]},  # sanitizers need more address space than any limit leaves
}
SOAKS = [
    *[("plain", "churn", "400000", str(threads), str(seed)) for seed, threads in enumerate((1, 2, 5, 8), 100)],
    *[("asan", "churn", "100000", "4", str(seed)) for seed in (200, 201)],
    *[("tsan", "churn", "60000", "4", str(seed)) for seed in (300, 301)],
    *[("plain", "forks", "600", str(threads), str(seed)) for seed, threads in enumerate((1, 4), 400)],
    ("plain", "storm", "30000", "16"),
    ("plain", "storm", "10000", "3"),
    ("plain", "exitfree", "1000"),
    ("plain", "idle", "300000", "4"),
    ("tsan", "idle", "40000", "4", "0"),
    ("plain", "onesided", "20000"),
    ("plain", "hollow", "1000", "4"),
    ("tsan", "hollow", "100", "3", "0"),
    ("plain", "relay", "40000", "60", "8"),
    ("tsan", "relay", "5000", "10", "4"),
    ("plain", "pieces", "100000", "8"),
    ("tsan", "pieces", "6000", "4"),
    ("plain", "profiling", "600", "4", "9"),
    ("asan", "profiling", "150", "4", "10"),
    ("plain", "realloc", "100000", "7"),
    ("plain", "live", "60000", "4", "3", "100"),
    ("plain", "snapshots", "200000", "8"),
    ("tsan", "snapshots", "5000", "4"),
    ("asan", "forks", "200", "3"),
    ("tsan", "exitfree", "60"),
]


@pytest.fixture(scope="session")
def built():
    """variant -> folder of programs."""
    return PROGRAMS.cached()


@pytest.mark.parametrize(
    "program, variant", [(program, variant) for program, runs in RUNS.items() for variant in runs]
)
def test_program(built, program, variant):
    out = must_pass([built(variant) / program, *RUNS[program][variant]])
    assert out.startswith(f"{program}: ")


def test_a_snapshot_takes_at_most_50_us(built):
    """The median of 10,000 taken while four threads churn 8 MiB; the mean would count the scheduler's slices."""
    out = must_pass([built("plain") / "snapshots", "10000", "4"])
    assert int(re.search(r"median (\d+) ns", out).group(1)) <= 50_000


@pytest.mark.parametrize("program, variant", [("churn", "plain"), ("churn", "asan"), ("churn", "tsan"),
                                              ("forks", "plain"), ("snapshots", "tsan")])
def test_while_peaks_are_written(built, program, variant, tmp_path):
    """PYALLOC_REPORT under threads and fork; the plain build checks lock ranks. Every file is whole."""
    arguments = RUNS[program][variant]
    must_pass([built(variant) / program, *arguments], env={"PYALLOC_REPORT": f"{tmp_path}/%p.jsonl"})
    found = [record.read(path) for path in tmp_path.glob("*.jsonl")]
    assert any(one.peak for one in found)
    assert {path.suffix for path in tmp_path.iterdir()} == {".jsonl"}  # nothing unfinished


def test_every_program_has_a_run():
    assert set(PROGRAMS.names()) == {*RUNS, "misuse", "reentry"}


@pytest.mark.soak
@pytest.mark.parametrize("soak", SOAKS, ids="-".join)
def test_soak(built, soak):
    variant, program, *arguments = soak
    assert must_pass([built(variant) / program, *arguments], timeout=300).startswith(f"{program}: ")


# ---- Address space


@pytest.mark.parametrize("limit_kib", [2_000_000, 400_000])
def test_under_ulimit_v(built, limit_kib):
    out = must_pass([built("plain") / "oom", "fresh"], limit_kib=limit_kib)
    window_bits = int(re.search(r"window of (\d+) bits", out).group(1))
    assert 34 <= window_bits < 47, "the whole window cannot have fitted"
    must_pass([built("plain") / "churn", "5000", "2"], limit_kib=limit_kib)


def test_no_address_space_at_all(built):
    """Not even the first arena: ENOMEM from the first call, no crash and no corruption."""
    result = run([built("plain") / "oom", "fresh"], limit_kib=60_000)
    assert result.returncode == 1
    assert "not so: p" in result.stderr and result.stderr.count("\n") == 1


def test_the_oom_program_insists_on_a_limit(built):
    result = run([built("plain") / "oom", "fresh"])
    assert result.returncode == 1 and "ulimit" in result.stderr


# ---- Valgrind


@pytest.mark.parametrize(
    "command", [["churn", "1500", "2"], ["protocol"], ["realloc", "200"], ["misuse", "fine"]], ids=lambda c: c[0]
)
def test_under_valgrind(built, command):
    valgrind = shutil.which("valgrind")
    if not valgrind:
        pytest.fail("valgrind is missing: apt-get install valgrind")
    program, *arguments = command
    result = run([valgrind, "-q", "--error-exitcode=9", "--fair-sched=yes", built("plain") / program, *arguments])
    assert result.returncode == 0, f"{result.returncode}\n{result.stdout}{result.stderr}"
    assert "==" not in result.stderr.replace("Warning: set address range perms", ""), result.stderr


# ---- Signal handlers


@pytest.mark.parametrize("call", ["malloc", "free", "large", "realloc", "stats"])
def test_reentry_from_a_signal_handler_is_one_clear_line(built, call):
    """Checked builds find malloc in a handler that interrupted malloc, instead of hanging."""
    result = run([built("plain") / "reentry", call])
    assert result.returncode == -signal.SIGABRT, (result.returncode, result.stdout, result.stderr)
    assert result.stderr == ("pyalloc: the allocator was entered again by a thread that is inside it "
                             "(malloc or free in a signal handler?)\n")


def test_handlers_outside_the_slow_path_may_allocate(built):
    must_pass([built("plain") / "reentry", "fine"])


# ---- Misuse: one line on stderr that names the address, then abort

FOREIGN = "foreign pointer"
INTERIOR = "interior pointer"
DOUBLE = "double free"
MISUSES = {
    "foreign_stack": FOREIGN,
    "foreign_libc": FOREIGN,
    "foreign_static": FOREIGN,
    "interior_small": INTERIOR,
    "interior_large": INTERIOR,
    "interior_large_end": INTERIOR,
    "misaligned": INTERIOR,
    "double_small": DOUBLE,
    "double_large": DOUBLE,
    "double_huge": DOUBLE,
    "double_last_of_span": DOUBLE,
    "double_after_trim": DOUBLE,
    "large_in_other_thread": DOUBLE,
    "never_carved": FOREIGN,
    "above_user_space": FOREIGN,
    "kernel_address": FOREIGN,
    "non_canonical": FOREIGN,
    "low_address": FOREIGN,
    "other_arena_page": FOREIGN,
    "double_remote": "freed twice",
    "double_in_outbox": DOUBLE,
    "never_carved_remote": "never handed out",
    "realloc_foreign": FOREIGN,
    "usable_size_of_interior": INTERIOR,
}
NOT_PLAIN_FREES = {
    "double_remote",
    "double_in_outbox",
    "never_carved_remote",
    "realloc_foreign",
    "usable_size_of_interior",
}


@pytest.mark.parametrize("case", MISUSES)
def test_misuse_ends_the_process_with_one_line(built, case):
    result = run([built("plain") / "misuse", case])
    assert result.returncode == -signal.SIGABRT, (result.returncode, result.stdout, result.stderr)
    address = result.stdout.split()[0]
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and result.stderr.endswith("\n"), lines
    assert re.match(r"pyalloc: [a-z_ ]+ (0x[0-9a-f]+): ", lines[0]), lines
    assert address in lines[0].split(": ")[1].split()
    assert MISUSES[case] in lines[0]


def test_every_misuse_is_expected(built):
    listed = set(must_pass([built("plain") / "misuse", "list"]).split())
    assert listed == set(MISUSES) - NOT_PLAIN_FREES


def test_what_is_allowed_passes(built):
    must_pass([built("plain") / "misuse", "fine"])
    assert run([built("plain") / "misuse", "no such case"]).returncode == 2
