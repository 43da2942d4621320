"""What PYALLOC_REPORT wrote: the heap of a process at its peak and at exit (csrc/api/peaks.c writes it)."""

from __future__ import annotations

import json
import os
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from pyalloc._heapmap import PAGES, ArenaMap, HeapMap
from pyalloc._metrics import Histogram
from pyalloc._stats import ClassStats

_RUN = 6  # numbers: state and flags, size class, live, capacity, pages, times


class RecordError(ValueError):
    """A file that PYALLOC_REPORT did not write."""


@dataclass(frozen=True)
class State:
    """The heap of a process at one moment."""

    kind: str  # "peak" or "exit"
    seconds: float  # CLOCK_MONOTONIC
    peak_heap_inuse: int  # bytes, the most until then
    peak_rss: int  # bytes, the most until then; 0: not known
    minor_faults: int  # count until then
    major_faults: int
    cpu_seconds: float
    metrics: dict[str, Union[int, float, Histogram]]  # by name, as pyalloc.metrics() has them
    classes: tuple[ClassStats, ...]
    pauses_ns: tuple[int, ...]  # the last stops, oldest first
    heap_map: HeapMap

    def number(self, name: str) -> int:
        """A metric that is a count; 0 when this version does not have it."""
        value = self.metrics.get(name, 0)
        return value if isinstance(value, int) else 0

    @property
    def inuse(self) -> int:
        """Bytes of pages in spans."""
        return self.number("/pyalloc/explicit/inuse:bytes") + self.number("/pyalloc/managed/inuse:bytes")


@dataclass(frozen=True)
class Record:
    """One process: its options, and its states as far as it came."""

    pid: int
    parent: int
    program: str
    options: tuple[dict[str, Any], ...]  # name, value, type, source
    peak: Optional[State]
    exit: Optional[State]

    @property
    def last(self) -> State:
        found = self.exit or self.peak
        assert found is not None  # read() sees to it
        return found

    @property
    def highest(self) -> State:
        """The state with the most in use."""
        states = [state for state in (self.peak, self.exit) if state is not None]
        return max(states, key=lambda state: state.inuse)


def _arena(row: dict[str, Any]) -> ArenaMap:
    state, size_class, first, huge = bytearray(), bytearray(), bytearray(), bytearray()
    live, capacity = array("I"), array("I")
    runs = row["runs"]
    for at in range(0, len(runs), _RUN):
        flags, number, alive, most, pages, times = runs[at : at + _RUN]
        count = pages * times
        state += bytes((flags & 7,)) * count
        size_class += bytes((number,)) * count
        first += (bytes((flags >> 3 & 1,)) + bytes(pages - 1)) * times
        huge += bytes((flags >> 4,)) * count
        live.extend([alive] * count)
        capacity.extend([most] * count)
    if len(state) != PAGES:
        raise RecordError(f"an arena of {len(state)} pages")
    return ArenaMap(row["address"], bytes(state), bytes(size_class), bytes(first), bytes(huge), live, capacity)


def _metric(value: Any) -> Union[int, float, Histogram]:
    if isinstance(value, dict):
        bounds = (float("inf") if bound is None else bound for bound in value["bounds"])
        return Histogram(tuple(value["counts"]), tuple(bounds))
    number: Union[int, float] = value
    return number


def _state(row: dict[str, Any]) -> State:
    return State(
        kind=row["kind"],
        seconds=row["time_ns"] / 1e9,
        peak_heap_inuse=row["peak_heap_inuse_bytes"],
        peak_rss=row["peak_rss_bytes"],
        minor_faults=row.get("minor_faults", 0),
        major_faults=row.get("major_faults", 0),
        cpu_seconds=row.get("user_seconds", 0.0) + row.get("system_seconds", 0.0),
        metrics={name: _metric(value) for name, value in row["metrics"].items()},
        classes=tuple(ClassStats(index, *values) for index, values in enumerate(row["classes"])),
        pauses_ns=tuple(row["pauses_ns"]),
        heap_map=HeapMap(tuple(map(_arena, row["arenas"]))),
    )


def read(path: Union[str, os.PathLike[str]]) -> Record:
    """The record in a file.  RecordError when it is none, OSError when it cannot be read."""
    try:
        rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
        process = rows[0]
        states = {row["kind"]: _state(row) for row in rows[1:]}
        record = Record(
            pid=process["pid"],
            parent=process["parent"],
            program=process["program"],
            options=tuple(process["options"]),
            peak=states.get("peak"),
            exit=states.get("exit"),
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise RecordError(f"{os.fspath(path)} is no report of PYALLOC_REPORT: {error!r}") from error
    if not states:
        raise RecordError(f"{os.fspath(path)} has no state of a heap in it")
    return record
