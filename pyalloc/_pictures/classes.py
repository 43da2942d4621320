"""``python -m pyalloc classes [--waste]``: what it takes and does."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import pyalloc
from pyalloc import _report
from pyalloc._pictures.commands import CommandError, add_program, is_program, launch, plots, subject, writable


def add_classes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--waste",
        action="store_true",
        help="what requests waste, by class; with a program or a " "recording, how much it wasted",
    )
    parser.add_argument(
        "--recorded",
        metavar="NAME",
        help="with --waste: a recorded program of the benchmark, or a " ".patrace.xz file",
    )
    parser.add_argument("--png", metavar="PATH", help="with --waste: draw it (matplotlib)")
    add_program(parser, "classes [--waste [options] [-- command [argument ...]]]")


def _table_of_waste(options: argparse.Namespace, table: list[Any]) -> None:
    if options.json:
        return
    rows = [
        (
            row.size_class,
            row.object_bytes,
            row.span_bytes,
            row.objects,
            row.smallest_request,
            f"{row.worst_percent:.1f} %",
            f"{row.average_percent:.1f} %",
        )
        for row in table
    ]
    _report.table(
        "Waste by class: of a span full of the smallest requests, and of requests of all sizes (tail included)",
        ["class", "object bytes", "span bytes", "objects", "smallest request", "at worst", "on average"],
        rows,
    )


def _measured_waste(options: argparse.Namespace) -> tuple[str, list[Any], int]:
    """Title, rows and exit code of what was measured, if anything was."""
    from pyalloc._pictures import waste

    if options.recorded:
        from pyalloc._bench import trace

        shipped = {trace.trace_name(path): path for path in trace.shipped()}
        path = shipped.get(options.recorded, Path(options.recorded))
        try:
            events = trace.load(path).events
        except FileNotFoundError:
            raise CommandError(
                f"no recording {options.recorded}: {', '.join(shipped)}, or a .patrace.xz file", 2
            ) from None
        except trace.TraceError as error:
            raise CommandError(str(error)) from None
        return (
            f"recorded {trace.trace_name(path) if path in shipped.values() else path.name}",
            waste.recorded(events),
            0,
        )
    if is_program(options):
        run = launch(options, trace=False)
        return f"{run.title} at its peak", waste.measured(subject(run).highest.classes), run.code
    return "this process", waste.measured(pyalloc.class_stats()), 0


def run_classes(options: argparse.Namespace) -> int:
    """The size-class table, or what it wastes."""
    if options.waste:
        return _run_waste(options)
    if options.png or options.recorded or options.words:
        raise CommandError("that is for --waste", 2)
    rows = pyalloc.size_classes()
    if options.json:
        _report.to_json(rows)
        return 0
    shown = [
        (
            row.size_class,
            row.object_bytes,
            row.span_bytes,
            row.objects,
            row.tail_waste_bytes,
            f"{100 * row.tail_waste_bytes / row.span_bytes:.2f} %",
        )
        for row in rows
    ]
    _report.table(
        "Size classes (requests above 32 KiB: whole 8 KiB pages)",
        ["class", "object bytes", "span bytes", "objects", "tail waste", "tail waste of span"],
        shown,
    )
    return 0


def _run_waste(options: argparse.Namespace) -> int:
    from pyalloc._pictures import waste

    if options.recorded and options.words or options.words and not is_program(options):
        raise CommandError("one of: nothing, --recorded NAME, -- command", 2)
    pictures = plots() if options.png else None
    writable(options.png)
    table = waste.by_class()
    title, rows, code = _measured_waste(options)
    if pictures is not None:
        pictures.waste(options.png, table, rows, f"Waste by size class: {title}")
    _table_of_waste(options, table)
    if options.json:
        _report.to_json(
            {
                "table": table,
                "measured": {
                    "of": title,
                    "kind": "recorded" if options.recorded else "live",
                    "classes": [_with_wasted(row) for row in rows],
                },
            }
        )
        return code
    print()
    if options.recorded:
        _report.table(
            f"Measured: {title}; bytes alive at the peak, and of all allocations",
            ["class", "object bytes", "requested", "slots", "wasted", "share", "of all allocations"],
            [
                (
                    row.size_class,
                    row.object_bytes,
                    row.requested,
                    row.slots,
                    row.wasted,
                    _share(row.wasted, row.slots),
                    _share(row.total_slots - row.total_requested, row.total_slots),
                )
                for row in rows
            ],
        )
        whole = sum(row.slots for row in rows)
    else:
        _report.table(
            f"Measured: {title}; rounding is estimated as half of its worst case",
            ["class", "object bytes", "span bytes", "alive", "rounding", "free slots", "tails", "wasted", "share"],
            [
                (
                    row.size_class,
                    row.object_bytes,
                    row.span_bytes,
                    row.live,
                    row.rounding,
                    row.free,
                    row.tail,
                    row.wasted,
                    _share(row.wasted, row.span_bytes),
                )
                for row in rows
            ],
        )
        whole = sum(row.span_bytes for row in rows)
    wasted = sum(row.wasted for row in rows)
    print(f"  in all {wasted:,} of {whole:,} bytes: {_share(wasted, whole)}")
    return code


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _with_wasted(row: Any) -> dict[str, Any]:
    return {**dataclasses.asdict(row), "wasted": row.wasted}
