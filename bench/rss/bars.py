"""The bars of memory that goes back: clause, figure, bound, met?  Exit code 1 when one is not met.

    python bench/rss/bars.py [--only burst,managed,hot,limit,kernels] [--scale 1.0] [--json]

burst    a burst of 2 GiB is dropped: what comes back by itself, at which share of a processor, what
         free_os_memory() adds and how long it takes against madvise alone
managed  the same for managed objects, after one collection
hot      temporaries of 100 KiB to 4 MiB in a loop: page faults a step, RSS 12 s after it stops, time against mimalloc
limit    400 MiB live under a limit of 512 MiB: RSS, breaches, time against no limit
kernels  time of malloc kernels with the background thread against without; a second and more each, since
         starting and ending a thread takes some tenths of a millisecond and is not what is asked

Each measurement is a process of its own.  Memory is anonymous RSS from /proc/self/smaps_rollup or statm.  --scale makes
sizes smaller (for a try); the bounds are those of full size, so small runs say little about times.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Sequence

MIB = 1 << 20
CHILD = Path(__file__).with_name("bars_child.py")
KERNEL_OPS = {"batch": 200_000_000, "growth": 2_500_000, "large": 120_000, "sizemix": 120_000_000}
ROUNDS = 12


class Row:
    """One clause; bound is the most that the figure may be, or the least where at_least is set."""

    def __init__(self, bar: str, clause: str, figure: float, bound: float, unit: str, at_least: bool = False) -> None:
        self.bar, self.clause, self.figure, self.bound, self.unit = bar, clause, figure, bound, unit
        self.at_least = at_least
        self.met = figure >= bound if at_least else figure <= bound

    def json(self) -> dict[str, object]:
        return {"bar": self.bar, "clause": self.clause, "figure": round(self.figure, 4), "bound": self.bound,
                "unit": self.unit, "at_least": self.at_least, "met": self.met}


def clean_environment() -> dict[str, str]:
    """Ours without what tunes an allocator."""
    tuning = ("PYALLOC_", "GO", "MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
    return {name: value for name, value in os.environ.items() if not name.startswith(tuning)}


def child(what: str, scale: float, **env: str) -> dict[str, float]:
    """The figures that bars_child.py prints for one measurement."""
    out = subprocess.run([sys.executable, str(CHILD), what, str(scale)], env={**clean_environment(), **env}, check=True,
                         stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out)


def burst(scale: float, what: str = "burst") -> list[Row]:
    got = child(what, scale)
    rows = [
        Row("1", f"{what}: back after 5 s", got["back_5s"], 50, "%", at_least=True),
        Row("1", f"{what}: back after 30 s", got["back_30s"], 95, "%", at_least=True),
        Row("1", f"{what}: processor, worst 5 s", got["cpu_worst"], 2, "%"),
        Row("1", f"{what}: processor below 256 MiB, worst 5 s", got["cpu_late"], 1, "%"),
        Row("1", f"{what}: RSS after free_os_memory() less before", got["after_mib"], 3, "MiB"),
    ]
    if what == "burst":
        asked = child("ask", scale)
        rows.append(Row("1", "free_os_memory() / madvise alone", asked["ratio"], 1.2, "x"))
        rows.append(Row("1", "bytes it returned less bytes that left RSS", abs(asked["difference_mib"]), 0.5, "MiB"))
    return rows


def hot_time(scale: float) -> list[Row]:
    """The kernel `large` with our background thread on, against mimalloc; nothing where that is not installed."""
    from pyalloc._bench import allocators

    found, missing = allocators.find()
    by_name = {one.name: one for one in found}
    if "mimalloc" not in by_name:
        print(f"hot: mimalloc is not there; {missing['mimalloc']}", file=sys.stderr)
        return []
    words = ["large", "--size", str(100 << 10), "--size-max", str(4 << 20), "--live", "3",
             "--ops", str(max(100, int(20_000 * scale)))]
    ratios = []
    for number in range(ROUNDS):
        took = {name: kernel_figures(words, str(by_name[name].library), "1")["ns_per_op"]
                for name in (("pyalloc", "mimalloc") if number % 2 else ("mimalloc", "pyalloc"))}
        ratios.append(took["pyalloc"] / took["mimalloc"])
    return [Row("2", "time of such a loop in C / mimalloc", statistics.median(ratios), 1.05, "x")]


def hot(scale: float) -> list[Row]:
    got = child("hot", scale)
    return [
        Row("2", "page faults a step, scavenger on", got["faults"], 0, "faults"),
        Row("2", "RSS 12 s after the loop less before", got["after_mib"], 3, "MiB"),
        *hot_time(scale),
    ]


def limit(scale: float) -> list[Row]:
    free, limited = [], []
    for number in range(4):
        for limited_now in (False, True) if number % 2 else (True, False):
            if limited_now:
                limited.append(child("limit", scale, PYALLOC_MEMLIMIT=str(int(512 * MIB * scale))))
            else:
                free.append(child("limit", scale)["seconds"])
    worst = max(got["peak_mib"] for got in limited)
    return [
        Row("3", "RSS less before import, peak", worst, 512 * scale * 1.02, "MiB"),
        Row("3", "longest breach", max(got["breach_seconds"] for got in limited), 1, "s"),
        Row("3", "time / without limit", statistics.median(got["seconds"] for got in limited) / statistics.median(free),
            1.25, "x"),
    ]


def kernel_figures(words: Sequence[str], library: str, background: str) -> dict[str, float]:
    """What the kernels' program says, with the wall time of the whole process as "process_seconds"."""
    import pyalloc._bench as bench

    program = Path(bench.__file__).with_name("kernels")
    env = {**clean_environment(), "LD_PRELOAD": library, "PYALLOC_BACKGROUND": background}
    before = time.monotonic()
    out = subprocess.run([str(program), *words, "--expect", library], env=env, check=True, stdout=subprocess.PIPE,
                         text=True).stdout
    return {**json.loads(out), "process_seconds": time.monotonic() - before}


def kernels(scale: float) -> list[Row]:
    """The fastest run of each kind: what others do on the machine slows single runs by several percent, never up."""
    from pyalloc import preload

    rows = []
    for name, ops in KERNEL_OPS.items():
        took: dict[str, list[float]] = {"0": [], "1": []}
        for number in range(max(1, int(ROUNDS * scale))):
            for mode in ("0", "1") if number % 2 else ("1", "0"):
                words = [name, "--ops", str(max(1000, int(ops * scale)))]
                took[mode].append(kernel_figures(words, preload.path(), mode)["process_seconds"])
        rows.append(Row("4", f"{name}: time with / without the thread", min(took["1"]) / min(took["0"]), 1.01, "x"))
    return rows


BARS = {"burst": burst, "managed": lambda scale: burst(scale, "managed"), "hot": hot, "limit": limit,
        "kernels": kernels}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(BARS), help="bars, joined by commas")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names = options.only.split(",")
    unknown = [name for name in names if name not in BARS]
    if unknown or not 0 < options.scale <= 1:
        parser.error(f"no such bar: {', '.join(unknown)}" if unknown else "--scale is above 0 and at most 1")
    rows = [row for name in names for row in BARS[name](options.scale)]
    if options.json:
        print(json.dumps([row.json() for row in rows], indent=1))
    else:
        for row in rows:
            sign = ">=" if row.at_least else "<="
            print(f"{row.bar}  {row.clause:52} {row.figure:10.3f} {sign} {row.bound:g} {row.unit:7}"
                  f"{'' if row.met else '  not met'}")
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
