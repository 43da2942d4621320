"""``python -m pyalloc map | timeline | report``: what they take and do; classes is in classes.py."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Callable, Optional

import pyalloc
from pyalloc import _report

_TIMELINE_PNG, _REPORT_HTML = "pyalloc-timeline.png", "pyalloc-report.html"
_KINDS = {"peak": "at its peak", "exit": "at exit"}


class CommandError(Exception):
    """Why a command cannot be done, for people; code is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


# ---- Arguments


def add_program(parser: argparse.ArgumentParser, usage: str) -> None:
    parser.usage = f"python -m pyalloc {usage}"
    group = parser.add_argument_group("of a program that is run")
    group.add_argument("--memory-limit", metavar="X", help="as for run")
    group.add_argument("--python-objects", action="store_true", help="as for run")
    group.add_argument("--no-background", dest="background", action="store_false", help="as for run")
    group.add_argument("--hz", type=float, default=50, help="samples of RSS a second (default: 50)")
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def add_map(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--png", metavar="PATH", help="draw every page into this file, with a legend (matplotlib)")
    parser.add_argument("--bare", action="store_true", help="with --png: the pages alone; needs no matplotlib")
    parser.add_argument(
        "--at", choices=("peak", "exit"), default="peak", help="of a program or a report: which moment"
    )
    add_program(parser, "map [options] [PYALLOC_REPORT's file | -- command [argument ...]]")


def add_timeline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="print the points as JSON; draw only where --png is given"
    )
    parser.add_argument("--png", metavar="PATH", help=f"the picture (default: {_TIMELINE_PNG})")
    parser.add_argument(
        "--save-trace", metavar="PATH", help="keep the trace, with RSS in it, for Perfetto or timeline"
    )
    add_program(parser, "timeline [options] (trace.json | -- command [argument ...])")


def add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", metavar="PATH", default=_REPORT_HTML, help=f"the page (default: {_REPORT_HTML})"
    )
    parser.add_argument(
        "--profile",
        metavar="PATH",
        help="a heap profile (.pb.gz) to show as well, read when the program "
        "has ended; left out when there is none",
    )
    add_program(parser, "report [options] -- command [argument ...]")


# ---- Running a program


def launch(options: argparse.Namespace, *, trace: bool) -> Any:
    from pyalloc import _run
    from pyalloc._pictures import launch as launching

    if not 0 < options.hz <= 1000:
        raise CommandError(f"--hz {options.hz:g}: samples a second, above 0 and at most 1000", 2)
    try:
        return launching.launch(
            options.words,
            hz=options.hz,
            trace=trace,
            limit=options.memory_limit,
            python_objects=options.python_objects,
            background=options.background,
            output_to_stderr=getattr(options, "json", False),
        )
    except _run.RunError as error:
        raise CommandError(str(error), error.code) from None
    except ValueError as error:
        raise CommandError(str(error), 2) from None


def is_program(options: argparse.Namespace) -> bool:
    return bool(options.words) and options.words[0] == "--"


def file_of(options: argparse.Namespace, what: str) -> Optional[str]:
    """The one file that was named; None when there is none."""
    if not options.words:
        return None
    if len(options.words) > 1:
        raise CommandError(f"one {what}, or a program behind --, not {' '.join(options.words)!r}", 2)
    return str(options.words[0])


def subject(run: Any) -> Any:
    if run.subject is None:
        raise CommandError(run.warning, run.code or 1)
    return run.subject


def writable(path: Optional[str]) -> None:
    """Said before the program runs, not after it."""
    if path is not None:
        folder = Path(path).absolute().parent
        if not folder.is_dir():
            raise CommandError(f"{path}: there is no folder {folder}")


def plots() -> Any:
    from pyalloc._pictures import plots

    try:
        plots.require()
    except ImportError as error:
        raise CommandError(str(error)) from None
    return plots


def _say(text: str) -> None:
    print(text, file=sys.stderr)


# ---- The commands


