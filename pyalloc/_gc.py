"""Control of the collector, and what it says about itself.

Setters return the value that was in force before, in a form that the setter takes again.
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from operator import index
from typing import Any, Optional, Union

from pyalloc import _cleanup, _core
from pyalloc._limit import limit_bytes

#: By number of pa_gc_mode: Go 1.0, 1.1, 1.5, 1.6, and 1.8 to now.
MODES = ("serial", "parallel", "concurrent-1.5", "concurrent-1.6", "concurrent")


def collect() -> None:
    """Runs one full collection: everything unreachable at the call is gone and swept when it returns.

    Cleanups of those objects have been called then, in this thread unless the main thread was faster.  The GIL is
    let go meanwhile.  Any thread.  Go counterpart: runtime.GC.
    """
    _core.gc_collect()
    _cleanup.deliver()


def set_gc_percent(percent: Union[int, str, None]) -> int:
    """Lets the heap grow by this many percent of what was live; "off", None or a negative number: no collections.

    Returns the previous setting, -1 for off.  Default 100, or $GOGC.  Go counterpart: debug.SetGCPercent.
    """
    if isinstance(percent, str):
        text = percent.strip().lower()
        percent = -1 if text == "off" else int(text)
    return _core.gc_set_percent(-1 if percent is None else max(index(percent), -1))


def set_memory_limit(limit: Union[int, str, None]) -> int:
    """Sets a soft limit on all memory of pyalloc: free pages go back and the collector works harder near it.

    From 95 % of it on free pages are released in the background; an allocation that would pass it releases free pages
    first, at the cost of at most half of a processor.  It never makes an allocation fail: a program that needs more
    goes on, and metrics()["/pyalloc/limit/exceeded:events"] says so.

    limit: bytes, "512MiB", "80%" (of the memory that this process may use: its cgroup's limit or the machine's),
    "auto" (0.9 of its cgroup's limit, none when there is none), "off", or None, which only asks.  Returns the
    previous limit in bytes, 2**63 - 1 for none.  ValueError for other text and negative numbers.
    Go counterpart: debug.SetMemoryLimit.
    """
    return _core.gc_set_memory_limit(-1 if limit is None else limit_bytes(limit))


def set_madvdontneed(on: Optional[bool]) -> bool:
    """Chooses how free pages are given back to the operating system, from now on.

    True, the default: MADV_DONTNEED; they leave the resident set at once.  False: MADV_FREE (Linux 4.5); they leave it
    when the operating system needs them, a reuse before that costs no page fault, and until then rss() counts them in
    rss and shows them as lazy_free.  Where the kernel refuses MADV_FREE, MADV_DONTNEED is used.  None only asks.
    Returns the previous setting.  Any thread.  Go counterpart: GODEBUG=madvdontneed=1.
    """
    return bool(_core.set_madvdontneed(-1 if on is None else int(bool(on))))


def set_gc_mode(mode: str) -> str:
    """Chooses one of the collectors of Go's history; takes effect between cycles, so it waits for one that runs.

    "serial" (Go 1.0), "parallel" (1.1), "concurrent-1.5", "concurrent-1.6", "concurrent" (1.8, the default).
    Returns the previous one.  ValueError for other names.  Go counterpart: none.
    """
    if mode not in MODES:
        raise ValueError(f"{mode!r} is no mode of the collector: {', '.join(MODES)}")
    return MODES[_core.gc_set_mode(MODES.index(mode))]


_trace_file: Any = None  # the file that lines go to, so that it is not closed for want of a reference


class _Trace:
    """What gctrace() returns: leaving it as a context manager brings the setting before it back."""

    __slots__ = ("_previous",)

    def __init__(self, previous: tuple[int, Any]) -> None:
        self._previous = previous

    def __enter__(self) -> _Trace:
        return self

    def __exit__(self, *unused: object) -> None:
        _set_trace(*self._previous)


def _set_trace(fd: int, file: Any) -> tuple[int, Any]:
    global _trace_file
    previous = _core.gc_set_trace(fd), _trace_file
    _trace_file = file
    return previous


def gctrace(on: bool = True, file: Any = None) -> _Trace:
    """Writes a line in Go's format for every cycle, from now on or, used with ``with``, for the block.

    file: an object with fileno(), or a descriptor; default sys.stderr, or 2 when that has none.  Lines go to the
    descriptor directly, past the buffer of the file object.  The file must stay open until tracing is turned off.
    Go counterpart: GODEBUG=gctrace=1.
    """
    return _Trace(_set_trace(_fileno(file), file) if on else _set_trace(-1, None))


def _fileno(file: Any) -> int:
    if file is None:
        try:
            return int(sys.stderr.fileno())
        except (AttributeError, OSError, ValueError):
            return 2
    fd = file if isinstance(file, int) else file.fileno()
    if not isinstance(fd, int) or fd < 0:
        raise ValueError(f"{file!r} has no file descriptor")
    os.fstat(fd)  # OSError when it is not open
    return fd


@dataclass(frozen=True)
class GCStats:
    """What the collector did so far; see :func:`read_gc_stats`.  Go counterpart: debug.GCStats and MemStats."""

    cycles: int  # completed
    forced_cycles: int  # of those, asked for by collect()
    pause_total_ns: int
    pause_count: int  # stops, ever
    last_gc_unix_ns: int
    next_gc_bytes: int  # heap goal; 2**64 - 1 while off
    heap_live_bytes: int  # marked by the last cycle + allocated since
    heap_marked_bytes: int  # marked by the last cycle
    total_alloc_bytes: int  # cumulative, managed objects
    mallocs: int  # count of managed objects, cumulative
    frees: int  # count of managed objects, cumulative
    assist_ns: int  # processor time of marking in allocating threads
    background_ns: int  # processor time of marking in the background
    idle_ns: int
    stopped_ns: int
    unbarriered_bytes: int  # scanned again in the last final stop
    handles: int  # in use: references of Python and of C programs
    weak_handles: int
    mode: str  # as set_gc_mode() takes it
    gc_percent: int  # -1: off
    memory_limit: int
    phase: int  # 0 off or sweeping, 1 sweep termination, 2 mark, 3 mark termination
    processors: int
    cpu_fraction: float  # share of the processors' time since the start
    pauses_ns: tuple[int, ...]  # the most recent stops, newest first
    pause_ends_unix_ns: tuple[int, ...]  # when they ended

    def pause_percentile(self, percent: float) -> int:
        """Length in ns that this many percent of the recent stops did not pass; 0 when there were none."""
        if not 0 <= percent <= 100:
            raise ValueError(f"a percentile is between 0 and 100, not {percent!r}")
        ordered = sorted(self.pauses_ns)
        rank = math.ceil(len(ordered) * percent / 100)
        return ordered[max(rank, 1) - 1] if ordered else 0

    @property
    def pause_quantiles_ns(self) -> tuple[int, int, int, int, int]:
        """Shortest, 25 %, median, 75 % and longest of the recent stops, as Go's GCStats.PauseQuantiles."""
        p = self.pause_percentile
        return p(0), p(25), p(50), p(75), p(100)


def read_gc_stats() -> GCStats:
    """The collector's statistics now, with the most recent stops.  Any thread.  Go counterpart: debug.ReadGCStats."""
    row: Any = _core.gc_stats_row()
    pauses = _core.gc_pauses()
    lengths, ends = tuple(length for length, _ in pauses), tuple(end for _, end in pauses)
    values: list[Any] = [*row[:18], MODES[row[18]], *row[19:], lengths, ends]
    return GCStats(*values)
