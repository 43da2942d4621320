"""The live view's two sides: a process has its figures at hand for others, and a viewer asks for them.

The page, its seqlock and the thread that answers are the core's (csrc/api/live.c).
"""

from __future__ import annotations

import errno
import mmap
import os
import time
from dataclasses import dataclass, field
from typing import Any, Optional

_NAME = "/memfd:pyalloc-live"
_TOP_CLASSES = 12
_NONE = 2**64 - 1
PHASES = ("off", "sweep termination", "mark", "mark termination")


def live() -> None:
    """Puts this process into live mode: ``python -m pyalloc top PID`` can look at it from now on, until it ends.

    Costs a thread that sleeps until somebody asks, 12 KiB and a file descriptor; allocating and freeing cost nothing
    more.  More calls do nothing.  A fork child gets a page and a thread of its own when it next allocates.  A whole
    program: PYALLOC_LIVE=1 in its environment.  OSError when the operating system refuses.  Any thread.
    Go counterpart: none; expvar comes near.
    """
    import pyalloc

    error = pyalloc.lib.pa_live_start()
    if error:
        raise OSError(error, f"no live view: {os.strerror(error)}")


class LiveError(Exception):
    """Why a process cannot be looked at, and what to do about it."""


class NotAnswering(Exception):
    """The process did not answer in time: it is stopped, or has no processor."""


@dataclass(frozen=True)
class ClassUse:
    """One size class; bytes unless it says otherwise."""

    size_class: int  # 0: large
    object_bytes: int  # 0 for large
    span_bytes: int  # explicit and managed together
    objects: int  # live explicit ones and managed ones that are not swept, count


@dataclass(frozen=True)
class Figures:
    """What a process said at one time; bytes unless a comment says otherwise."""

    time_ns: int  # CLOCK_MONOTONIC
    cost_ns: int  # how long it took the process to put this together
    inuse: int  # pages in spans
    idle: int  # pages in no span
    released: int  # of idle: what the operating system holds
    alloc: int  # live objects, whole slots
    objects: int  # count of them
    sys: int  # all memory obtained
    limit: Optional[int]  # the memory limit
    goal: Optional[int]  # of the collector; None: off
    live: int  # managed: marked by the last cycle + allocated since
    cycles: int  # count of collections
    forced_cycles: int
    phase: str  # of the collector: one of PHASES
    gc_percent: Optional[int]  # None: off
    pause_count: int
    pause_total_ns: int
    pause_last_ns: int
    pause_longest_ns: int  # of the last 256
    assist_ns: int  # processor time of marking by allocating threads
    mark_ns: int  # processor time of marking in the background
    released_total: int  # ever given back
    released_background: int  # of that, by the background thread
    background_running: bool
    background_cpu_ns: int
    threads: int  # count of threads that have a cache
    classes: list[ClassUse] = field(default_factory=list)  # those with most bytes, most first


def _figures(f: Any) -> Figures:
    s = f.snapshot
    mem, gc, scavenge = s.mem, s.gc, s.scavenge
    count = int(gc.pause_count)
    recent = [int(ns) for ns in s.pause_ns]
    classes = [
        ClassUse(index, int(one.object_bytes) if index else 0, int(one.span_bytes + one.managed_span_bytes),
                 int(one.objects + one.managed_mallocs - one.managed_frees))
        for index, one in enumerate(s.classes) if one.span_bytes or one.managed_span_bytes
    ]
    classes.sort(key=lambda one: -one.span_bytes)
    limit, goal = int(scavenge.memory_limit), int(gc.next_gc_bytes)
    return Figures(
        time_ns=int(f.time_ns), cost_ns=int(f.cost_ns), inuse=int(mem.heap_inuse), idle=int(mem.heap_idle),
        released=int(mem.heap_released), alloc=int(mem.heap_alloc), objects=int(mem.heap_objects), sys=int(mem.sys),
        limit=None if limit == _NONE else limit, goal=None if goal == _NONE else goal, live=int(gc.heap_live_bytes),
        cycles=int(gc.cycles), forced_cycles=int(gc.forced_cycles), phase=PHASES[int(gc.phase)],
        gc_percent=None if gc.gc_percent < 0 else int(gc.gc_percent), pause_count=count,
        pause_total_ns=int(gc.pause_total_ns), pause_last_ns=recent[(count - 1) % len(recent)] if count else 0,
        pause_longest_ns=max(recent), assist_ns=int(gc.assist_ns), mark_ns=int(gc.background_ns + gc.idle_ns),
        released_total=int(mem.heap_released_total), released_background=int(scavenge.background_bytes),
        background_running=bool(scavenge.background_running), background_cpu_ns=int(scavenge.background_cpu_ns),
        threads=int(mem.threads), classes=classes[:_TOP_CLASSES],
    )


