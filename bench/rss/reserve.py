#!/usr/bin/env python3
"""Is reserved memory resident? A 64 MiB block is mapped with one call, then its pages are touched one by one.

The table has the RSS and the page faults after each sixteenth: mapping costs next to nothing, and each page
becomes resident at its first write, one fault a page - or one fault for 2 MiB where the kernel uses huge
pages.

    python bench/rss/reserve.py [--quick] [--json PATH] [--png PATH]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, List, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent))

import common  # noqa: E402
from common import Row  # noqa: E402

NAME = "reserve"
TITLE = "A reserved arena becomes resident page by page"
COLUMNS = {"huge": "huge pages", "touched_mib": "touched MiB", "rss_mib": "RSS grew MiB", "faults": "faults",
           "faults_per_page": "faults a page"}


def run(options: argparse.Namespace) -> List[Row]:
    rows: List[Row] = []
    mib = 16 if options.quick else 64
    with common.scratch() as folder:
        program = common.build(Path(folder), "reserve", ["reserve.c"], "-lpyalloc")
        for huge in (0, 1):
            found = common.run_json([program, mib, 16, huge])
            base = {"huge": "as the system has it" if huge else "forbidden"}
            reserved_rss, reserved_faults = found["reserved"]
            rows.append({**base, "touched_mib": 0.0, "rss_mib": reserved_rss / 2**20, "faults": reserved_faults,
                         "faults_per_page": None, "pages": 0})
            for pages, rss, faults in found["series"]:
                rows.append({**base, "touched_mib": pages * found["os_page"] / 2**20, "rss_mib": rss / 2**20,
                             "faults": faults, "faults_per_page": faults / pages, "pages": pages})
            rows.append({**base, "touched_mib": None, "rss_mib": found["released"] / 2**20, "faults": None,
                         "faults_per_page": None, "pages": None, "after": "free_os_memory"})
    return rows


def draw(figure: Any, rows: Sequence[Row]) -> None:
    for place, field, title in ((121, "rss_mib", "RSS"), (122, "faults", "Page faults")):
        axes = common.axes_of(figure, place, title, "MiB touched", "MiB" if place == 121 else "count")
        for huge, colour in zip(("forbidden", "as the system has it"), common.COLOURS):
            points = [row for row in rows if row["huge"] == huge and row["touched_mib"] is not None]
            axes.plot([row["touched_mib"] for row in points], [row[field] for row in points], "o-", markersize=3,
                      color=colour, label=f"huge pages: {huge}")
        axes.legend(fontsize=8)


if __name__ == "__main__":
    sys.exit(common.main(sys.modules[__name__]))
