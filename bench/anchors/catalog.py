"""The tests of the anchors and the bars that pyalloc must meet, as data."""

from __future__ import annotations

import math
from typing import Dict, List, Mapping, NamedTuple, Optional, Tuple, Union

PYALLOC, GO, BOEHM = "pyalloc", "go", "boehm"
ALL = (PYALLOC, GO, BOEHM)
BYTES = (8, 16, 32, 64, 256, 1024)
POINTERS = (16, 64)

Value = Union[int, float, str]


class Test(NamedTuple):
    name: str
    program: str
    about: str
    arguments: Mapping[str, Value]
    figures: Tuple[str, ...]            # shown in the table, besides the peak RSS
    collectors: Tuple[str, ...] = ALL
    workers: Optional[int] = None       # marking threads; None: as many as the collector likes
    traced: bool = False                # with gctrace lines

    def scaled(self, scale: float) -> Dict[str, Value]:
        """The arguments with less work (1: all of it)."""
        found = dict(self.arguments)
        for name, least in (("n", 2_000), ("count", 20_000)):
            if name in found:
                found[name] = max(least, round(float(found[name]) * scale))
        if "seconds" in found:
            found["seconds"] = max(0.2, float(found["seconds"]) * min(1.0, scale))
        if "depth" in found:
            found["depth"] = max(6, int(found["depth"]) + round(math.log2(scale)))
        return found


_STOPS = ("stop_p99_us", "stop_max_us")
_MUTATE = ("mops", "op_p50_ns", "op_p99_ns", "op_p999_ns", "op_max_us", *_STOPS, "background_share", "idle_share",
           "total_share", "peak_over_goal")


def _full(order: str, workers: int) -> Test:
    about = f"full collection of 20 million live objects, {order} order, {workers} marking threads"
    return Test(f"full-{order}-{workers}", "full", about, {"n": 20_000_000, "order": order, "runs": 3},
                ("ns_per_object", "cpu_ns_per_object"), workers=workers)


def _mutate(name: str, about: str, **arguments: Value) -> Test:
    return Test(name, "mutate", about, {"threads": 2, **arguments}, _MUTATE, traced=True)


def _alloc(kind: str, size: int) -> Test:
    count = min(50_000_000, 4_000_000_000 // size)
    return Test(f"alloc-{kind}-{size}", "alloc", f"allocation with collections going on, {kind}, {size} bytes",
                {"kind": kind, "size": size, "count": count}, ("ns_alloc", "cpu_ns_alloc"))


def _marking(kind: str, size: int) -> Test:
    return Test(f"marking-{kind}-{size}", "alloc", f"allocation while marking against outside, {kind}, {size} bytes",
                {"kind": kind, "size": size, "count": 1_000_000, "marking": 1, "n": 2_000_000, "seconds": 3},
                ("ns_marking", "ns_outside", "marking_ratio"), collectors=(PYALLOC,))


def tests() -> List[Test]:
    trees = ("wall_s", "cpu_s", "stop_max_us")
    found = [
        Test("trees", "trees", "binary-trees, depth 18, two threads", {"depth": 18, "threads": 2}, trees),
        Test("trees-frames", "trees", "the same with a frame pushed for every inner node",
             {"depth": 18, "threads": 2, "frames": "call"}, trees, collectors=(PYALLOC,)),
        _full("random", 1), _full("random", 2), _full("alloc", 1), _full("alloc", 2),
        _mutate("mutate-20m", "20 million live objects, random order, two mutators", n=20_000_000, seconds=40,
                churn=8),
        _mutate("mutate-5m", "the same with 5 million", n=5_000_000, seconds=15, churn=8),
        _mutate("churn-5m", "5 million, a hundred objects of garbage an operation", n=5_000_000, seconds=10,
                churn=100),
    ]
    found += [_alloc("bytes", size) for size in BYTES] + [_alloc("pointers", size) for size in POINTERS]
    return found + [_marking("bytes", 16), _marking("pointers", 16)]


class Clause(NamedTuple):
    """figure of test, or its ratio to the same figure of a peer or of another test, between low and high."""

    bar: int
    text: str
    test: str
    figure: str
    high: float = math.inf
    low: float = -math.inf
    against: str = ""                   # a peer; "" for the figure itself
    against_test: str = ""              # pyalloc's figure there

    @property
    def bound(self) -> str:
        if self.low == -math.inf:
            return f"<= {self.high:g}"
        return f">= {self.low:g}" if self.high == math.inf else f"{self.low:g} .. {self.high:g}"


def clauses() -> List[Clause]:
    found = [
        Clause(1, "binary-trees, wall", "trees", "wall_s", 0.55, against=GO),
        Clause(1, "binary-trees, wall", "trees", "wall_s", 0.95, against=BOEHM),
        Clause(1, "binary-trees, peak RSS", "trees", "peak_rss_mib", 0.8, against=GO),
        Clause(2, "full collection, random, 2 workers", "full-random-2", "ns_per_object", 0.25, against=GO),
        Clause(2, "full collection, random, 2 workers", "full-random-2", "ns_per_object", 0.8, against=BOEHM),
        Clause(2, "... ns an object, 1 worker", "full-random-1", "ns_per_object", 40),
        Clause(2, "... 1 worker / 2 workers", "full-random-1", "ns_per_object", low=1.6,
               against_test="full-random-2"),
        Clause(2, "full collection, allocation order", "full-alloc-2", "ns_per_object", 1.0, against=GO),
        Clause(3, "20 M mutated, throughput", "mutate-20m", "mops", low=1.3, against=GO),
        Clause(3, "... stops, p99", "mutate-20m", "stop_p99_us", 1.0, against=GO),
        Clause(3, "... longest stop, us", "mutate-20m", "stop_max_us", 500),
        Clause(3, "... longest operation, us", "mutate-20m", "op_max_us", 10_000),
        Clause(3, "... operation p99.9", "mutate-20m", "op_p999_ns", 1.0, against=GO),
        Clause(4, "allocation, 8 bytes", "alloc-bytes-8", "ns_alloc", 1.0, against=BOEHM),
        Clause(4, "allocation, 16 bytes", "alloc-bytes-16", "ns_alloc", 1.0, against=BOEHM),
        Clause(4, "allocation, pointers, 16 bytes", "alloc-pointers-16", "ns_alloc", 1.1, against=BOEHM),
    ]
    for kind, sizes in (("bytes", BYTES), ("pointers", POINTERS)):
        found += [Clause(4, f"allocation, {kind}, {size}", f"alloc-{kind}-{size}", "ns_alloc", 0.7, against=GO)
                  for size in sizes]
    for kind in ("bytes", "pointers"):
        found.append(Clause(4, f"while marking / outside, {kind}", f"marking-{kind}-16", "marking_ratio", 1.5))
    for size in ("5m", "20m"):
        found.append(Clause(5, f"background share, {size}", f"mutate-{size}", "background_share", 0.30, 0.20))
        found.append(Clause(5, f"background + assists, {size}", f"mutate-{size}", "total_share", 1.0, against=GO))
    return found + [Clause(5, "peak heap / goal, churn", "churn-5m", "peak_over_goal", 1.1)]