# ---- Finding the page


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return f"process {pid} ({file.read().strip()})"
    except OSError:
        return f"process {pid}"


def _links(pid: int, folder: str) -> list[str]:
    """Entries of /proc/<pid>/<folder> that are live pages."""
    found = []
    for entry in os.listdir(f"/proc/{pid}/{folder}"):
        path = f"/proc/{pid}/{folder}/{entry}"
        try:
            if os.readlink(path).split(" ")[0] == _NAME:
                found.append(path)
        except OSError:  # closed meanwhile
            pass
    return found


def _candidates(pid: int) -> list[str]:
    try:
        links = _links(pid, "fd")
    except FileNotFoundError:
        raise LiveError(f"there is no process {pid}") from None
    except PermissionError:
        raise LiveError(f"{_name(pid)} belongs to another user, or hides: look at it as its user or as root") from None
    if not links:
        try:
            links = _links(pid, "map_files")  # where the program has closed the descriptor; for root only
        except OSError:
            pass
    return links


def _own_ids(pid: int) -> set[int]:
    """The ids that a process has in its name spaces: a page names the innermost."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("NSpid:"):
                    return {int(word) for word in line.split()[1:]}
    except OSError:
        pass
    return {pid}


def _uses_pyalloc(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
            return any("libpyalloc.so" in line for line in file)
    except OSError:
        return False


def _why_not(pid: int) -> str:
    if _uses_pyalloc(pid):
        return (f"{_name(pid)} is not in live mode: call pyalloc.live() in it, or start it with PYALLOC_LIVE=1 in its "
                "environment (python -m pyalloc run --live, or python -m pyalloc top -- command)")
    return (f"{_name(pid)} does not use pyalloc: start it by python -m pyalloc top -- command, or "
            "python -m pyalloc run --live -- command; or import pyalloc in it and call pyalloc.live()")


class Viewer:
    """Looks at a process in live mode.  Of one thread; several viewers may look at one process.

    LiveError when the process is not there, not ours, or not in live mode.
    """

    def __init__(self, pid: int) -> None:
        import pyalloc

        self.pid = pid
        self._ffi, self._lib = pyalloc.ffi, pyalloc.lib
        self._map: Optional[mmap.mmap] = None
        self.inode = 0  # of the page's file
        self._out = self._ffi.new("pa_live_figures *")
        self._find()

    def _find(self) -> None:
        ids = _own_ids(self.pid)
        for path in _candidates(self.pid):
            if self._open(path) and int(self._page.process) in ids:
                return
            self.close()
        raise LiveError(_why_not(self.pid))

    def _open(self, path: str) -> bool:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except PermissionError:
            raise LiveError(f"{path} cannot be opened: look at {_name(self.pid)} as its user or as root") from None
        except OSError:  # gone meanwhile
            return False
        try:
            size, self.inode = os.fstat(fd).st_size, os.fstat(fd).st_ino
            if size < self._ffi.sizeof("pa_live_page"):
                raise LiveError(f"{_name(self.pid)} runs another version of pyalloc: use that version's viewer")
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        self._view = self._ffi.from_buffer(self._map)
        self._page = self._ffi.cast("pa_live_page *", self._view)
        return True

    def read(self, timeout: float = 1.0) -> Figures:
        """Asks and waits at most so many seconds.  NotAnswering when they pass; the GIL is free meanwhile."""
        if self._map is None:
            raise ValueError("the viewer is closed")
        nbytes = len(self._map)
        error = self._lib.pa_live_read(self._view, nbytes, self._out, int(timeout * 1e9))
        if error == errno.ETIMEDOUT:
            raise NotAnswering(f"{_name(self.pid)} does not answer")
        if error:
            version = bytes(self._ffi.buffer(self._page.version)).split(b"\0")[0].decode("ascii", "replace")
            raise LiveError(f"{_name(self.pid)} runs pyalloc {version}, whose figures are laid out differently: "
                            "use that version's viewer")
        return _figures(self._out)

    def find_again(self) -> bool:
        """Looks for another page of the process, which it has after an exec; False, and all as before, when there is
        none."""
        try:
            other = Viewer(self.pid)
        except LiveError:
            return False
        if other.inode == self.inode:
            other.close()
            return False
        self.close()
        self._map, self._view, self._page, self.inode = other._map, other._view, other._page, other.inode
        return True

    def close(self) -> None:
        """Unmaps the page.  More calls do nothing."""
        if self._map is not None:
            self._page = None
            self._ffi.release(self._view)
            self._map.close()
            self._map = None

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


def wait_for_page(pid: int, is_over: Any, seconds: float = 10) -> Optional[Viewer]:
    """The viewer of a process that has just been started; None when it is over before it has a page."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return Viewer(pid)
        except LiveError:
            if is_over():
                return None
            if time.monotonic() > deadline:
                raise
        time.sleep(0.01)
