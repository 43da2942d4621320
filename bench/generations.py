#!/usr/bin/env python3
"""Stops of the five generations of the collector side by side, on one heap of growing size.

    python bench/generations.py                                    16 MiB to 1 GiB live, some minutes
    python bench/generations.py --live 16,64,256,1024,2048 --cycles 9 --png generations.png --json generations.json

The generations are those of Go: 1.0 marks and sweeps in one stop, 1.1 does so with all processors, 1.5 marks
beside the program and finishes in a stop, 1.6 moved work out of that stop, 1.8 has nothing left to scan again.
For each: the longest and the median stop, the time of a whole cycle, and the mutator utilisation, which is the
share of time in which the world was not stopped: over the whole run, and in the worst window of 10 and 100 ms.
The program is anchors/pa_generations.c.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "anchors"))
sys.path.append(str(HERE.parent))     # the tree's package, when none is installed

import programs  # noqa: E402
from catalog import PYALLOC  # noqa: E402
from programs import AnchorError, Missing  # noqa: E402

from pyalloc._bench import report, stats  # noqa: E402
from pyalloc._bench.report import Cell  # noqa: E402

MODES = ("serial", "parallel", "concurrent-1.5", "concurrent-1.6", "concurrent")
AS_IN = ("Go 1.0", "Go 1.1", "Go 1.5", "Go 1.6", "Go 1.8")
COLOURS = ("#b2182b", "#ef8a62", "#bdbdbd", "#67a9cf", "#2166ac")
WINDOWS_MS = (10, 100)


def utilisation(stops: Sequence[Tuple[int, int]], begin: int, end: int) -> float:
    """The share of [begin, end) that lies in none of *stops* (begin, end), which do not overlap."""
    stopped = sum(max(0, min(stop_end, end) - max(stop_begin, begin)) for stop_begin, stop_end in stops)
    return 1 - stopped / (end - begin)


def worst_utilisation(stops: Sequence[Tuple[int, int]], begin: int, end: int, window: int) -> float:
    """The smallest utilisation of any window (Cheng and Blelloch's MMU): one begins or ends with some stop."""
    if window >= end - begin:
        return utilisation(stops, begin, end)
    starts = [begin] + [at for stop_begin, stop_end in stops for at in (stop_begin, stop_end - window)]
    return min(utilisation(stops, at, at + window)
               for at in (max(begin, min(start, end - window)) for start in starts))


def analyse(figures: Dict[str, Any]) -> Dict[str, Any]:
    """What the table shows, from what the program printed."""
    begin, end = figures["begin_unix_ns"], figures["end_unix_ns"]
    stops = [(at - length, at) for length, at in zip(figures["stop_ns"], figures["stop_end_unix_ns"])]
    stops = [stop for stop in stops if begin <= stop[0] and stop[1] <= end]     # those of a cycle asked for
    if not stops:
        raise AnchorError("the collector reported no stop")
    lengths = sorted(1e-6 * (stop[1] - stop[0]) for stop in stops)
    found = {"stops": len(stops), "stop_max_ms": lengths[-1], "stop_median_ms": stats.quantile(lengths, 0.5),
             "cycle_ms": stats.quantile(sorted(figures["cycle_ms"]), 0.5),
             "utilisation": utilisation(stops, begin, end), "mops": figures["mops"],
             "op_max_ms": 1e-3 * figures["op_max_us"], "peak_rss_mib": figures["peak_rss_mib"]}
    for window in WINDOWS_MS:
        found[f"utilisation_{window}_ms"] = worst_utilisation(stops, begin, end, window * 1_000_000)
    return found


def print_table(rows: Sequence[Dict[str, Any]]) -> None:
    cells = []
    for row in rows:
        cells.append([Cell(f"{row['live_mib']:g}"), Cell(row["mode"]), Cell(row["as_in"])] + [
            Cell(f"{row[name]:.3f}" if row[name] < 10 else f"{row[name]:,.0f}")
            for name in ("stop_max_ms", "stop_median_ms", "cycle_ms")] + [
            Cell(f"{100 * row[name]:.1f} %")
            for name in ("utilisation", *(f"utilisation_{window}_ms" for window in WINDOWS_MS))] + [
            Cell(f"{row['op_max_ms']:,.1f}"), Cell(f"{row['mops']:.2f}"), Cell(f"{row['peak_rss_mib']:,.0f}")])
    report.print_table(
        "Stops, cycles and what is left to the mutators",
        ["live MiB", "mode", "as in", "longest stop ms", "median ms", "cycle ms", "utilisation",
         *(f"worst {window} ms" for window in WINDOWS_MS), "longest op ms", "Mops/s", "RSS MiB"], cells, left=3)


def draw(path: str, rows: Sequence[Dict[str, Any]], subtitle: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.6), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = (("stop_max_ms", "Longest stop, ms", True), ("cycle_ms", "Whole cycle, ms", True),
              (f"utilisation_{WINDOWS_MS[-1]}_ms", f"Utilisation in the worst {WINDOWS_MS[-1]} ms", False))
    for at, (name, title, logarithmic) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), at + 1)
        for mode, as_in, colour in zip(MODES, AS_IN, COLOURS):
            mine = [row for row in rows if row["mode"] == mode]
            axes.plot([row["live_mib"] for row in mine], [row[name] for row in mine], "o-", markersize=4,
                      color=colour, label=f"{mode} ({as_in})")
        axes.set_xscale("log", base=2)
        sizes = sorted({row["live_mib"] for row in rows})
        axes.set_xticks(sizes)
        axes.set_xticklabels([f"{size:g}" for size in sizes])
        axes.minorticks_off()
        if logarithmic:
            axes.set_yscale("log")
        else:
            axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("live data, MiB")
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        axes.grid(True, color="#e5e5e5")
        if at == 0:
            axes.legend(fontsize=8)
    figure.suptitle(f"Five generations of the collector\n{subtitle}", fontsize=11)
    figure.savefig(path, format="png")


