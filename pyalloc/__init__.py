"""Go's memory manager as a library: raw buffers and collected objects from 64 MiB arenas, outside the Python heap.

    import pyalloc

    with pyalloc.alloc(1 << 20) as buf:      # 1 MiB, zeroed
        memoryview(buf)[:5] = b"hello"
    pyalloc.free_os_memory()                 # give free pages back to the operating system

    class Node(pyalloc.Struct):              # objects of Go's collector: 32 bytes each, outside the Python heap
        left: pyalloc.Ref
        right: pyalloc.Ref
        key: pyalloc.int64

    tree = Node(left=Node(key=1), right=Node(key=3), key=2)
    tree.left = None
    pyalloc.collect()

Sizes are bytes everywhere.  Every function may be called from any thread.  ``pyalloc.lib`` and
``pyalloc.ffi`` are the raw C interface (csrc/include/pyalloc.h) through cffi.

tracemalloc sees Buffers, in the domain ``pyalloc.TRACEMALLOC_DOMAIN``.
"""

from __future__ import annotations

import os as _os
from typing import TYPE_CHECKING, Any

try:
    from pyalloc._core import (
        TRACEMALLOC_DOMAIN,
        Buffer,
        Field,
        Managed,
        ManagedBytes,
        OutOfMemoryError,
        RefArray,
        Struct,
        StructType,
        alloc,
        empty,
        free_os_memory,
        good_size,
        heap_check,
        is_alive,
        managed_bytes,
        owns,
        ref_array,
        weakref,
    )
except ImportError as _error:
    # A preloaded core that is too old lacks symbols, and the loader says so before _core can compare ABI numbers.
    if "pa_" in str(_error) or "LIBPYALLOC" in str(_error):
        raise ImportError(
            f"the libpyalloc.so in this process does not fit this pyalloc ({_error}); "
            f"LD_PRELOAD is {_os.environ.get('LD_PRELOAD', '')!r}; preload the path that "
            "pyalloc.preload.path() names, or install pyalloc again"
        ) from _error
    raise

from pyalloc._cleanup import Cleanup, add_cleanup
from pyalloc._fields import (
    Ref,
    bool_,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from pyalloc._gc import (
    GCStats,
    collect,
    gctrace,
    read_gc_stats,
    set_gc_mode,
    set_gc_percent,
    set_madvdontneed,
    set_memory_limit,
)
from pyalloc._heapmap import ArenaMap, HeapMap, heap_map
from pyalloc._metrics import Histogram, Metric, metrics
from pyalloc._rss import Rss, RssSampler, rss
from pyalloc._stats import (
    ClassStats,
    MemStats,
    SizeClass,
    class_stats,
    read_mem_stats,
    size_classes,
)

__version__ = "0.1.0"

__all__ = [
    "ArenaMap",
    "Buffer",
    "ClassStats",
    "Cleanup",
    "Field",
    "GCStats",
    "HeapMap",
    "Histogram",
    "Managed",
    "ManagedBytes",
    "MemStats",
    "Metric",
    "OutOfMemoryError",
    "Ref",
    "RefArray",
    "Rss",
    "RssSampler",
    "SizeClass",
    "Struct",
    "StructType",
    "TRACEMALLOC_DOMAIN",
    "__version__",
    "add_cleanup",
    "alloc",
    "bool_",
    "class_stats",
    "collect",
    "empty",
    "ffi",
    "float32",
    "float64",
    "free_os_memory",
    "gctrace",
    "good_size",
    "heap_check",
    "heap_map",
    "int16",
    "int32",
    "int64",
    "int8",
    "is_alive",
    "lib",
    "live",
    "managed_bytes",
    "metrics",
    "owns",
    "preload",
    "profile",
    "python",
    "read_gc_stats",
    "read_mem_stats",
    "ref_array",
    "rss",
    "set_gc_mode",
    "set_gc_percent",
    "set_madvdontneed",
    "set_memory_limit",
    "size_classes",
    "trace",
    "uint16",
    "uint32",
    "uint64",
    "uint8",
    "weakref",
]

if TYPE_CHECKING:
    from pyalloc import numpy as numpy  # not in __all__: `import *` must not hide NumPy itself
    from pyalloc import preload as preload
    from pyalloc import python as python
    from pyalloc._live import live as live
    from pyalloc._profile import profile as profile
    from pyalloc._trace import trace as trace

    lib: Any
    ffi: Any


def __getattr__(name: str) -> Any:
    """Loads what few programs need when it is first asked for."""
    import importlib

    if name in ("lib", "ffi"):
        module = importlib.import_module("pyalloc._cffi")
        globals().update(lib=module.lib, ffi=module.ffi)
        return globals()[name]
    if name in ("numpy", "preload", "python"):
        return importlib.import_module(f"pyalloc.{name}")
    if name in ("live", "profile", "trace"):
        globals()[name] = getattr(importlib.import_module(f"pyalloc._{name}"), name)
        return globals()[name]
    raise AttributeError(f"module 'pyalloc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
