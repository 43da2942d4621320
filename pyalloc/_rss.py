"""What the operating system says about a process's memory, beside what the heap says."""

from __future__ import annotations

import os
import threading
import time
from array import array
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Optional, Union

from pyalloc import _core


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


def _heap() -> tuple[int, int, int]:
    """Pages in spans, free ones, and of those what the operating system holds; bytes at one instant."""
    row = _core.page_stats_row()
    return row[3], row[2], row[4]


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
    heap = _heap() if target == own else (None, None, None)
    return Rss(
        pid=target,
        rss=resident,
        uss=uss,
        pss=pss,
        anonymous=sums.get("Anonymous"),
        lazy_free=sums.get("LazyFree"),
        minor_faults=minor,
        major_faults=major,
        heap_inuse=heap[0],
        heap_idle=heap[1],
        heap_released=heap[2],
    )


class RssSampler:
    """Samples the memory of a process from a background thread while a ``with`` block runs.

        with pyalloc.RssSampler(hz=50) as sampler:
            work()
        max(sampler.arrays()["rss"])
        sampler.plot("rss.png")

    hz: samples a second.  full: also uss, pss and lazy_free, for which the kernel walks the page tables (milliseconds
    for a large process).  pid: another process; then there is nothing of the heap.  There is a sample at the start
    and one at the end of the block, so at least two.  A process that ends ends the sampling.
    ValueError for a rate that is not positive; psutil's errors for a process that may not be read.
    One sampler can be entered once at a time; entering again starts anew.  Reading while it samples is allowed.
    """

    #: Of arrays(): seconds since the start (float), the others bytes or counts; -1 stands for "not known".
    columns = ("seconds", "rss", "uss", "pss", "lazy_free", "minor_faults", "major_faults", "heap_inuse", "heap_idle",
               "heap_released")

    def __init__(self, hz: float = 20, *, full: bool = False, pid: Optional[int] = None) -> None:
        if not 0 < hz < float("inf"):
            raise ValueError(f"hz is samples a second, a positive number, not {hz!r}")
        self.hz = hz
        self.full = full
        self.pid = os.getpid() if pid is None else pid
        self._own = pid is None or pid == os.getpid()
        self._stop = threading.Event()
        self._thread: Optional[threading.Thread] = None
        self._process: Any = None
        self._began = 0.0
        self._reset()

    def _reset(self) -> None:
        self._data = {name: array("d" if name == "seconds" else "q") for name in self.columns}

    def _sample(self) -> None:
        info = self._process.memory_info()
        sums = _smaps_rollup(self.pid) if self.full else {}
        private = [sums[name] for name in ("Private_Clean", "Private_Dirty") if name in sums]
        values: tuple[Union[int, float, None], ...] = (
            time.monotonic() - self._began, info.rss, sum(private) if private else None, sums.get("Pss"),
            sums.get("LazyFree"), *_faults(self.pid), *(_heap() if self._own else (None, None, None)),
        )
        for name, value in zip(self.columns, values):
            self._data[name].append(-1 if value is None else value)  # type: ignore[arg-type]

    def _run(self) -> None:
        import psutil

        turn = 1
        while not self._stop.wait(max(0.0, self._began + turn / self.hz - time.monotonic())):
            try:
                self._sample()
            except (psutil.Error, OSError):
                return
            # Behind its time, a slow sampler leaves turns out rather than run without a pause.
            turn = max(turn, int((time.monotonic() - self._began) * self.hz)) + 1

    def __enter__(self) -> RssSampler:
        import psutil

        if self._thread is not None:
            raise RuntimeError("this sampler is running; make another one")
        self._process = psutil.Process(self.pid)
        self._reset()
        self._stop.clear()
        self._began = time.monotonic()
        self._sample()
        thread = threading.Thread(target=self._run, name="pyalloc-rss", daemon=True)
        thread.start()
        self._thread = thread
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        import psutil

        thread, self._thread = self._thread, None
        self._stop.set()
        if thread is not None:
            thread.join()
        try:
            self._sample()
        except (psutil.Error, OSError):  # the process has ended
            pass

    def __len__(self) -> int:
        return len(self._data["heap_released"])  # filled last

    def arrays(self) -> dict[str, Any]:
        """The samples so far by column, all of one length: numpy arrays where numpy is installed, else array.array."""
        count = len(self)
        copies = {name: self._data[name][:count] for name in self.columns}
        try:
            import numpy
        except ImportError:
            return dict(copies)
        return {name: numpy.array(values) for name, values in copies.items()}

    def plot(self, path: Union[str, os.PathLike[str]]) -> None:
        """Draws the samples over time into an image file, by the ending of its name.

        Needs matplotlib; ImportError that says so where it is missing.
        """
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError:
            raise ImportError("plot() needs matplotlib: pip install matplotlib; arrays() has the samples") from None
        data = self.arrays()
        figure = Figure(figsize=(9, 4.5), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot(1, 1, 1)
        for name in ("rss", "uss", "lazy_free", "heap_inuse"):
            if any(value >= 0 for value in data[name]):
                axes.plot(data["seconds"], [value / 2**20 for value in data[name]], label=name)
        axes.set_xlabel("seconds")
        axes.set_ylabel("MiB")
        axes.set_ylim(bottom=0)
        axes.grid(True, color="#e5e5e5")
        axes.legend()
        axes.set_title(f"Memory of process {self.pid}", loc="left")
        figure.savefig(path)
