"""One measurement in a fresh process, and the interleaved rounds made of them.

A round runs every test; for each test all allocators take their turn right after one another, and who
comes first rotates from test to test and from round to round.  After the time limit nothing new is
started, but the first round is always completed, so that each test has at least one sample.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from pyalloc._bench import stats, trace
from pyalloc._bench.allocators import OURS, Allocator, BenchError
from pyalloc._bench.catalog import Workload

CHILD_TIMEOUT_S = 300
TUNING = ("MALLOC_", "GLIBC_TUNABLES", "MIMALLOC_", "TCMALLOC_", "GOGC", "GOMEMLIMIT", "GODEBUG", "PYALLOC_")
NO_TUNING = ("PYALLOC_BENCH_", "PYALLOC_RECORD", "PYALLOC_BUILD_")  # the benchmark's own, and setup.py's

Sample = Dict[str, Any]


def kernels_path() -> Path:
    """The program with the workloads; :class:`BenchError` when it is not built."""
    override = os.environ.get("PYALLOC_BENCH_KERNELS")
    path = Path(override) if override else Path(__file__).resolve().parent / "kernels"
    if not os.access(path, os.X_OK) or path.is_dir():
        raise BenchError(f"{path} is missing or not executable: build the package first (pip install -e .)")
    return path


def tuning_variables() -> List[str]:
    """Environment variables that would change how an allocator behaves; they are left alone, but told."""
    return sorted(name for name in os.environ if name.startswith(TUNING) and not name.startswith(NO_TUNING))


def child_environment(allocator: Allocator) -> Dict[str, str]:
    environment = {
        k: v for k, v in os.environ.items() if k != "LD_PRELOAD" and not k.startswith("PYALLOC_RECORD")
    }
    environment.update(allocator.env)
    if allocator.library is not None:
        environment["LD_PRELOAD"] = allocator.library
    return environment


def expectation(allocator: Allocator) -> str:
    """What ``kernels --expect`` must find behind malloc."""
    return "libc" if allocator.library is None else allocator.library


def measure(
    program: Path, arguments: Sequence[str], allocator: Allocator, environment: Optional[Mapping[str, str]] = None
) -> Sample:
    """Runs one kernel once under *allocator*; its JSON line, or :class:`BenchError` with what it said."""
    command = [str(program), arguments[0], "--expect", expectation(allocator), *arguments[1:]]
    try:
        done = subprocess.run(
            command,
            env={**child_environment(allocator), **(environment or {})},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CHILD_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(
            f"{allocator.name}: {' '.join(arguments)} did not end within {CHILD_TIMEOUT_S} s"
        ) from error
    except OSError as error:
        raise BenchError(f"cannot start {program}: {error}") from error
    said = done.stderr.strip() or "(nothing on stderr)"
    if done.returncode != 0:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise BenchError(f"{allocator.name}: kernels {' '.join(arguments)} failed with {how}: {said}")
    try:
        sample = json.loads(done.stdout)
    except ValueError as error:
        raise BenchError(
            f"{allocator.name}: kernels {' '.join(arguments)} printed no JSON: {done.stdout!r}; {said}"
        ) from error
    if "cannot be preloaded" in said:  # the dynamic loader only warns
        raise BenchError(f"{allocator.name}: {said}")
    return dict(sample)


def measure_cpu(program: Path, arguments: Sequence[str], allocator: Allocator) -> Sample:
    """:func:`measure` with processor time in the place of elapsed time, which moves to ``wall_ns_per_op``."""
    sample = measure(program, arguments, allocator)
    return {**sample, "ns_per_op": sample["cpu_ns_per_op"], "wall_ns_per_op": sample["ns_per_op"]}


class Job(NamedTuple):
    """A test whose arguments are complete."""

    test: Workload
    arguments: List[str]


def prepare(stack: ExitStack, program: Path, tests: Sequence[Workload], scale: float) -> List[Job]:
    """Expands the traces into a temporary folder (removed when *stack* closes) and completes arguments."""
    jobs = []
    folder: Optional[Path] = None
    for test in tests:
        arguments = test.arguments(scale)
        if test.trace_path is not None:
            if folder is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyalloc-bench-")))
            compact, flat = folder / "compact", folder / (test.name + ".flat")
            try:
                compact.write_bytes(trace.decompress(test.trace_path))
            except (OSError, trace.TraceError) as error:
                raise BenchError(f"{test.name}: {error}") from error
            measure(
                program, ["expand", "--trace", str(compact), "--output", str(flat)], Allocator("glibc", None)
            )
            compact.unlink()
            arguments += ["--trace", str(flat)]
        jobs.append(Job(test, arguments))
    return jobs


class Results:
    """Samples by test, allocator and round; None where a round was not reached."""

    def __init__(self, tests: Sequence[Workload], allocators: Sequence[Allocator]) -> None:
        self.tests = list(tests)
        self.allocators = list(allocators)
        self.rounds = 0
        self._samples: Dict[Tuple[str, str], List[Optional[Sample]]] = {
            (test.name, one.name): [] for test in tests for one in allocators
        }

    @property
    def peers(self) -> List[str]:
        return [one.name for one in self.allocators if one.name != OURS]

    def begin_round(self) -> None:
        self.rounds += 1
        for samples in self._samples.values():
            samples.append(None)

    def put(self, test: str, allocator: str, sample: Sample) -> None:
        self._samples[test, allocator][-1] = sample

    def samples(self, test: str, allocator: str) -> List[Optional[Sample]]:
        return self._samples[test, allocator]

    def values(self, test: str, allocator: str, field: str) -> List[Optional[float]]:
        return [None if s is None else float(s[field]) for s in self._samples[test, allocator]]

    def summary(self, test: str, allocator: str, field: str) -> Optional[stats.Summary]:
        values = [v for v in self.values(test, allocator, field) if v is not None]
        return stats.summarize(values) if values else None

    def ratios(self, test: str, peer: str, field: str, ours: str = OURS) -> List[float]:
        """Ours / *peer* in each round that has both."""
        return stats.paired_ratios(self.values(test, ours, field), self.values(test, peer, field))

    def ratio(self, test: str, peer: str, field: str) -> Optional[stats.Summary]:
        found = self.ratios(test, peer, field)
        return stats.summarize(found) if found else None

    def geometric_mean(self, peer: str, field: str, group: Optional[str] = None) -> Optional[float]:
        """Over tests (of *group*, or all): the geometric mean of the median paired ratios."""
        found = [self.ratio(t.name, peer, field) for t in self.tests if group is None or t.group == group]
        medians = [one.median for one in found if one is not None and one.median > 0]
        return stats.geometric_mean(medians) if medians else None


Progress = Callable[[int, Workload, Allocator], None]


def rotated(allocators: Sequence[Allocator], by: int) -> List[Allocator]:
    by %= len(allocators)
    return [*allocators[by:], *allocators[:by]]


def run_rounds(
    program: Path,
    jobs: Sequence[Job],
    allocators: Sequence[Allocator],
    *,
    rounds: int,
    deadline: Optional[float] = None,
    before: Progress = lambda number, test, allocator: None,
    clock: Callable[[], float] = time.monotonic,
    measure_one: Callable[[Path, Sequence[str], Allocator], Sample] = measure,
) -> Results:
    """Up to *rounds* rounds, none started after *deadline* (of *clock*) except the first.

    A later round may end in the middle: then all allocators of a test are measured, or none.
    """
    results = Results([job.test for job in jobs], allocators)
    for number in range(rounds):
        if number > 0 and deadline is not None and clock() >= deadline:
            break
        results.begin_round()
        for at, job in enumerate(jobs):
            if number > 0 and deadline is not None and clock() >= deadline:
                break
            for allocator in rotated(allocators, number + at):
                before(number, job.test, allocator)
                results.put(job.test.name, allocator.name, measure_one(program, job.arguments, allocator))
    return results


def run_round(program: Path, jobs: Sequence[Job], results: Results, number: int) -> None:
    """One more round of all jobs under all allocators of *results*, in an order that depends on *number*."""
    results.begin_round()
    for at, job in enumerate(jobs):
        for allocator in rotated(results.allocators, number + at):
            sample = measure(program, job.arguments, allocator, job.test.environment)
            results.put(job.test.name, allocator.name, sample)


def as_json(results: Results) -> List[Mapping[str, Any]]:
    """Each test with all its samples and the summaries of its ratios."""
    rows: List[Mapping[str, Any]] = []
    for test in results.tests:
        ratios: Dict[str, Any] = {}
        for peer in results.peers:
            pair = {name: results.ratio(test.name, peer, field) for name, field in FIELDS.items()}
            ratios[peer] = {name: None if one is None else one.as_dict() for name, one in pair.items()}
        rows.append(
            {
                "name": test.name,
                "group": test.group,
                "about": test.about,
                "samples": {one.name: results.samples(test.name, one.name) for one in results.allocators},
                "ratios": ratios,
            }
        )
    return rows


FIELDS = {"time": "ns_per_op", "rss": "peak_rss_kib"}
