"""What the heap says about itself, as frozen dataclasses.

The numbers come from the core in declaration order of csrc/include/pyalloc.h; the names here are those
of the structs there, which a test compares.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from pyalloc import _core


@dataclass(frozen=True)
class ClassStats:
    """Use of one size class; see :func:`class_stats`.

    The fast paths of alloc() and malloc keep no counters, so only managed objects are counted over time.
    """

    size_class: int  # 0 = large, 1..66
    object_bytes: int  # size of a slot; 0 for large
    spans: int  # count: explicit ones, without those kept empty; so the next two
    span_bytes: int  # pages of those spans
    objects: int  # live ones, count
    managed_spans: int  # count
    managed_span_bytes: int  # pages of those spans
    managed_mallocs: int  # count of objects ever allocated; tiny ones count by 16-byte block, in class 2
    managed_frees: int  # count of objects ever swept


@dataclass(frozen=True)
class MemStats:
    """Go's runtime.MemStats and what is ours; bytes unless a comment says otherwise.

    Always: ``heap_sys == heap_idle + heap_inuse``, ``heap_inuse == explicit_inuse + managed_inuse``,
    ``heap_released <= heap_idle``, ``heap_alloc <= heap_inuse``,
    ``mallocs - frees == heap_objects - explicit_objects``,
    ``sys == heap_sys + mspan_sys + mcache_sys + gc_sys + other_sys`` (the classes of Go that are always 0 here
    add nothing).
    """

    sys: int  # all memory obtained from the operating system
    heap_sys: int  # heap memory obtained, arenas
    heap_idle: int  # pages in no span
    heap_inuse: int  # pages in spans
    heap_released: int  # part of heap_idle that the operating system holds
    heap_alloc: int  # live objects, whole slots; dead managed ones until they are swept
    heap_objects: int  # count of the same
    total_alloc: int  # managed: ever allocated. Blocks of alloc() and malloc are not counted over time
    mallocs: int  # managed: count of objects ever allocated; tiny ones count by 16-byte block
    frees: int  # managed: count of objects ever swept
    managed_inuse: int  # of heap_inuse: spans of managed objects
    explicit_inuse: int  # of heap_inuse: spans of alloc(), empty() and the malloc family
    explicit_alloc: int  # of heap_alloc: live blocks of the same
    explicit_objects: int  # of heap_objects, count
    explicit_cached: int  # of heap_inuse: empty spans that threads keep for reuse
    explicit_hollow: int  # of heap_inuse: memory of free blocks, given back to the operating system
    mspan_inuse: int  # span headers in use
    mspan_sys: int
    mcache_inuse: int  # thread caches in use
    mcache_sys: int
    gc_sys: int  # page summaries, chunk bitmaps, address tables, mark bitmaps
    other_sys: int
    arenas: int  # count of 64 MiB heapArenas
    heap_mmaps: int  # count of mmap calls for heap memory
    heap_released_total: int  # ever returned to the operating system
    spans_allocated: int  # count, ever
    spans_freed: int  # count, ever
    threads: int  # count of threads that have a cache now
    mheap_lock_acquisitions: int  # count, ever
    # From here on Go's remaining fields.
    alloc: int  # as heap_alloc
    lookups: int  # always 0, as in Go
    stack_inuse: int  # always 0: stacks are the C library's
    stack_sys: int  # always 0
    buck_hash_sys: int  # always 0: there is no profiling table
    next_gc: int  # heap size that the next cycle is to end at; 2**64 - 1 while off
    last_gc: int  # when the last cycle ended, ns since the epoch; 0: never
    pause_total_ns: int
    pause_count: int  # stops, ever: two a concurrent cycle
    num_gc: int  # cycles completed
    num_forced_gc: int  # of those, asked for by collect() and free_os_memory()
    gc_cpu_fraction: float  # share of the processors' time since the start
    enable_gc: bool  # always True; GOGC=off is gc_percent < 0 in read_gc_stats()
    debug_gc: bool  # always False, as in Go

    @property
    def pause_ns(self) -> tuple[int, ...]:
        """Ring of the last 256 stops, newest at (pause_count + 255) % 256; Go has one entry a cycle."""
        return struct.unpack("=256Q", self._rows[1])

    @property
    def pause_end(self) -> tuple[int, ...]:
        """When those ended, ns since the epoch."""
        return struct.unpack("=256Q", self._rows[2])

    @property
    def by_size(self) -> tuple[ClassStats, ...]:
        """Size classes by number, 0 = large: Go's BySize with more columns."""
        rows = struct.iter_unpack("=8Q", self._rows[0])
        return tuple(ClassStats(index, *row) for index, row in enumerate(rows))

    _rows = (bytes(67 * 64), bytes(256 * 8), bytes(256 * 8))  # as the core gave them: classes, pause_ns, pause_end


def read_mem_stats() -> MemStats:
    """The statistics of heap and collector now, without stopping any thread.

    Page-level fields and the collector's are exact at one instant.  Object counts lag behind what other threads do
    meanwhile and are exact once they are quiescent.  Costs some microseconds, and some nanoseconds for each span.
    Any thread.  Go counterpart: runtime.ReadMemStats, which stops the world.
    """
    rows: Any = _core.snapshot_rows()
    mem, gc = rows[:2]
    cycles, forced, pause_total, pause_count, last, goal = gc[:6]
    values: list[Any] = [*mem, mem[5], 0, 0, 0, 0, goal, last, pause_total, pause_count, cycles, forced, gc[-1], True,
                         False]
    stats = MemStats(*values)
    object.__setattr__(stats, "_rows", rows[2:])
    return stats


def class_stats() -> list[ClassStats]:
    """Use of every size class, indexed by class (0 = large).

    As exact as :func:`read_mem_stats`, whose ``by_size`` it is.  Any thread.  Go counterpart: MemStats.BySize.
    """
    return [ClassStats(index, *row) for index, row in enumerate(_core.class_stats_rows())]


@dataclass(frozen=True)
class SizeClass:
    """One row of the size-class table; see :func:`size_classes`."""

    size_class: int  # 1..66
    object_bytes: int  # largest request, and size of a slot
    span_bytes: int  # whole 8 KiB pages
    objects: int  # slots of a span
    tail_waste_bytes: int  # span_bytes - objects * object_bytes


def size_classes() -> list[SizeClass]:
    """The small size classes, 1 to 66; requests above 32 KiB are rounded to 8 KiB pages instead.

    Constant for a version.  Go counterpart: runtime/sizeclasses.go.
    """
    return [SizeClass(*row) for row in _core.size_class_rows()]
