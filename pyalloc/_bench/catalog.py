"""The tests: workload kernels with their parameters, and the shipped traces.

Sizes of the work (``ops``) are chosen so that one measurement takes about a tenth of a second; the whole
list, with five peers, then takes some twenty seconds a round.
"""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import List, Mapping, NamedTuple, Optional, Sequence

from pyalloc._bench import trace
from pyalloc._bench.allocators import BenchError

KERNELS, TRACES = "kernels", "traces"


class Workload(NamedTuple):
    """One row of the table."""

    name: str
    kernel: str
    options: Mapping[str, object]
    ops: int
    about: str
    trace_path: Optional[Path] = None
    environment: Optional[Mapping[str, str]] = None  # beside the allocator's own

    @property
    def group(self) -> str:
        return TRACES if self.trace_path is not None else KERNELS

    def arguments(self, scale: float = 1.0) -> List[str]:
        """The command line for ``kernels``, without the trace's path."""
        words = [self.kernel]
        for name, value in self.options.items():
            words += [f"--{name}", str(value)]
        if self.trace_path is None or scale < 1:
            words += ["--ops", str(max(1, round(self.ops * scale)))]
        return words


KIB, MIB = 1024, 1024 * 1024


def pair(size: int, ops: int = 4_000_000) -> Workload:
    return Workload(f"pair-{human(size)}", "pair", {"size": size}, ops, "malloc + free of one size")


def large(size: int, ops: int) -> Workload:
    return Workload(f"large-{human(size)}", "large", {"size": size}, ops, "malloc, touch each page, free")


def human(size: int) -> str:
    if size >= MIB and size % MIB == 0:
        return f"{size // MIB}m"
    return f"{size // KIB}k" if size >= 8 * KIB and size % KIB == 0 else str(size)


def _kernels() -> List[Workload]:
    mixed = {"size": 16, "size-max": 1024}
    return [
        pair(16),
        pair(64),
        pair(256),
        pair(1024),
        pair(8 * KIB, 2_000_000),
        pair(64 * KIB, 600_000),
        pair(MIB, 300_000),
        Workload(
            "batch-lifo",
            "batch",
            {"order": "lifo", **mixed},
            1_600_000,
            "10,000 mixed blocks, last in first out",
        ),
        Workload(
            "batch-fifo",
            "batch",
            {"order": "fifo", **mixed},
            1_600_000,
            "10,000 mixed blocks, first in first out",
        ),
        Workload(
            "batch-random",
            "batch",
            {"order": "random", **mixed},
            1_600_000,
            "10,000 mixed blocks, random order",
        ),
        Workload(
            "xthread-64",
            "xthread",
            {"size": 64, "threads": 2},
            4_000_000,
            "one thread allocates, another frees",
        ),
        Workload(
            "xthread-mixed", "xthread", {**mixed, "threads": 2}, 2_500_000, "the same with 16 to 1024 bytes"
        ),
        Workload(
            "larson", "larson", {"threads": 2}, 2_000_000, "servers replacing random blocks, with hand-over"
        ),
        Workload("threadtest", "threadtest", {"threads": 2}, 8_000_000, "two threads with nothing in common"),
        Workload("cache-scratch", "cache_scratch", {"threads": 2}, 60_000_000, "false sharing"),
        Workload("sizemix", "sizemix", {}, 2_000_000, "skewed sizes and lifetimes"),
        Workload("sizemix-2t", "sizemix", {"threads": 2}, 3_000_000, "the same in two threads"),
        Workload("fragment", "fragment", {}, 600_000, "phases that want other sizes"),
        large(64 * KIB, 200_000),
        large(256 * KIB, 50_000),
        large(MIB, 15_000),
        large(4 * MIB, 3_000),
        Workload(
            "large-mixed",
            "large",
            {"size": 64 * KIB, "size-max": 4 * MIB, "live": 8},
            6_000,
            "64 KiB to 4 MiB, 8 alive",
        ),
        Workload("growth-small", "growth", {}, 200_000, "eight arrays growing to 64 KiB"),
        Workload(
            "growth-large",
            "growth",
            {"size": KIB, "size-max": 8 * MIB, "live": 1},
            3_000,
            "one array growing to 8 MiB",
        ),
    ]


def dropin() -> List[Workload]:
    """What the drop-in bars measure beside all tests: growth by doubling, bursts that leave survivors, threads."""
    many = {"threads": 64, "locks": 1}
    timed = {"PYALLOC_DEBUG": "lockstat=1"}
    return [
        Workload("growth-256m", "growth", {"size": 64 * KIB, "size-max": 256 * MIB, "live": 1, "order": "double"}, 26,
                 "one array doubling from 64 KiB to 256 MiB, twice"),
        Workload("survivors-phase", "survivors", {"order": "phase"}, 1, "a burst, the first tenth survives"),
        Workload("survivors-20000", "survivors", {"order": "random", "size": 20_000, "size-max": 20_000}, 1,
                 "20,000-byte blocks, a random tenth survives"),
        Workload("survivors-random", "survivors", {"order": "random"}, 1, "16 to 1024 bytes, a random tenth survives"),
        Workload("churn-1t", "sizemix", {}, 6_000_000, "independent churn, one thread"),
        Workload("churn-2t", "sizemix", {"threads": 2}, 12_000_000, "the same in two threads, twice the work"),
        Workload("locks-sizemix", "sizemix", many, 12_800_000, "64 threads, blocks up to 8 KiB", None, timed),
        Workload("locks-threadtest", "threadtest", many, 12_800_000, "64 threads with nothing in common", None, timed),
        Workload("locks-larson", "larson", many, 6_400_000, "64 threads, replacing blocks of others", None, timed),
        Workload("locks-large", "large", {"size": 64 * KIB, "size-max": MIB, "live": 2, **many}, 64_000,
                 "64 threads, 64 KiB to 1 MiB", None, timed),
        Workload("locks-huge", "large", {"size": 2 * MIB, "size-max": 8 * MIB, "live": 1, **many}, 3_200,
                 "64 threads, 2 to 8 MiB", None, timed),
    ]


def traces() -> List[Workload]:
    """One replay for each shipped trace."""
    found = []
    for path in trace.shipped():
        metadata = trace.read_metadata(path)
        events = sum(metadata["counts"].values())
        found.append(
            Workload(
                f"trace-{trace.trace_name(path)}",
                "replay",
                {},
                events,
                str(metadata.get("command", "")),
                path,
            )
        )
    return found


def all_tests() -> List[Workload]:
    return _kernels() + traces()


def by_name(names: Sequence[str]) -> List[Workload]:
    """Tests of exactly these names, in this order."""
    known = {test.name: test for test in all_tests()}
    return [known[name] for name in names]


def select(tests: Sequence[Workload], patterns: Optional[Sequence[str]]) -> List[Workload]:
    """Tests that match any of *patterns*; :class:`BenchError` for a pattern that matches none."""
    if not patterns:
        return list(tests)
    chosen = set()
    for pattern in patterns:
        hits = {test.name for test in tests if fnmatch.fnmatch(test.name, pattern) or pattern in test.name}
        if not hits:
            raise BenchError(f"no test matches {pattern!r} (see --list)")
        chosen |= hits
    return [test for test in tests if test.name in chosen]
