"""The ``bench`` command: options in, tables, JSON and PNG out."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from typing import Any, Dict, List, Mapping, Optional, Sequence

from pyalloc import _bench
from pyalloc._bench import allocators, bars, catalog, chart, instructions, report, runner
from pyalloc._bench.allocators import OURS, Allocator, BenchError
from pyalloc._bench.catalog import Workload

QUICK_SCALE, QUICK_ROUNDS, QUICK_LIMIT_S = 0.25, 3, 20.0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _Progress:
    """A bar on stderr where rich and a terminal are there, else one line at the start of each round."""

    def __init__(self, stack: ExitStack, rounds: int, per_round: int) -> None:
        self._rounds, self._round = rounds, -1
        self._bar: Any = None
        if report.use_rich(sys.stderr):
            from rich import progress
            from rich.console import Console

            self._bar = stack.enter_context(
                progress.Progress(
                    progress.TextColumn("{task.description:<42}"),
                    progress.BarColumn(),
                    progress.MofNCompleteColumn(),
                    progress.TimeElapsedColumn(),
                    console=Console(stderr=True),
                    transient=True,
                )
            )
            self._task = self._bar.add_task("", total=rounds * per_round)
            self._seen = 0

    def __call__(self, number: int, test: Workload, allocator: Allocator) -> None:
        if self._bar is not None:
            text = f"round {number + 1}: {test.name}, {allocator.name}"
            self._bar.update(self._task, completed=self._seen, description=text)
            self._seen += 1
        elif number != self._round:
            _say(f"round {number + 1} of {self._rounds} ...")
        self._round = number


def _list(
    tests: Sequence[Workload], found: Sequence[Allocator], missing: Mapping[str, str], as_json: Optional[str]
) -> int:
    if as_json is not None:
        value: Dict[str, Any] = {
            "tests": [{"name": t.name, "group": t.group, "about": t.about} for t in tests],
            "allocators": {one.name: one.library for one in found},
            "missing": dict(missing),
        }
        report.emit_json(as_json, value)
        return 0
    Cell = report.Cell
    report.print_table(
        "Tests", ["name", "group", "about"], [[Cell(t.name), Cell(t.group), Cell(t.about)] for t in tests], 3
    )
    rows = [[Cell(one.name), Cell(one.library or "(the C library)")] for one in found]
    report.print_table("Allocators", ["name", "library"], rows, 2)
    return 0


def _tell_missing(missing: Mapping[str, str]) -> None:
    for name, hint in missing.items():
        _say(f"{name} is not installed, skipped; to get it: {hint}")


def _base(found: Sequence[Allocator], missing: Mapping[str, str]) -> Dict[str, Any]:
    return {
        "schema": 1,
        "machine": report.machine(),
        "allocators": {one.name: {"library": one.library, "env": dict(one.env)} for one in found},
        "missing": dict(missing),
        "tuning_variables": runner.tuning_variables(),
    }


def _run(args: argparse.Namespace) -> int:
    if args.png is not None:
        chart.check()
    found, missing = allocators.find()
    found = allocators.select(found, args.peers)
    tests: List[Workload] = bars.tests() if args.bars else catalog.all_tests()
    tests = catalog.select(tests, args.only)
    if args.list:
        return _list(tests, found, missing, args.json)
    program = runner.kernels_path()
    if args.peers is None:
        _tell_missing(missing)
    if runner.tuning_variables():
        _say("these variables may change the figures: " + ", ".join(runner.tuning_variables()))

    counted = instructions.count(program, found) if args.instructions else None
    if counted is not None and not args.bars:
        if args.json is not None:
            report.emit_json(args.json, {**_base(found, missing), "instructions_per_pair": counted})
        else:
            report.print_instructions(counted)
        return 0

    if len(found) < 2:
        raise BenchError("there is nothing to compare with")
    rounds = args.rounds or (
        bars.ROUNDS if args.bars else QUICK_ROUNDS if args.quick else _bench.DEFAULT_ROUNDS
    )
    limit = args.time_limit or (
        None if args.bars else QUICK_LIMIT_S if args.quick else _bench.DEFAULT_TIME_LIMIT
    )
    scale = args.scale or (QUICK_SCALE if args.quick else 1.0)
    started = time.monotonic()
    with ExitStack() as stack:
        jobs = runner.prepare(stack, program, tests, scale)
        progress = _Progress(stack, rounds, len(jobs) * len(found))
        deadline = None if limit is None else started + limit
        one = runner.measure_cpu if args.cpu_time else runner.measure
        results = runner.run_rounds(
            program, jobs, found, rounds=rounds, deadline=deadline, before=progress, measure_one=one
        )
    elapsed = time.monotonic() - started
    samples = min(len([s for s in results.samples(t.name, OURS) if s is not None]) for t in tests)

    verdicts = []
    if args.bars:
        names = {test.name for test in tests}
        verdicts = [
            bars.judge(results, clause) for clause in bars.clauses() if names.issuperset(clause.tests)
        ]
    if args.json is not None:
        value = {
            **_base(found, missing),
            "seconds": elapsed,
            "rounds": results.rounds,
            "scale": scale,
            "clock": "processor time" if args.cpu_time else "elapsed time",
            "headline": report.headlines(results),
            "geometric_means": report.geometric_means(results),
            "tests": runner.as_json(results),
        }
        if args.bars:
            value["bars"] = [verdict.as_dict() for verdict in verdicts]
            value["instructions_per_pair"] = counted
        report.emit_json(args.json, value)
    if args.json != "-":
        report.print_results(results, "Processor time" if args.cpu_time else "Time")
        if args.bars:
            report.print_verdicts(verdicts)
            if counted is not None:
                report.print_instructions(counted)
    _say(f"{samples} complete rounds in {elapsed:.0f} s")
    if args.png is not None:
        where = report.machine()
        subtitle = f"{where['processor']}, {where['processors']} processors, {where['libc']}; "
        subtitle += f"median and quartiles of {samples} round{'' if samples == 1 else 's'}"
        chart.write(args.png, results, subtitle)
        _say(f"chart: {args.png}")
    return 1 if any(verdict.status == bars.FAIL for verdict in verdicts) else 0


# Of ``bench``, what whole programs can't do.
_NOT_DROPIN = ("list", "bars", "instructions", "time_limit", "quick", "scale", "cpu_time", "png")


def _run_dropin(args: argparse.Namespace) -> int:
    from pyalloc._bench import dropin

    wrong = ["--" + name.replace("_", "-") for name in _NOT_DROPIN if getattr(args, name)]
    if wrong:
        raise BenchError(f"--dropin runs whole programs and goes with --only, --peers, --rounds and --json, not with "
                         f"{', '.join(wrong)}")
    return dropin.run(args.rounds or _bench.DEFAULT_ROUNDS, args.only, args.json, args.peers)


def run(args: argparse.Namespace) -> int:
    """Carries out the parsed options of ``bench``; errors become one line on stderr and exit code 2."""
    try:
        if args.dropin:
            return _run_dropin(args)
        return _run(args)
    except BenchError as error:
        _say(f"pyalloc bench: {error}")
        return 2
    except KeyboardInterrupt:
        _say("pyalloc bench: interrupted")
        return 130
