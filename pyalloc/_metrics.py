"""Every figure of a snapshot by name, as Go's runtime/metrics has them.

Names, kinds and descriptions come from one list in the core (csrc/api/metrics.c).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Union

from pyalloc import _core

#: Where there is no limit or no goal, as in Go.
NONE = 2**64 - 1

_KINDS = ("count", "real", "histogram")


class Histogram(NamedTuple):
    """counts[i] values lay in [bounds[i], bounds[i + 1]).  There is one bound more than counts; the last may be inf."""

    counts: tuple[int, ...]
    bounds: tuple[float, ...]

    @property
    def total(self) -> int:
        """All values, count."""
        return sum(self.counts)


class Metric(NamedTuple):
    """One figure of :func:`metrics`; kind is "count" (value: int), "real" (float) or "histogram" (Histogram)."""

    value: Union[int, float, Histogram]
    name: str  # "/gc/heap/live:bytes"
    kind: str
    unit: str  # what stands behind the colon: bytes, objects, gc-cycles, seconds, cpu-seconds, percent ...
    cumulative: bool  # only ever grows
    doc: str


_infos: list[tuple[str, str, str, bool, str]] = []


def _load() -> list[tuple[str, str, str, bool, str]]:
    global _infos
    rows: Any = _core.metric_infos()
    _infos = [(name, _KINDS[kind], name.rpartition(":")[2], cumulative, doc) for name, kind, cumulative, doc in rows]
    return _infos


def metrics() -> dict[str, Metric]:
    """Every metric by name, all from one snapshot; as exact as :func:`pyalloc.read_mem_stats`.

    Names are Go's where Go has the metric; ours begin with "/pyalloc/".  2**64 - 1 stands for no limit and no goal.
    Any thread; stops nobody.  Go counterpart: runtime/metrics.Read.
    """
    values: Any = _core.metric_values()
    return {
        info[0]: Metric(Histogram(*value) if info[1] == "histogram" else value, *info)
        for info, value in zip(_infos or _load(), values)
    }
