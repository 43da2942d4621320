#!/usr/bin/env python3
"""How much of pa_mutate's longest operations is the collector's, and how much the machine's.

    python bench/anchors/latency.py --n 5000000 --seconds 10 --rounds 5
    python bench/anchors/latency.py --lib before=/tmp/old/libpyalloc.so --lib after=pyalloc/libpyalloc.so

In each round, in turn: two threads that only compute (machine.c), the same beside a helper with the duty of a
fractional marker, pa_mutate without collections (GOGC=off, no churn), pa_mutate with each library, and Go.  Medians
over rounds.  "waited" is the part of operations of 1 ms and more that their threads spent waiting for a processor,
"stolen" what the hypervisor took (delay.h); "own" is the longest operation less both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.append(str(Path(__file__).resolve().parents[2]))

import programs  # noqa: E402

from pyalloc._bench import report  # noqa: E402
from pyalloc._bench.report import Cell  # noqa: E402

COLUMNS = (("mops", "Mops/s"), ("op_p999_ns", "p99.9, ns"), ("op_max_us", "longest, us"), ("own_max_us", "own, us"),
           ("long_ops", ">= 1 ms"), ("long_ms", "their ms"), ("long_waited_ms", "waited"), ("long_stolen_ms", "stolen"),
           ("long_cpu_ms", "processor"),
           ("stop_p99_us", "stop p99, us"), ("stop_max_us", "longest stop"))


class Variant(NamedTuple):
    name: str
    command: Tuple[str, ...]
    env: Dict[str, str]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, default=20_000_000, help="live objects")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lib", action="append", default=[], metavar="NAME=PATH[,VARIABLE=VALUE...]",
                        help="a libpyalloc.so and its environment; several; default: the installed one")
    parser.add_argument("--helper", default="share=0.5 chunk_us=120", help="machine.c's options, words")
    parser.add_argument("--no-go", action="store_true")
    parser.add_argument("--no-controls", action="store_true")
    return parser.parse_args()


def build_machine(folder: Path) -> str:
    target = folder / "machine"
    programs._call([*programs.compiler(), *programs.C_FLAGS, programs.HERE / "machine.c", "-o", target, "-lm"])
    return str(target)


def variants(options: argparse.Namespace, folder: Path) -> List[Variant]:
    machine, seconds = build_machine(folder), f"seconds={options.seconds}"
    heap = (f"n={options.n}", "threads=2", seconds, "explain=1")
    found = [] if options.no_controls else [
        Variant("two threads", (machine, seconds), {}),
        Variant("+ helper", (machine, seconds, "helpers=1", *options.helper.split()), {})]
    for number, text in enumerate(options.lib or [f"pyalloc={programs.installed_library()}"]):
        name, _, rest = text.partition("=")
        path, *settings = rest.split(",")
        where = folder / str(number)
        where.mkdir()
        command = programs.build_pyalloc(where, Path(path), ("mutate",)).commands["mutate"]
        env = dict(one.split("=", 1) for one in settings)
        if number == 0 and not options.no_controls:
            found.append(Variant("GOGC=off", (*command, *heap, "churn=0"), {"GOGC": "off"}))
        found.append(Variant(name, (*command, *heap, "churn=8"), env))
    if not options.no_go:
        go = programs.build_go(folder).commands["mutate"]
        found.append(Variant("Go", (*go, *heap[:-1], "churn=8"), {}))
    return found


def main() -> int:
    options = parse()
    clean = {name: value for name, value in os.environ.items() if name not in programs.TUNING}
    with tempfile.TemporaryDirectory(prefix="pyalloc-latency-") as scratch:
        chosen = variants(options, Path(scratch))
        samples: Dict[str, List[Dict[str, Any]]] = {one.name: [] for one in chosen}
        for number in range(options.rounds):
            turn = number % len(chosen)
            for one in chosen[turn:] + chosen[:turn]:
                samples[one.name].append(programs.run(one.command, {**clean, **one.env}, 600)[0])
    rows = []
    for name, found in samples.items():
        cells = [Cell(name)]
        for key, _ in COLUMNS:
            values = [one[key] for one in found if key in one]
            cells.append(Cell("-" if not values else f"{statistics.median(values):,.3g}"))
        longest = max(found, key=lambda one: one["op_max_us"])
        cells.append(Cell(" / ".join(f"{one:,.0f}" for one in longest.get("longest_us", [longest["op_max_us"]]))))
        rows.append(cells)
    report.print_table("Medians; last: the longest of all runs, us: wall / processor / waited / stolen",
                       ["what", *(title for _, title in COLUMNS), "longest of all"], rows, left=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
