"""What size classes cost: space that a program asked the heap for and cannot use, or did not ask for and got.

Three kinds, from the inside out.  *Rounding*: a block is a slot of the next larger class.  *Free slots*: a span has
room for more objects than are alive.  *Tails*: what is left at the end of a span that its objects do not divide.

The core does not record the sizes that programs ask for, so the rounding of a live process is estimated: sizes spread
evenly between one class and the next, with the worst case beside it.  A recorded program has the sizes; there it is
measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Iterable, Sequence

from pyalloc._stats import ClassStats, SizeClass, size_classes

if TYPE_CHECKING:
    from pyalloc._bench.trace import Event

_PAGE = 8192
_LARGEST_SMALL = 32768


@dataclass(frozen=True)
class ClassWaste:
    """One row of the size-class table with what it wastes by itself."""

    size_class: int
    object_bytes: int
    span_bytes: int
    objects: int  # of a span, count
    smallest_request: int  # bytes, that this class serves
    worst_percent: float  # of a span full of smallest requests, the tail included: Go's "max waste"
    average_percent: float  # of a span full of requests spread evenly over the class


@dataclass(frozen=True)
class MeasuredWaste:
    """One class of a live process; bytes."""

    size_class: int  # 0: large
    object_bytes: int
    span_bytes: int  # all its spans
    live: int  # slots with an object in them
    rounding: int  # of live, estimated
    rounding_most: int  # of live, when every request was the smallest that the class serves
    free: int  # slots without
    tail: int

    @property
    def wasted(self) -> int:
        return self.rounding + self.free + self.tail


@dataclass(frozen=True)
class RecordedWaste:
    """One class of a recorded program; bytes."""

    size_class: int  # 0: large
    object_bytes: int
    requested: int  # alive at the peak of all that was requested
    slots: int  # what those blocks take
    total_requested: int  # over the whole program
    total_slots: int

    @property
    def wasted(self) -> int:
        return self.slots - self.requested


def by_class() -> list[ClassWaste]:
    """The size-class table, classes 1 to 66."""
    found, previous = [], 0
    for row in size_classes():
        average = (row.object_bytes + previous + 1) / 2
        found.append(
            ClassWaste(
                row.size_class,
                row.object_bytes,
                row.span_bytes,
                row.objects,
                previous + 1,
                100 * (1 - (previous + 1) * row.objects / row.span_bytes),
                100 * (1 - average * row.objects / row.span_bytes),
            )
        )
        previous = row.object_bytes
    return found


def at_size(nbytes: int, classes: Sequence[SizeClass]) -> float:
    """Share of its part of the span that a request of nbytes wastes, tail included."""
    for row in classes:
        if nbytes <= row.object_bytes:
            return 1 - nbytes * row.objects / row.span_bytes
    pages = -(-nbytes // _PAGE)
    return 1 - nbytes / (pages * _PAGE)


def measured(classes: Iterable[ClassStats]) -> list[MeasuredWaste]:
    """Of statistics by class; only classes that have spans, those that take most memory first."""
    table = {row.size_class: row for row in by_class()}
    found = []
    for one in classes:
        span_bytes = one.span_bytes + one.managed_span_bytes
        if not span_bytes:
            continue
        count = one.objects + one.managed_mallocs - one.managed_frees
        if one.size_class == 0:
            live, tail = span_bytes, 0
            rounding, most = min(count * _PAGE // 2, live), min(count * (_PAGE - 1), live)
        else:
            row = table[one.size_class]
            tail = span_bytes // row.span_bytes * (row.span_bytes - row.objects * row.object_bytes)
            live = min(count * one.object_bytes, span_bytes - tail)
            most = live // one.object_bytes * (one.object_bytes - row.smallest_request)
            rounding = most // 2
        found.append(
            MeasuredWaste(
                one.size_class, one.object_bytes, span_bytes, live, rounding, most, span_bytes - tail - live, tail
            )
        )
    return sorted(found, key=lambda one: -one.span_bytes)


def _slots() -> list[tuple[int, int]]:
    """Class and slot of each request, by (bytes + 7) // 8; requests of up to 8 bytes and of 0 are of class 1."""
    found, rows = [], iter(size_classes())
    row = next(rows)
    for units in range(_LARGEST_SMALL // 8 + 1):
        if units * 8 > row.object_bytes:
            row = next(rows)
        found.append((row.size_class, row.object_bytes))
    return found


def _place(size: int, slots: Sequence[tuple[int, int]]) -> tuple[int, int]:
    if size <= _LARGEST_SMALL:
        return slots[(size + 7) // 8]
    return 0, -(-size // _PAGE) * _PAGE


def _alive_after(events: Sequence[Event], count: int) -> dict[int, int]:
    """Sizes of the blocks that are alive after the first count events."""
    from pyalloc._bench.trace import FREE, THREAD

    sizes: dict[int, int] = {}
    for kind, block, size, _ in events[:count]:
        if kind == FREE:
            del sizes[block]
        elif kind != THREAD:
            sizes[block] = size
    return sizes


def recorded(events: Sequence[Event]) -> list[RecordedWaste]:
    """Of a program recorded as pyalloc/_bench/traces/FORMAT.md says; only classes that it used, the most wasteful
    first.  Alignments above what a class gives are not looked at."""
    from pyalloc._bench.trace import FREE, THREAD

    slots = _slots()
    sizes: dict[int, int] = {}
    totals: dict[int, list[int]] = {}
    live = peak = peak_at = 0
    for at, (kind, block, size, _) in enumerate(events):
        if kind == THREAD:
            continue
        if kind == FREE:
            live -= sizes.pop(block)
            continue
        live += size - sizes.get(block, 0)
        sizes[block] = size
        size_class, slot = _place(size, slots)
        total = totals.setdefault(size_class, [0, 0])
        total[0] += size
        total[1] += slot
        if live > peak:
            peak, peak_at = live, at + 1
    alive = {size_class: [0, 0] for size_class in totals}
    for size in _alive_after(events, peak_at).values():
        size_class, slot = _place(size, slots)
        alive[size_class][0] += size
        alive[size_class][1] += slot
    object_bytes = {row.size_class: row.object_bytes for row in size_classes()}
    found = [
        RecordedWaste(size_class, object_bytes.get(size_class, 0), *alive[size_class], *total)
        for size_class, total in totals.items()
    ]
    return sorted(found, key=lambda one: (one.requested - one.slots, one.size_class))
