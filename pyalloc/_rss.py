"""What the operating system says about a process's memory, beside what the heap says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Optional

from pyalloc import _stats


@dataclass(frozen=True)
class Rss:
    """Memory of one process; bytes unless a comment says otherwise.

    None: not allowed, not known to this kernel, or, for ``heap_*``, the heap of another process.
    ``rss`` counts ``lazy_free`` pages: the operating system may take those at any time without a write
    to disk, so ``rss - lazy_free`` is what the process holds against its will.
    """

    pid: int
    rss: int  # resident set
    uss: Optional[int]  # of rss: pages that no other process maps
    pss: Optional[int]  # rss with shared pages divided by their users
    anonymous: Optional[int]  # of rss: pages without a file behind them
    lazy_free: Optional[int]  # of rss: given back with MADV_FREE, not yet taken
    minor_faults: Optional[int]  # count, since the process started
    major_faults: Optional[int]  # count, since the process started; they read from disk
    heap_inuse: Optional[int]  # ours: pages in spans
    heap_idle: Optional[int]  # ours: free pages
    heap_released: Optional[int]  # ours: of heap_idle, what the operating system holds


def _smaps_rollup(pid: int) -> dict[str, int]:
    """The sums of /proc/<pid>/smaps_rollup (Linux 4.14) in bytes; empty where it cannot be read."""
    sums: dict[str, int] = {}
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as file:
            for line in file:
                name, _, rest = line.partition(":")
                words = rest.split()
                if len(words) == 2 and words[1] == "kB" and words[0].isdigit():
                    sums[name] = int(words[0]) * 1024
    except OSError:
        return {}
    return sums


def _faults(pid: int) -> tuple[Optional[int], Optional[int]]:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[7]), int(fields[9])
    except (OSError, ValueError, IndexError):
        return None, None


def rss(pid: Optional[int] = None) -> Rss:
    """Memory of this process, or of process *pid* as the operating system sees it.

    Through psutil and /proc/<pid>/smaps_rollup; reading walks the page tables, some milliseconds for a large
    process.  Raises psutil.NoSuchProcess or psutil.AccessDenied.  Any thread.  Go counterpart: none.
    """
    import psutil

    own = os.getpid()
    target = own if pid is None else pid
    process = psutil.Process(target)
    resident = process.memory_info().rss
    uss = pss = None
    try:
        full = process.memory_full_info()
        resident, uss, pss = full.rss, full.uss, full.pss
    except psutil.AccessDenied:
        pass
    sums = _smaps_rollup(target)
    minor, major = _faults(target)
    stats = _stats.read_mem_stats() if target == own else None
    return Rss(
        pid=target,
        rss=resident,
        uss=uss,
        pss=pss,
        anonymous=sums.get("Anonymous"),
        lazy_free=sums.get("LazyFree"),
        minor_faults=minor,
        major_faults=major,
        heap_inuse=stats.heap_inuse if stats else None,
        heap_idle=stats.heap_idle if stats else None,
        heap_released=stats.heap_released if stats else None,
    )
