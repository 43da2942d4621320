"""What people see: a headline, two tables (time and peak RSS, ours / peer), verdicts.

rich draws them where it is installed and stdout is a terminal; otherwise plain text with the same content.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from typing import Any, Dict, List, Mapping, Optional, Sequence, TextIO

from pyalloc._bench import catalog
from pyalloc._bench.allocators import OURS, BenchError
from pyalloc._bench.bars import FAIL, PASS, Verdict
from pyalloc._bench.runner import FIELDS, Results
from pyalloc._bench.stats import Summary

GOOD, BAD = 1.0, 1.05  # at or below: green; above: red
MEANS = (("all tests", None), ("kernels", catalog.KERNELS), ("recorded programs", catalog.TRACES))


def use_rich(stream: TextIO) -> bool:
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return False
    try:
        import rich  # noqa: F401
    except ImportError:
        return False
    return True


def emit_json(target: str, value: Mapping[str, Any]) -> None:
    """To the file *target*, or to stdout where that is ``-``."""
    text = json.dumps(value, indent=2)
    if target == "-":
        print(text)
        return
    try:
        with open(target, "w", encoding="utf-8") as stream:
            stream.write(text + "\n")
    except OSError as error:
        raise BenchError(f"cannot write {target}: {error}") from error


def machine() -> Dict[str, Any]:
    """What the figures depend on besides the allocators."""
    model = ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
            model = next(
                (line.split(":", 1)[1].strip() for line in stream if line.startswith("model name")), ""
            )
    except OSError:
        pass
    return {
        "processor": model or platform.processor(),
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()).strip(),
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
        "load_average": os.getloadavg()[0],
    }


def geometric_means(results: Results) -> Dict[str, Dict[str, Dict[str, Optional[float]]]]:
    """{peer: {group label: {"time": ratio, "rss": ratio}}}."""
    return {
        peer: {
            label: {name: results.geometric_mean(peer, field, group) for name, field in FIELDS.items()}
            for label, group in MEANS
        }
        for peer in results.peers
    }


def headlines(results: Results) -> List[str]:
    """One line per peer, the ratios first."""
    lines = []
    for peer, groups in geometric_means(results).items():
        parts = []
        for label, group in MEANS:
            tests = [t for t in results.tests if group is None or t.group == group]
            means = groups[label]
            if tests and means["time"] is not None and means["rss"] is not None:
                if group is None or len(tests) < len(results.tests):
                    count = f"{len(tests)} tests" if group is None else label
                    parts.append(f"time {means['time']:.2f}x, RSS {means['rss']:.2f}x ({count})")
        lines.append(f"{OURS} vs {peer}: " + "; ".join(parts))
    return lines


def ratio_text(one: Optional[Summary]) -> str:
    """The median and half the interquartile range in percent of it: '0.82 ±3%'; a single round has no spread."""
    if one is None:
        return "-"
    if one.n < 2 or one.median <= 0:
        return f"{one.median:.2f}"
    return f"{one.median:.2f} ±{50 * one.iqr / one.median:.0f}%"


def _amount(value: Optional[float]) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


class Cell:
    """A text with an optional colour for terminals."""

    def __init__(self, text: str, colour: Optional[str] = None) -> None:
        self.text, self.colour = text, colour


def _ratio_cell(one: Optional[Summary]) -> Cell:
    if one is None:
        return Cell("-")
    return Cell(ratio_text(one), "green" if one.median <= GOOD else "red" if one.median > BAD else None)


def _mean_cell(value: Optional[float]) -> Cell:
    if value is None:
        return Cell("-")
    return Cell(f"{value:.2f}", "bold green" if value <= GOOD else "bold red" if value > BAD else "bold")


def ratio_rows(results: Results, name: str) -> List[List[Cell]]:
    field = FIELDS[name]
    rows = []
    for test in results.tests:
        own = results.summary(test.name, OURS, field)
        value = None if own is None else own.median / (1 if name == "time" else 1024)
        row = [Cell(test.name), Cell(_amount(value))]
        rows.append(row + [_ratio_cell(results.ratio(test.name, peer, field)) for peer in results.peers])
    groups = {test.group for test in results.tests}
    for label, group in MEANS:
        if group is None or (group in groups and len(groups) > 1):
            means = [results.geometric_mean(peer, field, group) for peer in results.peers]
            rows.append([Cell(f"geometric mean, {label}", "bold"), Cell(""), *map(_mean_cell, means)])
    return rows


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], left: int = 1) -> None:
    """The first *left* columns are flush left, the others right."""
    if use_rich(sys.stdout):
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title, title_justify="left", header_style="bold")
        for at, name in enumerate(columns):
            table.add_column(name, justify="left" if at < left else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(cell.text, style=cell.colour or "") for cell in row))
        Console().print(table)
        return
    texts = [list(columns), *([cell.text for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in texts) for at in range(len(columns))]
    print(title)
    for row_at, line in enumerate(texts):
        cells = [
            text.ljust(w) if at < left else text.rjust(w) for at, (text, w) in enumerate(zip(line, widths))
        ]
        print("  ".join(cells).rstrip())
        if row_at == 0:
            print("  ".join("-" * w for w in widths))
    print()


def print_results(results: Results, clock: str = "Time") -> None:
    """Headlines and both tables; *clock* says what the first compares."""
    for line in headlines(results):
        print(line)
    print()
    note = "median of paired ratios ± half the interquartile range; below 1 is better for pyalloc"
    peers = [f"/ {peer}" for peer in results.peers]
    print_table(f"{clock}, {OURS} / peer ({note})", ["test", "ns/op", *peers], ratio_rows(results, "time"))
    print_table(
        f"Peak RSS, {OURS} / peer (without the test's own tables)",
        ["test", "MiB", *peers],
        ratio_rows(results, "rss"),
    )


def print_verdicts(verdicts: Sequence[Verdict]) -> None:
    rows = []
    for one in verdicts:
        colour = "green" if one.status == PASS else "bold red" if one.status == FAIL else "yellow"
        digits = 2 if one.clause.field in FIELDS else 0
        measured, spread, count = "-", "-", "-"
        if one.summary is not None:
            measured = f"{one.summary.median:.{digits}f}"
            spread = f"{one.summary.q1:.{digits}f} .. {one.summary.q3:.{digits}f}"
            count = str(one.summary.n)
        bound = f"<= {one.clause.limit:.{digits}f}"
        what = one.clause.text
        cells = [str(one.clause.bar), what, one.against, one.status, measured, bound, spread, count]
        rows.append([Cell(text, colour if at == 3 else None) for at, text in enumerate(cells)])
    columns = ["bar", "what", "against", "verdict", "median", "bound", "quartiles", "n"]
    print_table("Performance bars", columns, rows, left=4)
    count_of = {status: sum(v.status == status for v in verdicts) for status in {v.status for v in verdicts}}
    print(", ".join(f"{count} {status}" for status, count in sorted(count_of.items())))


def print_instructions(counted: Mapping[str, Mapping[int, float]]) -> None:
    sizes = sorted({size for row in counted.values() for size in row})
    rows = [[Cell(name), *(Cell(f"{row[size]:.1f}") for size in sizes)] for name, row in counted.items()]
    print_table(
        "Instructions per malloc+free pair (bytes wanted)",
        ["allocator", *(f"{size:,}" for size in sizes)],
        rows,
    )
