#!/usr/bin/env python3
"""What would a generational or compacting collector save here, and what would it cost? Stores and
allocations, one by one.

A generational collector marks a card at every pointer store of the program's life; the hybrid barrier is a
test while no mark phase runs and more only while one does. A moving collector allocates by bumping a pointer;
size classes pop a slot. The table has ns an operation, less the loop's own, as the best of interleaved
rounds. docs/why-not-generational-or-compacting.md draws the conclusions.

    python bench/rss/generational.py [--quick] [--json PATH] [--png PATH]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, List, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent))

import common  # noqa: E402
from common import Row  # noqa: E402

NAME = "generational"
TITLE = "Stores and allocations of 48 bytes, ns each"
COLUMNS = {"step": "operation", "about": "", "ns": "ns", "net_ns": "less the loop"}
STEPS = {
    "empty": "the loop of stores and a call",
    "store": "a plain store",
    "barrier_off": "pa_store, no mark phase",
    "barrier_on": "pa_store in a mark phase",
    "cards": "a store that marks a card",
    "bump": "bump a pointer, zero",
    "managed": "pa_new, with its collections",
    "explicit": "pa_malloc and pa_free",
    "empty_alloc": "the loop of allocations and a call",
}
ALLOCATIONS = ("bump", "managed", "explicit", "empty_alloc")


def run(options: argparse.Namespace) -> List[Row]:
    ops, rounds = (300_000, 3) if options.quick else (50_000_000, 7)
    best: dict[str, float] = {}
    with common.scratch() as folder:
        program = common.build(Path(folder), "generations", ["generations.c"], "-lpyalloc")
        for _ in range(rounds):
            for step in STEPS:
                count = ops // 10 if step == "barrier_on" else ops
                found = common.run_json([program, step, count])
                best[step] = min(best.get(step, found["ns"]), found["ns"])
    loops = {step: best["empty_alloc" if step in ALLOCATIONS else "empty"] for step in STEPS}
    return [{"step": step, "about": about, "ns": best[step], "net_ns": best[step] - loops[step]}
            for step, about in STEPS.items()]


def draw(figure: Any, rows: Sequence[Row]) -> None:
    axes = common.axes_of(figure, 111, "", "ns", "")
    axes.barh(range(len(rows)), [row["ns"] for row in rows], color=common.COLOURS[1])
    axes.set_yticks(range(len(rows)))
    axes.set_yticklabels([row["about"] for row in rows])
    axes.invert_yaxis()


if __name__ == "__main__":
    sys.exit(common.main(sys.modules[__name__]))
