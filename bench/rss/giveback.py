#!/usr/bin/env python3
"""Which allocator gives memory back after a burst, and how soon? 2 GiB are allocated, written, freed; then
the process idles.

Each allocator serves the same C program (sizes from 64 B to 64 KiB, freed in random order); CPython's own
allocator and NumPy's have bursts of their own kind. RSS is sampled from outside through psutil. The table has
what is resident above the start at moments after the last free, and the processor time that giving back took.

    python bench/rss/giveback.py [--quick] [--only NAME,...] [--json PATH] [--png PATH]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent))

import common  # noqa: E402
from common import ExperimentError, Row  # noqa: E402

import pyalloc  # noqa: E402
from pyalloc._bench import allocators  # noqa: E402

NAME = "giveback"
TITLE = "What stays resident after a burst, MiB above the start"
MOMENTS = (0.25, 1.0, 2.0, 5.0, 10.0, 30.0)
COLUMNS = {"allocator": "allocator", "peak_mib": "peak", **{f"after_{at:g}": f"{at:g} s" for at in MOMENTS},
           "free_cpu_ms": "processor ms to free", "idle_cpu_ms": "processor ms while idle"}
# What each peer has to make it give back sooner: a thread, a rate, no delay.  Ours has its thread in Python and under
# `python -m pyalloc run` without being asked, and is shown without it as well.
SETTINGS: Dict[str, Dict[str, str]] = {
    allocators.OURS: {"PYALLOC_BACKGROUND": "1"},
    "jemalloc": {"MALLOC_CONF": "background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0"},
    "tcmalloc": {"TCMALLOC_RELEASE_RATE": "10"},
    "mimalloc": {"MIMALLOC_PURGE_DELAY": "0"},
    "mimalloc-nothp": {"MIMALLOC_PURGE_DELAY": "0"},
}
TUNED = " set to give back"

PYTHON_BURST = """
import sys, time
from itertools import repeat
def say(stage):
    print(stage, flush=True)
nbytes, idle = int(float(sys.argv[1]) * 2**20), float(sys.argv[2])
{prepare}
say("start")
sys.stdin.readline()
held = {make}
say("peak")
sys.stdin.readline()
del held
say("freed")
time.sleep(idle)
"""


class Subject(NamedTuple):
    name: str
    command: List[str]  # MiB and seconds are appended
    env: Dict[str, str]


def subjects(program: Path, only: "str | None") -> List[Subject]:
    found, missing = allocators.find()
    for name, hint in missing.items():
        print(f"giveback: {name} is not there; {hint}", file=sys.stderr)
    rows = []
    for one in found:
        env = dict(one.env)
        if one.library is not None:
            env["LD_PRELOAD"] = one.library
        rows.append(Subject(one.name, [str(program)], env))
        if one.name in SETTINGS:
            rows.append(Subject(one.name + TUNED, [str(program)], {**env, **SETTINGS[one.name]}))
        if one.name == "glibc":
            rows.append(Subject("glibc with malloc_trim", [str(program)], {"TRIM": "1"}))
    # map() and list() run in C: no loop of Python's own.
    objects = PYTHON_BURST.format(prepare="", make="list(map(bytes, repeat(400, nbytes // 440)))")
    rows.append(Subject("CPython objects", [sys.executable, "-c", objects], {}))
    arrays = PYTHON_BURST.format(prepare="import numpy", make="list(map(numpy.ones, repeat(1 << 14, nbytes >> 17)))")
    try:
        import numpy  # noqa: F401
    except ImportError:
        print("giveback: no NumPy; pip install numpy", file=sys.stderr)
    else:
        rows.append(Subject("NumPy arrays of 128 KiB", [sys.executable, "-c", arrays], {}))
    if only:
        wanted = only.split(",")
        rows = [one for one in rows if one.name in wanted]
        if len(rows) != len(wanted):
            raise ExperimentError(f"not all of {only} are here: {', '.join(one.name for one in rows)}")
    return rows


def watch(subject: Subject, mib: float, idle: float) -> Row:
    """Runs one burst under an outside sampler."""
    words = [*subject.command, f"{mib:g}", f"{idle:g}"]
    if not subject.command[-1].startswith("\n"):
        words.append(subject.env.get("TRIM", "0"))
    env = {name: text for name, text in subject.env.items() if name != "TRIM"}
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                             env=common.clean_environment(env))
    assert child.stdout is not None and child.stdin is not None

    def go_on() -> None:
        child.stdin.write("\n")  # type: ignore[union-attr]
        child.stdin.flush()  # type: ignore[union-attr]

    def stage(expected: str) -> None:
        line = child.stdout.readline().strip()  # type: ignore[union-attr]
        if line != expected:
            child.wait()
            raise ExperimentError(f"{subject.name}: {line!r} came in the place of {expected!r}")

    import psutil

    stage("start")
    process = psutil.Process(child.pid)
    with pyalloc.RssSampler(hz=20, pid=child.pid) as sampler:
        began = time.monotonic()
        start_rss = process.memory_info().rss
        go_on()
        stage("peak")
        peak_rss = process.memory_info().rss
        cpu = [sum(process.cpu_times()[:2])]
        go_on()
        stage("freed")
        freed = time.monotonic() - began
        cpu.append(sum(process.cpu_times()[:2]))
        time.sleep(idle * 0.97)
        cpu.append(sum(process.cpu_times()[:2]))
    child.wait()
    data = sampler.arrays()
    series = [(float(at) - freed, (int(rss) - start_rss) / 2**20) for at, rss in zip(data["seconds"], data["rss"])
              if rss > 0]
    row: Row = {"allocator": subject.name, "peak_mib": (peak_rss - start_rss) / 2**20,
                "free_cpu_ms": (cpu[1] - cpu[0]) * 1e3, "idle_cpu_ms": (cpu[2] - cpu[1]) * 1e3,
                "series": [(at, rss) for at, rss in series if at >= -1]}
    for moment in MOMENTS:
        before = [rss for at, rss in series if at <= moment]
        row[f"after_{moment:g}"] = before[-1] if before and moment <= idle else None
    return row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", metavar="NAMES", help="some allocators, separated by commas; default: all")


def run(options: argparse.Namespace) -> List[Row]:
    mib, idle = (128.0, 6.0) if options.quick else (2048.0, 31.5)
    with common.scratch() as folder, ThreadPoolExecutor(4 if options.quick else 1) as pool:
        program = common.build(Path(folder), "giveback", ["giveback.c"])
        return list(pool.map(lambda subject: watch(subject, mib, idle), subjects(program, options.only)))


def draw(figure: Any, rows: Sequence[Row]) -> None:
    axes = common.axes_of(figure, 111, "RSS above the start", "seconds after the last free", "MiB")
    for row, colour in zip(rows, common.COLOURS * 2):
        axes.plot([at for at, _ in row["series"]], [rss for _, rss in row["series"]], color=colour,
                  label=row["allocator"],
                  linewidth=2.5 if row["allocator"].startswith(allocators.OURS) else 1.2,
                  linestyle="--" if row["allocator"].endswith(TUNED) else "-")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)


if __name__ == "__main__":
    sys.exit(common.main(sys.modules[__name__]))