def parse(words: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--live", default="16,64,256,1024", metavar="MIB", help="sizes; default 16,64,256,1024")
    parser.add_argument("--modes", default=",".join(MODES), help="default: all five")
    parser.add_argument("--cycles", type=int, default=5, help="collections a run; default 5")
    parser.add_argument("--object", type=int, default=128, metavar="BYTES", help="size of an object; default 128")
    parser.add_argument("--threads", type=int, default=2, help="mutators; default 2")
    parser.add_argument("--lib", type=Path, metavar="PATH", help="libpyalloc.so; default: the installed package's")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="S", help="of one run")
    parser.add_argument("--json", metavar="PATH", help="- for stdout instead of the table")
    parser.add_argument("--png", metavar="PATH")
    options = parser.parse_args(words)
    try:
        options.live = [float(word) for word in options.live.split(",")]
    except ValueError:
        parser.error("--live takes numbers of MiB, separated by commas")
    options.modes = options.modes.split(",")
    if set(options.modes) - set(MODES):
        parser.error("modes are " + ", ".join(MODES))
    return options


def work(options: argparse.Namespace, folder: Path) -> int:
    try:
        built = programs.build_pyalloc(folder, options.lib, ["generations"])
    except Missing as why:
        raise AnchorError(f"{why}; to get it: {programs.HINTS[PYALLOC]}") from why
    env = {name: value for name, value in os.environ.items() if name not in programs.TUNING}
    rows: List[Dict[str, Any]] = []
    samples = []
    for live in options.live:
        for mode in options.modes:          # the modes take turns, size by size
            print(f"{live:g} MiB, {mode} ...", file=sys.stderr, flush=True)
            words = [f"mode={MODES.index(mode)}", f"live_mib={live}", f"cycles={options.cycles}",
                     f"object={options.object}", f"threads={options.threads}"]
            figures, _ = programs.run([*built.commands["generations"], *words], env, options.timeout)
            if figures.get("whole") is False:
                raise AnchorError(f"objects were lost or changed: {mode}, {live:g} MiB")
            samples.append(figures)
            rows.append({"live_mib": live, "mode": mode, "as_in": AS_IN[MODES.index(mode)], **analyse(figures)})
    if options.json:
        value = {"schema": 1, "machine": report.machine(), "rows": rows, "samples": samples}
        text = json.dumps(value, indent=1)
        if options.json == "-":
            print(text)
        else:
            Path(options.json).write_text(text + "\n", encoding="utf-8")
    if options.json != "-":
        print_table(rows)
    if options.png:
        where = report.machine()
        try:
            draw(options.png, rows, f"{where['processor']}, {where['processors']} processors; "
                                    f"{options.cycles} cycles, {options.threads} mutators, "
                                    f"{options.object}-byte objects")
        except ImportError:
            raise AnchorError("no chart: pip install matplotlib") from None
    return 0


def main(words: Optional[Sequence[str]] = None) -> int:
    options = parse(words)
    try:
        with tempfile.TemporaryDirectory(prefix="pyalloc-generations-") as folder:
            return work(options, Path(folder))
    except (AnchorError, OSError) as error:
        print(f"generations: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("generations: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
