#!/usr/bin/env python3
"""What do GOGC and the memory limit buy, and what do they cost? A live set of fixed size is renewed object by
object.

GOGC trades memory for processor time: the heap grows to about live * (1 + GOGC / 100), and the number of
cycles falls in inverse proportion. A memory limit with GOGC off uses what memory there is and collects only
as often as the limit asks for. Rows: GOGC from 25 to 800 without a limit, then limits with GOGC off.

    python bench/rss/controls.py [--quick] [--json PATH] [--png PATH]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, List, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent))

import common  # noqa: E402
from common import Row  # noqa: E402

NAME = "controls"
TITLE = "GOGC and memory limit against memory and processor time"
COLUMNS = {"gogc": "GOGC", "limit_mib": "limit MiB", "live_mib": "live MiB", "inuse_mib": "heap in use MiB",
           "rss_mib": "RSS MiB", "cycles": "cycles", "gc_cpu_ms": "collector ms", "share": "of all CPU",
           "wall_ms": "wall ms"}
GOGC = (25, 50, 100, 200, 400, 800)
LIMITS = (1.3, 1.6, 2.0, 3.0, 5.0)      # times the live set


def run(options: argparse.Namespace) -> List[Row]:
    live, churn = (16, 256) if options.quick else (256, 8192)
    settings = [(percent, 0) for percent in ((50, 100, 400) if options.quick else GOGC)]
    # The side tables of the arenas and the like count against a limit, too.
    settings += [(-1, int(live * times) + 24) for times in ((2.0, 4.0) if options.quick else LIMITS)]
    rows: List[Row] = []
    with common.scratch() as folder:
        program = common.build(Path(folder), "controls", ["controls.c"], "-lpyalloc")
        for percent, limit in settings:
            found = common.run_json([program, live, churn, percent, limit])
            rows.append({"gogc": percent if percent >= 0 else "off", "limit_mib": limit or None, **found,
                         "share": found["gc_cpu_ms"] / found["cpu_ms"]})
    return rows


def draw(figure: Any, rows: Sequence[Row]) -> None:
    for place, field, title, unit in ((121, "rss_mib", "Memory", "RSS, MiB"),
                                      (122, "gc_cpu_ms", "Collector", "processor ms")):
        axes = common.axes_of(figure, place, title, "heap in use at most, MiB", unit)
        for limited, colour in ((False, common.COLOURS[0]), (True, common.COLOURS[1])):
            points = [row for row in rows if (row["limit_mib"] is not None) == limited]
            axes.plot([row["inuse_mib"] for row in points], [row[field] for row in points], "o-", color=colour,
                      label="limit, GOGC off" if limited else "GOGC, no limit")
            for row in points:
                text = str(row["limit_mib"] if limited else row["gogc"])
                axes.annotate(text, (row["inuse_mib"], row[field]), fontsize=7)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)


if __name__ == "__main__":
    sys.exit(common.main(sys.modules[__name__]))
