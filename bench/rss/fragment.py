#!/usr/bin/env python3
"""What cannot come back when nine tenths of the blocks are freed in random order, and why? What survivors pin.

Blocks of one size fill the heap, 90 % of them are freed at random (or, for comparison, the oldest 90 %), and
everything free is released. Two things can come back. A span of k blocks is wholly free with probability 0.9^k;
its pages then serve any size. In a span that a survivor pins, the system's pages that hold free blocks only go
back all the same (decision 050), but stay the span's: with p blocks a page that is 0.9^p of them. The table has
both predictions beside what came back. The heap map shows the pinned spans (--maps writes the pictures, before
and after).

    python bench/rss/fragment.py [--quick] [--maps FOLDER] [--json PATH] [--png PATH]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, List, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent))

import common  # noqa: E402
from common import ExperimentError, Row  # noqa: E402

NAME = "fragment"
TITLE = "90 % of the blocks freed: what comes back"
SHARE = 0.9
PAGE = os.sysconf("SC_PAGE_SIZE")
SIZES = (32, 128, 512, 1024, 2048, 4096, 8192, 32768, 131072)
COLUMNS = {"size": "block", "order": "freed", "full_mib": "full MiB", "rss_returned": "came back",
           "predicted_pages": "0.9^p", "blocks_a_span": "blocks a span", "returned": "as whole spans",
           "predicted": "0.9^k", "pinned_spans": "pinned spans", "pinned_live": "live in them",
           "pinned_full": "share live"}


def one(library: str, size: int, order: str, mib: int, maps: str) -> Row:
    """One run, in this process, which must be fresh."""
    import pyalloc

    kernel = ctypes.CDLL(library)
    kernel.fragment_rss.restype = ctypes.c_uint64
    kernel.fragment_fill.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
    kernel.fragment_drop.argtypes = [ctypes.c_double, ctypes.c_int, ctypes.c_uint64]
    kernel.fragment_drop.restype = ctypes.c_size_t
    pyalloc.empty(1)
    pyalloc.heap_map()
    pyalloc.free_os_memory()
    count = (mib << 20) // size
    before = pyalloc.read_mem_stats()
    rss_before = kernel.fragment_rss()
    if kernel.fragment_fill(count, size) != 0:
        raise ExperimentError("out of memory")
    full, rss_full = pyalloc.read_mem_stats(), kernel.fragment_rss()
    if maps:
        pyalloc.heap_map().save_png(Path(maps) / f"{size}-{order}-full.png")
    left = kernel.fragment_drop(SHARE, order == "at random", 7)
    pyalloc.free_os_memory()
    after, rss_after = pyalloc.read_mem_stats(), kernel.fragment_rss()
    found = pyalloc.heap_map()
    if maps:
        found.save_png(Path(maps) / f"{size}-{order}-after.png")
    pinned = found.pinned()
    held = full.heap_inuse - before.heap_inuse
    per_span = 1 if size > 32768 else round(held / size / max(full.spans_allocated - before.spans_allocated, 1))
    kernel.fragment_clear()
    freed = 1 - left / count  # SHARE, but for chance
    return {"size": size, "order": order, "blocks": count, "left": left, "blocks_a_span": per_span,
            "full_mib": held / 2**20,
            "returned": (full.heap_inuse - after.heap_inuse) / held,
            # Without the table of pointers to the blocks, which stays.
            "rss_returned": (rss_full - rss_after) / (rss_full - rss_before - count * ctypes.sizeof(ctypes.c_void_p)),
            "predicted": freed**per_span if order == "at random" else freed,
            "predicted_pages": freed**max(1, PAGE // size) if order == "at random" else freed,
            "pinned_spans": pinned["spans"], "pinned_live": pinned["live"],
            "pinned_full": pinned["live"] / pinned["capacity"] if pinned["capacity"] else None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--maps", metavar="FOLDER", default="", help="write heap maps there, as PNG")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> List[Row]:
    if options.one:
        library, size, order, mib = options.one
        return [one(library, int(size), order, int(mib), options.maps)]
    mib = 16 if options.quick else 256
    sizes = (128, 1024, 4096, 32768, 131072) if options.quick else SIZES
    rows = []
    with common.scratch() as folder:
        library = common.build(Path(folder), "fragment.so", ["fragment.c"], "-lpyalloc")
        for size in sizes:
            for order in ("at random", "oldest first"):
                words = [sys.executable, __file__, "--one", str(library), str(size), order, str(mib), "--json", "-"]
                if options.maps:
                    words += ["--maps", options.maps]
                done = subprocess.run(words, capture_output=True, text=True, env=common.clean_environment(),
                                      timeout=600)
                if done.returncode != 0:
                    raise ExperimentError(done.stderr)
                rows += json.loads(done.stdout)["rows"]
    return rows


def draw(figure: Any, rows: Sequence[Row]) -> None:
    axes = common.axes_of(figure, 111, "Share of the heap that came back", "block, bytes", "share")
    for order, colour in zip(("at random", "oldest first"), common.COLOURS):
        points = [row for row in rows if row["order"] == order]
        axes.plot([row["size"] for row in points], [row["rss_returned"] for row in points], "o-", color=colour,
                  label=f"freed {order}")
    points = [row for row in rows if row["order"] == "at random"]
    axes.plot([row["size"] for row in points], [row["predicted_pages"] for row in points], "k--", linewidth=1,
              label="predicted at random: 0.9^(blocks a page)")
    axes.plot([row["size"] for row in points], [row["predicted"] for row in points], "k:", linewidth=1,
              label="if only whole spans came back: 0.9^(blocks a span)")
    axes.set_xscale("log", base=2)
    axes.set_ylim(-0.02, 1.02)
    axes.legend(fontsize=8)


if __name__ == "__main__":
    sys.exit(common.main(sys.modules[__name__]))
