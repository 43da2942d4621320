"""What the heap says about itself, as frozen dataclasses.

The numbers come from the core in declaration order of csrc/include/pyalloc.h; the names here are those
of the structs there, which a test compares.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyalloc import _core


@dataclass(frozen=True)
class MemStats:
    """The allocator part of Go's runtime.MemStats; bytes unless a comment says otherwise.

    Always: ``heap_sys == heap_idle + heap_inuse``, ``heap_released <= heap_idle``, ``heap_alloc <= heap_inuse``,
    ``sys == heap_sys + mspan_sys + mcache_sys + gc_sys + other_sys``.
    """

    sys: int  # all memory obtained from the operating system
    heap_sys: int  # heap memory obtained, arenas
    heap_idle: int  # pages in no span
    heap_inuse: int  # pages in spans
    heap_released: int  # part of heap_idle that the operating system holds
    heap_alloc: int  # live objects, whole slots
    heap_objects: int  # count of live objects
    explicit_inuse: int  # of heap_inuse: spans of alloc(), empty() and the malloc family
    explicit_alloc: int  # of heap_alloc: live blocks of the same
    explicit_objects: int  # of heap_objects, count
    explicit_cached: int  # of heap_inuse: empty spans that threads keep for reuse
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


def read_mem_stats() -> MemStats:
    """The statistics of the heap now, without stopping any thread.

    Page-level fields are exact at one instant.  Object counts lag behind what other threads do meanwhile and
    are exact once they are quiescent.  Any thread.  Go counterpart: runtime.ReadMemStats.
    """
    return MemStats(*_core.mem_stats_row())


@dataclass(frozen=True)
class ClassStats:
    """Use of one size class; see :func:`class_stats`."""

    size_class: int  # 0 = large, 1..66
    object_bytes: int  # size of a slot; 0 for large
    spans: int  # count
    span_bytes: int  # pages of those spans
    objects: int  # live ones, count


def class_stats() -> list[ClassStats]:
    """Use of every size class, indexed by class (0 = large).

    As exact as :func:`read_mem_stats`.  Any thread.  Go counterpart: MemStats.BySize.
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
