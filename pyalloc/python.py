"""Python's own objects from pyalloc's heap: lists, dicts, strings, and whatever else CPython allocates.

    import pyalloc.python

    pyalloc.python.install()        # first thing in the program
    ...                             # objects made from here on live in pyalloc's spans
    print(pyalloc.python.status())

CPython lets its allocators be replaced (PyMem_SetAllocator).  ``install()`` wraps those that it finds: new blocks are
pyalloc's, blocks from before are recognised by their address and go back to where they came from.  What was allocated
before stays there, so install early; ``python -m pyalloc run --python-objects`` covers everything from the first
block on, and the C libraries of the process as well.

The hook holds for the whole process: for all threads, sub-interpreters and fork children.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Union

from pyalloc import _core

#: CPython's allocator domains, in the order of PyMemAllocatorDomain.
DOMAINS = ("raw", "mem", "obj")


@dataclass(frozen=True)
class Status:
    """What :func:`status` found."""

    #: Domains whose new blocks are pyalloc's now.
    domains: tuple[str, ...]
    #: Domains that have the hook; after disable() these are more than *domains*, for good.
    hooked: tuple[str, ...]
    #: Blocks of the allocators before that were freed through the hook.  Threads under different GILs, and callers of
    #: the raw domain, may lose a count to each other.
    foreign_frees: int
    #: Blocks of the allocators before that were resized through the hook; they stay there.  The same.
    foreign_reallocs: int
    #: Live explicit blocks of pyalloc's heap, and their bytes: of Python objects, Buffers and C callers together, since
    #: nothing is counted per block.
    heap_blocks: int
    heap_bytes: int


def _mask(domains: Union[str, Iterable[str]]) -> int:
    names = (domains,) if isinstance(domains, str) else tuple(domains)
    for name in names:
        if name not in DOMAINS:
            raise ValueError(f"there is no domain {name!r}: use 'obj', 'mem' or 'raw'")
    if not names:
        raise ValueError("no domain: use 'obj', 'mem' or 'raw'; disable() ends the use of all")
    return sum(1 << DOMAINS.index(name) for name in set(names))


def _check_interpreter() -> None:
    if sys.implementation.name != "cpython":
        raise RuntimeError(f"{sys.implementation.name} does not allocate its objects through PyMem_SetAllocator: "
                           "only CPython does")
    if "t" in getattr(sys, "abiflags", ""):
        raise RuntimeError("this is a free-threaded build of Python: its collector finds objects in the heaps of its "
                           "own allocator, and must not meet others; use a build with the GIL")


def _check_tracemalloc(mask: int) -> None:
    import _tracemalloc

    hooked = sum(1 << DOMAINS.index(name) for name in status().hooked)
    if mask & ~hooked and _tracemalloc.is_tracing():
        raise RuntimeError("tracemalloc is tracing: it would put the allocators before back when it stops, and free "
                           "blocks of pyalloc with them; call tracemalloc.stop(), install(), tracemalloc.start()")


def install(domains: Union[str, Iterable[str]] = ("mem", "obj")) -> None:
    """Takes new blocks of these domains of CPython's allocator from pyalloc; after disable(), again.

    domains: "obj" (objects), "mem" (their parts: items of lists, tables of dicts) and "raw" (what is allocated without
    the GIL: locks, states of threads, what the interpreter itself keeps), one as a string or several.  A domain that is
    hooked already stays; others are added, all or none.

    tracemalloc, started afterwards, works as ever.  Started before, it is a RuntimeError, as are PyPy, free-threaded
    builds, debug hooks (PYTHONMALLOC=debug, -X dev: they would not see the new blocks) and an allocator that another
    extension has hooked (memray's --trace-python-allocators).  ValueError for unknown domains.  Any thread.  An
    embedding program that ends the interpreter and starts it again must not have PYTHONMALLOC set.
    """
    mask = _mask(domains)
    _check_interpreter()
    _check_tracemalloc(mask)
    _core.pymem_install(mask)


def disable() -> None:
    """Takes new blocks of all domains from the allocators before again.

    The hook stays, because blocks of pyalloc live on: they are still recognised when they are freed or resized.  It
    may be called while tracemalloc traces, without install() before, and twice.  Any thread.
    """
    _core.pymem_disable()


def status() -> Status:
    """Which domains are pyalloc's, and what the hook has counted.  Walks the heap's spans: some ns each."""
    from pyalloc._stats import read_mem_stats

    rows = _core.pymem_rows()
    stats = read_mem_stats()
    return Status(
        domains=tuple(name for name, _, on, _, _ in rows if on),
        hooked=tuple(name for name, hooked, _, _, _ in rows if hooked),
        foreign_frees=sum(frees for _, _, _, frees, _ in rows),
        foreign_reallocs=sum(reallocs for _, _, _, _, reallocs in rows),
        heap_blocks=stats.explicit_objects,
        heap_bytes=stats.explicit_alloc,
    )
