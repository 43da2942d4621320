#!/usr/bin/env python3
"""How fast is a NumPy pipeline of temporaries, and does its memory go back? NumPy's own handler, pyalloc's, mimalloc's.

    python bench/numpy_pipeline.py [--rounds N] [--quick] [--cpu-time] [--json]

A pass takes arrays a, b through c = a * 2 + b, d = sqrt(c), e = d - a, f = e * c and drops all of it at its end, as a
function does.  Rows: one size after the other; "mixed", eight sizes from 100 KiB to 4 MiB in turn; "columns", the eight
of them together like the columns of a table, each step for all before the next.  Each (row, allocator) runs in a fresh
process that does nothing else; a round has them one after the other in changing order, and a figure is the median of
the rounds' ratios with quartiles.  mimalloc (PyPI: cmeel-mimalloc) stands behind the same hook, in a handler made by
numpy_shim.c.  "no allocation" computes the same into arrays that are there already (out=): no allocator can be below
that by more than what warmer memory is worth.  What NumPy's own handler loses depends on how much is dropped at a time:
glibc gives the end of its heap back when twice the largest block is free there.

Beside time: page faults a pass once it is warm; and of the "columns" row, for the allocators, the resident (anonymous)
memory before the inputs are made, at the peak, and how long after dropping everything it took to be back within 2 MiB
of the start, or where it was after 12 s.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
KIB, MIB = 1 << 10, 1 << 20
SEVERAL = (100 * KIB, 300 * KIB, 700 * KIB, MIB, 3 * MIB // 2, 2 * MIB, 3 * MIB, 4 * MIB)
ROWS = {"100 KiB": (100 * KIB,), "256 KiB": (256 * KIB,), "1 MiB": (MIB,), "2 MiB": (2 * MIB,), "4 MiB": (4 * MIB,),
        "mixed": SEVERAL, "columns": SEVERAL}
RSS_ROW = "columns"
FLOOR = "no allocation"
SIDES = ("default", "pyalloc", "mimalloc", FLOOR)
BARS = {"default": 0.20, "mimalloc": 1.05}
BACK_WITHIN_S, BACK_WITHIN_BYTES = 12, 2 * MIB     # 1 MiB any heap may keep; as much for Python's own objects


# ---- In a process of its own


def install(side: str, shim: str, library: str) -> None:
    import pyalloc.numpy as hook
    from pyalloc import _core

    if side == "pyalloc":
        hook.install()
    elif side == "mimalloc":
        hook.status()       # finds NumPy's functions
        loaded = ctypes.CDLL(shim)
        loaded.shim_open.restype, loaded.shim_open.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_char_p]
        handler = loaded.shim_open(os.fsencode(library), b"mi_")
        if not handler:
            raise SystemExit(f"{library} cannot be loaded, or has no mi_malloc")
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
        name = ctypes.create_string_buffer(b"mem_handler")
        install.alive = (loaded, name)      # a capsule keeps neither
        _core.numpy_set_current(new(handler, ctypes.addressof(name), None))
    here = hook.status().here
    if here != {"pyalloc": "pyalloc", "mimalloc": "shim"}.get(side, "default_allocator"):
        raise SystemExit(f"{side} is wanted, and the handler is {here}")


def anonymous_bytes() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * KIB for line in file if line.startswith("RssAnon:"))


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measure(side: str, row: str, seconds: float, rss: bool, cpu: bool, shim: str, library: str) -> dict:
    import numpy as np

    clock = time.process_time_ns if cpu else time.perf_counter_ns
    install(side, shim, library)

    def one_by_one(inputs):
        for a, b in inputs:
            c = a * 2 + b
            d = np.sqrt(c)
            e = d - a
            f = e * c
            f[0] = d[-1]

    def together(inputs):
        c = [a * 2 + b for a, b in inputs]
        d = [np.sqrt(x) for x in c]
        e = [x - a for x, (a, _) in zip(d, inputs)]
        f = [x * y for x, y in zip(e, c)]
        f[0][0] = d[0][-1]

    def into(a, b, c, d, e, f):
        np.add(np.multiply(a, 2, out=c), b, out=c)
        np.sqrt(c, out=d)
        np.subtract(d, a, out=e)
        np.multiply(e, c, out=f)
        f[0] = d[-1]

    there = {}      # by length: what `into` writes to

    def without_allocation(inputs):
        for a, b in inputs:
            if len(a) not in there:
                there[len(a)] = [np.empty_like(a) for _ in range(4)]
            into(a, b, *there[len(a)])

    once = without_allocation if side == FLOOR else together if row == "columns" else one_by_one

    def laps(inputs, seconds):
        """Nanoseconds a pass, the median of the fastest third, since others disturb; faults a pass, the mean of all."""
        took, end, before = [], time.monotonic() + seconds, faults()
        while time.monotonic() < end or len(took) < 3:
            start = clock()
            once(inputs)
            took.append(clock() - start)
        return statistics.median(sorted(took)[: -(-len(took) // 3)]), (faults() - before) / len(took)

    def work():
        inputs = [(np.full(n // 8, 2.0), np.full(n // 8, 3.0)) for n in ROWS[row]]
        laps(inputs, seconds / 4)
        found = laps(inputs, seconds)
        kept = [np.sqrt(a * 2 + b) for a, b in inputs for _ in range(4)] if rss else []
        return (*found, anonymous_bytes(), len(kept))

    once([(np.ones(8), np.ones(8))])    # what NumPy sets up at the first call
    start = anonymous_bytes()
    ns, per_pass, peak, _ = work()
    found = {"ns": ns, "faults": per_pass, "start_bytes": start, "peak_bytes": peak}
    if rss:
        dropped, took = time.monotonic(), None
        while True:
            after, waited = anonymous_bytes(), time.monotonic() - dropped
            if after <= start + BACK_WITHIN_BYTES:
                took = waited
                break
            if waited >= BACK_WITHIN_S:
                break
            time.sleep(0.1)
        found.update(after_bytes=after, back_s=took)
    return found


# ---- The runner


def mimalloc_library():
    from pyalloc._bench import allocators

    found, missing = allocators.find()
    for one in found:
        if one.name == "mimalloc":
            return one.library
    print(f"mimalloc is absent, its column is left out: {missing.get('mimalloc')}", file=sys.stderr)
    return None


def build_shim(folder: Path) -> Path:
    target = folder / "numpy_shim.so"
    command = [*(os.environ.get("CC") or "cc").split(), "-O2", "-shared", "-fPIC", f"-I{HERE.parent / 'csrc'}",
               str(HERE / "numpy_shim.c"), "-o", str(target), "-ldl"]
    subprocess.run(command, check=True)
    return target


def child(side, row, options, rss, shim, library):
    environment = {name: value for name, value in os.environ.items()
                   if name != "LD_PRELOAD" and not name.startswith(("PYALLOC_", "MALLOC_", "MIMALLOC_"))}
    command = [sys.executable, __file__, "--child", side, "--row", row, "--seconds", str(options.seconds),
               *(["--rss"] if rss else []), *(["--cpu-time"] if options.cpu_time else []), "--shim", str(shim),
               "--library", library or ""]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"{side}, {row}: exit {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def run(options) -> dict:
    library = mimalloc_library()
    sides = [side for side in SIDES if side != "mimalloc" or library]
    runs = {row: {side: [] for side in sides} for row in options.rows}
    with tempfile.TemporaryDirectory() as folder:
        shim = build_shim(Path(folder)) if library else ""
        for number in range(options.rounds):
            for row in options.rows:
                for i in range(len(sides)):
                    side = sides[(i + number) % len(sides)]
                    rss = row == RSS_ROW and number < options.rss_rounds and side != FLOOR
                    runs[row][side].append(child(side, row, options, rss, shim, library))
    return {"rounds": options.rounds, "bars": BARS, "clock": "cpu" if options.cpu_time else "wall",
            "rows": {row: figures(one) for row, one in runs.items()}}


def figures(by_side) -> dict:
    rows = {}
    for side, found in by_side.items():
        row = {"ns": statistics.median(one["ns"] for one in found),
               "faults": statistics.median(one["faults"] for one in found)}
        if side != "pyalloc":
            ratios = [ours["ns"] / peer["ns"] for ours, peer in zip(by_side["pyalloc"], found)]
            low, median, high = quartiles(ratios)
            row.update(ratio=median, q1=low, q3=high)
        if side in BARS:
            row.update(bar=BARS[side], met=median <= BARS[side])
        watched = [one for one in found if "after_bytes" in one]
        if watched:
            row["rss"] = {name: statistics.median(one[name] for one in watched)
                          for name in ("start_bytes", "peak_bytes", "after_bytes")}
            took = [one["back_s"] for one in watched]
            row["rss"]["back_s"] = None if None in took else max(took)
        rows[side] = row
    return rows


def quartiles(values):
    if len(values) < 2:
        return values[0], values[0], values[0]
    return statistics.quantiles(values, n=4, method="inclusive")


def print_report(report) -> None:
    print(f"{'ratio':>6}  {'q1-q3':13} {'bar':>5}  {'ours us':>9} {'peer us':>9}  {'faults a pass':>15}  pair")
    for name, rows in report["rows"].items():
        ours = rows["pyalloc"]
        for side in SIDES:
            if side not in rows or side == "pyalloc":
                continue
            row = rows[side]
            spread, counts = f"{row['q1']:.3f}-{row['q3']:.3f}", f"{ours['faults']:.2f} / {row['faults']:.2f}"
            print(f"{row['ratio']:6.3f}  {spread:13} {row.get('bar', '-'):>5}  "
                  f"{ours['ns'] / 1e3:9.1f} {row['ns'] / 1e3:9.1f}  "
                  f"{counts:>15}  pyalloc / {side}, {name}{'' if row.get('met', True) else '   NOT MET'}")
    for side, row in report["rows"].get(RSS_ROW, {}).items():
        if "rss" in row:
            rss = row["rss"]
            back = ("not back after 12 s" if rss["back_s"] is None else f"back after {rss['back_s']:.1f} s")
            print(f"{side:9} resident: {rss['start_bytes'] / MIB:.1f} MiB before, {rss['peak_bytes'] / MIB:.1f} at the "
                  f"peak, {rss['after_bytes'] / MIB:.1f} at the end; {back}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="fresh processes a figure (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of measuring in each (default %(default)s)")
    parser.add_argument("--rows", default=",".join(ROWS), help="comma-separated, of: " + ", ".join(ROWS))
    parser.add_argument("--rss-rounds", type=int, default=3, help="rounds that also wait for memory to go back")
    parser.add_argument("--quick", action="store_true", help="one short round of three rows, for a look")
    parser.add_argument("--cpu-time", action="store_true", help="processor time: steadier beside other programs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    for name in ("--child", "--row", "--shim", "--library"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--rss", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.row, options.seconds, options.rss, options.cpu_time,
                                 options.shim, options.library)))
        return
    if options.quick:
        options.rounds, options.seconds, options.rows, options.rss_rounds = 1, 0.3, "256 KiB,4 MiB,columns", 1
    options.rows = options.rows.split(",")
    unknown = set(options.rows) - set(ROWS)
    if unknown or options.rounds < 1:
        parser.error(f"no such row: {', '.join(sorted(unknown))}" if unknown else "--rounds must be at least 1")
    report = run(options)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print_report(report)


if __name__ == "__main__":
    main()
