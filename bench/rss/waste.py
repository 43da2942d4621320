#!/usr/bin/env python3
"""How much memory do other ways to manage blocks take for the same program? Recorded traces are replayed on
five small allocators.

Size classes (ours, Go's), slab (a cache for each object size), buddy (powers of two: 17 bytes take 32),
Kernighan and Ritchie's first fit (a 16-byte header a block) and a region (nothing is reused), each written
anew and small in this folder. At the moment when the program has most memory: what it asked for, what the
blocks occupy (the difference is internal waste), and what the allocator holds. The beginnings of the traces
are replayed, 400,000 events: first fit's time grows with the square.

    python bench/rss/waste.py [--quick] [--json PATH] [--png PATH]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, List, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent))

import common  # noqa: E402
from common import Row  # noqa: E402

from pyalloc._bench import runner, trace  # noqa: E402

NAME = "waste"
TITLE = "Internal waste and memory held, by design, on recorded programs"
COLUMNS = {"trace": "trace", "design": "design", "asked_mib": "asked for MiB", "internal": "internal waste",
           "held": "held / asked", "top_held_mib": "held at most MiB"}
SOURCES = ("waste.c", "sim_spans.c", "sim_buddy.c", "sim_kr.c", "sim_region.c")
DESIGNS = 5
QUICK = ("sqlite-index", "python-json")


def run(options: argparse.Namespace) -> List[Row]:
    rows: List[Row] = []
    # First fit walks its free list for each block: a whole trace of some million events would take it hours.
    events = 60_000 if options.quick else 400_000
    with common.scratch() as place:
        folder = Path(place)
        program = common.build(folder, "waste", SOURCES, "-lpyalloc")
        for path in trace.shipped():
            name = trace.trace_name(path)
            if options.quick and name not in QUICK:
                continue
            compact, flat = folder / "compact", folder / "flat"
            compact.write_bytes(trace.decompress(path))
            common.run_json([runner.kernels_path(), "expand", "--trace", compact, "--output", flat])
            for design in range(DESIGNS):
                found = common.run_json([program, flat, design, events], timeout=300)
                asked = found["asked"]
                rows.append({"trace": name, "design": found["design"], "asked_mib": asked / 2**20,
                             "internal": found["occupied"] / asked - 1, "held": found["held"] / asked,
                             "top_held_mib": found["top_held"] / 2**20, "events": found["events"]})
    return rows


def draw(figure: Any, rows: Sequence[Row]) -> None:
    traces = sorted({row["trace"] for row in rows})
    for place, field, title in ((121, "internal", "Internal waste"), (122, "held", "Held / asked for")):
        axes = common.axes_of(figure, place, title, "", "share of what was asked for" if place == 121 else "")
        designs = [row["design"] for row in rows if row["trace"] == traces[0]]
        for at, (design, colour) in enumerate(zip(designs, common.COLOURS)):
            values = [row[field] for name in traces for row in rows if (row["trace"], row["design"]) == (name, design)]
            axes.bar([i + at * 0.16 for i in range(len(traces))], values, 0.15, color=colour, label=design)
        axes.set_xticks([i + 0.32 for i in range(len(traces))])
        axes.set_xticklabels(traces, fontsize=7)
        if place == 122:
            axes.set_yscale("log")
            axes.legend(fontsize=8)


if __name__ == "__main__":
    sys.exit(common.main(sys.modules[__name__]))
