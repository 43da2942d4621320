#!/usr/bin/env python3
"""What did Go gain when it left the treap of free runs for the radix tree of bitmaps and per-thread page
caches?

Threads take and give back runs of 1 to 8 pages, in an empty gigabyte and in a fragmented one: from a treap
(Go 1.12: best fit, one lock), from the radix bitmap under the same lock (Go 1.14), and with a page cache a
thread on top. The table has wall and processor time and lock acquisitions a pair, and the highest address in
use. Runs go back under the lock in all three, so a cache can save half.

    python bench/rss/pageindex.py [--quick] [--json PATH] [--png PATH]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, List, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent))

import common  # noqa: E402
from common import Row  # noqa: E402

NAME = "pageindex"
TITLE = "Page allocation: treap, radix bitmap, page caches"
COLUMNS = {"layout": "gigabyte", "index": "index", "threads": "threads", "ns": "ns a pair",
           "cpu_ns": "processor ns", "locks": "locks a pair",
           "highest_mib": "highest page MiB"}
LAYOUTS = ("fresh", "fragmented")
INDEXES = ("treap", "radix", "cached")


def run(options: argparse.Namespace) -> List[Row]:
    pairs, counts, rounds = (40_000, (1, 4), 1) if options.quick else (2_000_000, (1, 2, 4, 8, 16), 3)
    pages = sorted((common.ROOT / "csrc/pages").glob("*.c"))
    sources = ["pageindex.c", *(str(path.relative_to(common.ROOT)) for path in pages),
               "csrc/base/assert.c", "csrc/base/text.c", "csrc/sys/vm_linux.c"]
    rows: List[Row] = []
    with common.scratch() as folder:
        program = common.build(Path(folder), "pageindex", sources)
        for layout in LAYOUTS:
            for threads in counts:
                best: dict[str, Row] = {}
                for _ in range(rounds):             # the three take turns
                    for index in INDEXES:
                        found = common.run_json([program, index, threads, pairs, layout])
                        if index not in best or found["ns"] < best[index]["ns"]:
                            best[index] = found
                rows += [{"layout": layout, "index": index, "threads": threads, **best[index]} for index in INDEXES]
    return rows


def draw(figure: Any, rows: Sequence[Row]) -> None:
    for place, layout in zip((121, 122), LAYOUTS):
        field = "ns"
        axes = common.axes_of(figure, place, f"Time of a pair, {layout}", "threads", "ns")
        for index, colour in zip(INDEXES, common.COLOURS):
            points = [row for row in rows if row["index"] == index and row["layout"] == layout]
            axes.plot([row["threads"] for row in points], [row[field] for row in points], "o-", color=colour,
                      label=index)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)


if __name__ == "__main__":
    sys.exit(common.main(sys.modules[__name__]))