def run_map(options: argparse.Namespace) -> int:
    """The heap map of this process, of a program, or out of a file of PYALLOC_REPORT."""
    from pyalloc._pictures import raster, record
    from pyalloc._pictures.palette import LIGHT

    pictures = plots() if options.png and not options.bare else None
    writable(options.png)
    code, title, found = 0, "Heap of this process", None
    if is_program(options):
        run = launch(options, trace=False)
        one, code, name = subject(run), run.code, run.title
    elif path := file_of(options, "file of PYALLOC_REPORT"):
        try:
            one = record.read(path)
        except record.RecordError as error:
            raise CommandError(str(error)) from None
        name = one.program
    else:
        found = pyalloc.heap_map()
    if found is None:
        state = one.highest if options.at == "peak" else one.exit
        if state is None:
            raise CommandError("the program did not come to its exit: use --at peak", code or 1)
        title, found = f"Heap of {name} {_KINDS[options.at]}", state.heap_map
    if options.png and pictures is not None:
        pictures.heap_map(options.png, found, title)
    elif options.png:
        rows = raster.rows_of(found, raster.layout_for(len(found.arenas)))
        Path(options.png).write_bytes(raster.png(rows, LIGHT))
    sums = {**found.counts(), "huge": sum(sum(arena.huge) for arena in found.arenas)}
    if options.json:
        _report.to_json(
            {"arenas": [arena.address for arena in found.arenas], "pages": sums, "pinned": found.pinned()}
        )
    else:
        _report.table(
            f"{title}, 8 KiB pages by state; huge: of all those, in huge pages",
            ["state", "pages", ""],
            [(name, count, _report.human(count * 8192)) for name, count in sums.items()],
        )
    return code


def run_timeline(options: argparse.Namespace) -> int:
    """Memory over time of a program, or out of a trace."""
    from pyalloc._pictures import series

    picture = options.png or (None if options.json else _TIMELINE_PNG)
    pictures = plots() if picture else None
    writable(picture)
    writable(options.save_trace)
    code = 0
    if is_program(options):
        run = launch(options, trace=True)
        found, code = run.timeline(), run.code
        if run.warning:
            _say(f"pyalloc timeline: {run.warning}")
        if options.save_trace:
            import json

            document = run.trace_with_rss()
            if document is None:
                raise CommandError(
                    "there is no trace to save: " + (run.warning or "the program did not end by exit()"), code or 1
                )
            Path(options.save_trace).write_text(json.dumps(document), encoding="utf-8")
    elif path := file_of(options, "trace"):
        try:
            document = series.load_trace(path)
            found = series.timeline(f"{series.program_of(document)} ({os.path.basename(path)})", document)
        except series.TraceError as error:
            raise CommandError(str(error)) from None
    else:
        raise CommandError("of what? A trace.json, or a program: python -m pyalloc timeline -- sort file", 2)
    if pictures is not None:
        pictures.timeline(picture, found)
    if options.json:
        _report.to_json(found)
        return code
    lengths = [length for _, length in found.pauses]
    rows: list[tuple[_report.Cell, ...]] = [("seconds", f"{found.end:.3f}")]
    rows += [
        (f"peak {name}", _report.human(int(max(value for _, value in points))))
        for name, points in (("RSS", found.rss), ("heap in use", found.in_use), ("goal", found.goal))
        if points
    ]
    rows += [("collections", len(found.cycles)), ("pauses", len(lengths))]
    rows += [
        (f"pause, {name}", f"{series.percentile(lengths, percent) * 1e6:,.1f} µs")
        for name, percent in (("median", 50), ("99 %", 99), ("longest", 100))
        if lengths
    ]
    _report.table(f"Memory over time: {found.title}", ["figure", "value"], rows)
    _say(f"{picture} written")
    return code


def run_report(options: argparse.Namespace) -> int:
    """The HTML page about a program."""
    from pyalloc._pictures import html, profile

    if not options.words:
        raise CommandError("no command; for example: python -m pyalloc report -- sort file", 2)
    writable(options.output)
    run = launch(options, trace=True)
    sites = None
    if options.profile:
        try:
            sites = profile.read(options.profile)
        except FileNotFoundError:
            _say(f"pyalloc report: there is no profile {options.profile}: the page goes without")
        except (OSError, profile.ProfileError) as error:
            _say(f"pyalloc report: {error}: the page goes without")
    Path(options.output).write_text(html.page(run, profile=sites), encoding="utf-8")
    _say(f"{options.output} written")
    return int(run.code)


def guarded(name: str, command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Errors as one line and an exit code."""

    def run(options: argparse.Namespace) -> int:
        try:
            return command(options)
        except BrokenPipeError:
            raise
        except CommandError as error:
            message, code = str(error), error.code
        except OSError as error:
            message, code = str(error), 1
        print(f"pyalloc {name}: {message}", file=sys.stderr)
        return code

    return run
