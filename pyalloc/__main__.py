"""``python -m pyalloc``: run, top, report, bench, classes, stats, metrics, map, timeline, rss, options, doctor."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from typing import Any, Optional, Sequence

import pyalloc
from pyalloc import _report
from pyalloc._pictures import classes
from pyalloc._pictures import commands as pictures


def _stats(options: argparse.Namespace) -> int:
    stats = pyalloc.read_mem_stats()
    used = [row for row in pyalloc.class_stats() if row.spans]
    if options.json:
        _report.to_json({"mem_stats": stats, "classes": used})
        return 0
    _report.table("Heap of this process (bytes, or a count)", ["field", "value"],
                  [(name, value) for name, value in dataclasses.asdict(stats).items()])
    print()
    _report.table("Size classes in use (0 = large)", ["class", "object bytes", "spans", "span bytes", "objects"],
                  [dataclasses.astuple(row) for row in used])
    return 0


def _rss(options: argparse.Namespace) -> int:
    import psutil

    try:
        memory = pyalloc.rss(options.pid)
    except (psutil.Error, ValueError) as error:
        print(f"pyalloc rss: {error}", file=sys.stderr)
        return 1
    if options.json:
        _report.to_json(memory)
        return 0
    rows: list[tuple[_report.Cell, ...]] = []
    for name, value in dataclasses.asdict(memory).items():
        is_bytes = value is not None and not name.endswith("_faults")
        if name != "pid":
            rows.append((name, value, _report.human(value) if is_bytes else ""))
    _report.table(f"Memory of process {memory.pid}", ["field", "value", ""], rows)
    return 0


def _plain(value: Any) -> Any:
    """A metric's value for JSON, which has no infinity: null stands for the last, open bound."""
    if not isinstance(value, pyalloc.Histogram):
        return value
    return {"counts": value.counts, "bounds": [None if bound == float("inf") else bound for bound in value.bounds]}


def _metrics(options: argparse.Namespace) -> int:
    found = pyalloc.metrics()
    if options.json:
        shown_as = {name: {**one._asdict(), "value": _plain(one.value)} for name, one in found.items()}
        _report.to_json(shown_as)
        return 0
    rows: list[tuple[_report.Cell, ...]] = []
    for name, one in found.items():
        value = one.value
        shown = f"{value.total:,} values" if isinstance(value, pyalloc.Histogram) else value
        rows.append((name, "none" if value == 2**64 - 1 else shown, one.doc))
    _report.table("Metrics of this process", ["name", "value", "what it is"], rows)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from pyalloc import _doctor as doctor

    findings = doctor.examine()
    if options.json:
        _report.to_json(findings)
    else:
        _report.table("pyalloc doctor", ["check", "status", "value", "hint"],
                      [(one.check, one.status, one.value, one.hint) for one in findings])
    return 1 if any(one.status == "fail" for one in findings) else 0


def _options(options: argparse.Namespace) -> int:
    from pyalloc import _options as run_time

    rows = run_time.options()
    if options.json:
        _report.to_json(rows)
        return 0
    _report.table("Options, in the environment when the library is loaded",
                  ["name", "type", "default", "value", "from", "what it does"],
                  [(one.name, one.type.lower(), one.default, "off" if one.value is None else str(one.value), one.source,
                    one.doc) for one in rows])
    return 0


def _run(options: argparse.Namespace) -> int:
    from pyalloc import _run as run

    return run.run(options.words, limit=options.memory_limit, python_objects=options.python_objects,
                   stats_at_exit=options.stats_at_exit, background=options.background, trace=options.trace,
                   live=options.live, profile=options.profile, profile_rate=options.profile_rate)


def _top(options: argparse.Namespace) -> int:
    from pyalloc import _top as top

    return top.top(options.words, interval=options.interval, count=options.count, as_json=options.json,
                   limit=options.memory_limit, python_objects=options.python_objects)


def _bench(options: argparse.Namespace) -> int:
    from pyalloc import _bench as bench

    return int(bench.main(options) or 0)


def _parser(command: Optional[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pyalloc",
        description="pyalloc: Go's memory manager as a library. Sizes are bytes.",
    )
    parser.add_argument("--version", action="version", version=f"pyalloc {pyalloc.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    run = add("run", _run, "run a program with pyalloc as its malloc")
    run.usage = "python -m pyalloc run [options] -- command [argument ...]"
    run.add_argument("--memory-limit", metavar="X", help="soft limit: bytes, 512MiB, 80%% (of the cgroup's limit or "
                     "the machine's memory), auto (90%% of the cgroup's limit) or off")
    run.add_argument("--python-objects", action="store_true",
                     help="of a Python program: its objects too (PYTHONMALLOC=malloc)")
    run.add_argument("--stats-at-exit", action="store_true", help="write a summary to stderr when a process exits")
    run.add_argument("--trace", metavar="PATH", help="write an execution trace when a process exits: JSON for "
                     "ui.perfetto.dev; %%p in the path is the process id")
    run.add_argument("--live", action="store_true", help="let python -m pyalloc top look at its processes")
    run.add_argument("--profile", metavar="PATH", help="write a heap profile when a process exits, for go tool pprof "
                     "and speedscope; %%p in the path is the process id")
    run.add_argument("--profile-rate", metavar="N", help="bytes between two samples of the profile on average, "
                     "512KiB; 1 samples every block")
    run.add_argument("--no-background", dest="background", action="store_false",
                     help="start no thread; idle memory then goes back when the program allocates or frees")
    run.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)

    top = add("top", _top, "look at the heap of a process while it runs: figures that are drawn anew, or lines")
    top.usage = "python -m pyalloc top [options] PID | -- command [argument ...]"
    top.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="between two looks (default: 1)")
    top.add_argument("--count", type=int, default=None, metavar="N", help="end after so many looks")
    top.add_argument("--json", action="store_true", help="print a line of JSON a look")
    top.add_argument("--memory-limit", metavar="X", help="of the command, as for run")
    top.add_argument("--python-objects", action="store_true", help="of a Python command, as for run")
    top.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)

    bench = add("bench", _bench, "compare pyalloc with glibc malloc and the peers that are installed")
    if command == "bench":  # its modules are worth loading only for itself
        from pyalloc import _bench as bench_package

        bench_package.add_arguments(bench)
    for name, text in (
        ("classes", "the size-class table; --waste: what it wastes, of a program too"),
        ("map", "pages of the heap by state, of this process or a program; --png draws them"),
        ("timeline", "memory and pauses of a program over time, as a picture"),
        ("report", "an HTML page about a program's memory: heap map, timeline, waste, collections"),
    ):
        where = classes if name == "classes" else pictures
        getattr(where, f"add_{name}")(add(name, pictures.guarded(name, getattr(where, f"run_{name}")), text))
    quick = [
        add("stats", _stats, "statistics of the heap of this process"),
        add("metrics", _metrics, "the same by the names of Go's runtime/metrics, with descriptions"),
        add("rss", _rss, "memory of a process as the operating system sees it, and ours beside it"),
        add("options", _options, "the run-time options (PYALLOC_* in the environment) and their values here"),
        add("doctor", _doctor, "check the environment and the heap; exit code 1 when something is broken"),
    ]
    for one in quick:
        one.add_argument("--json", action="store_true", help="print JSON")
    quick[2].add_argument("--pid", type=int, default=None, help="another process (default: this one)")
    return parser


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs one command, returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser(words[0] if words else None).parse_args(words)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


if __name__ == "__main__":
    sys.exit(main())
