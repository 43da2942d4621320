"""A program under the drop-in, watched from outside: how it ends, RSS over time, what the core wrote about it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Optional, Sequence

from pyalloc import _run
from pyalloc._pictures import series
from pyalloc._pictures.record import Record, RecordError, read

_LOOK_FOR_CHILDREN = 0.2  # seconds


@dataclass
class Launched:
    """A program that has ended."""

    command: list[str]
    pid: int
    code: int  # as the shell has it: 128 + number of the signal
    seconds: float
    minor_faults: int  # of it and its children that it waited for
    major_faults: int
    cpu_seconds: float
    samples: dict[int, list[tuple[float, int]]]  # RSS by process
    records: list[Record] = field(default_factory=list)
    traces: dict[int, dict[str, Any]] = field(default_factory=dict)
    warning: Optional[str] = None  # why there is nothing of the heap

    @property
    def subject(self) -> Optional[Record]:
        """The process that is worth looking at: the one whose heap became largest."""
        return max(self.records, key=lambda one: one.last.peak_heap_inuse, default=None)

    @property
    def subject_pid(self) -> int:
        subject = self.subject
        return self.pid if subject is None else subject.pid

    def rss_of_all(self) -> list[tuple[float, int]]:
        """The sum over all processes at each time that any was sampled; empty when there was one."""
        if len(self.samples) < 2:
            return []
        last: dict[int, int] = {}
        ends = {pid: points[-1][0] for pid, points in self.samples.items() if points}
        found = []
        for at, pid, rss in sorted((at, pid, rss) for pid, points in self.samples.items() for at, rss in points):
            last[pid] = rss
            found.append((at, sum(value for other, value in last.items() if ends[other] >= at)))
        return found

    @property
    def title(self) -> str:
        """The command, short: the program without its folder."""
        return " ".join([os.path.basename(self.command[0]), *self.command[1:]])

    def timeline(self) -> series.Timeline:
        """Of the subject."""
        pid = self.subject_pid
        return series.timeline(self.title, self.traces.get(pid), self.samples.get(pid, []), self.rss_of_all())

    def trace_with_rss(self) -> Optional[dict[str, Any]]:
        """The subject's trace with its RSS in it; None without a trace."""
        document = self.traces.get(self.subject_pid)
        return document and series.with_rss(document, self.subject_pid, self.samples.get(self.subject_pid, []))


class _Sampler(threading.Thread):
    """RSS of a process and its descendants."""

    def __init__(self, pid: int, hz: float) -> None:
        super().__init__(name="pyalloc-rss", daemon=True)
        self.samples: dict[int, list[tuple[float, int]]] = {pid: []}
        self._root = pid
        self._hz = hz
        self._done = threading.Event()

    def run(self) -> None:
        import psutil

        known: dict[int, Any] = {}
        next_look = 0.0
        began, turn = time.monotonic(), 0
        while True:
            now = time.monotonic()
            try:
                if now >= next_look:
                    next_look = now + _LOOK_FOR_CHILDREN
                    root = known.setdefault(self._root, psutil.Process(self._root))
                    for child in root.children(recursive=True):
                        known.setdefault(child.pid, child)
            except psutil.Error:
                pass
            for pid, process in list(known.items()):
                try:
                    rss = process.memory_info().rss
                except psutil.Error:
                    del known[pid]
                    continue
                if rss:  # 0: it has ended and nobody has waited for it
                    self.samples.setdefault(pid, []).append((time.monotonic(), rss))
            turn = max(turn + 1, int((time.monotonic() - began) * self._hz))  # behind its time it leaves turns out
            if self._done.wait(max(0.0, began + turn / self._hz - time.monotonic())):
                return

    def finish(self) -> dict[int, list[tuple[float, int]]]:
        self._done.set()
        self.join()
        return {pid: points for pid, points in self.samples.items() if points}


class _Forwarder:
    """Signals that ask this process to end go to the program; Ctrl-C reaches it from the terminal by itself."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._old: dict[int, Any] = {}

    def _forward(self, number: int, frame: Optional[FrameType]) -> None:
        if self._process.returncode is None:
            os.kill(self._process.pid, number)

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._old[signal.SIGINT] = signal.signal(signal.SIGINT, lambda number, frame: None)
            for number in (signal.SIGTERM, signal.SIGHUP):
                self._old[number] = signal.signal(number, self._forward)

    def __exit__(self, *unused: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


def _wait(process: subprocess.Popen[bytes]) -> tuple[int, Any]:
    """Exit code as the shell has it, and what the program used."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode, used


def _collect(folder: Path, found: Launched) -> None:
    for path in sorted(folder.glob("heap.*.jsonl")):
        try:
            found.records.append(read(path))
        except RecordError as error:
            print(f"pyalloc: {error}", file=sys.stderr)
    for path in sorted(folder.glob("trace.*.json")):
        try:
            found.traces[int(path.name.split(".")[1])] = series.load_trace(path)
        except series.TraceError as error:
            print(f"pyalloc: {error}", file=sys.stderr)


def launch(
    words: Sequence[str], *, hz: float = 50, trace: bool = True, output_to_stderr: bool = False, **options: Any
) -> Launched:
    """Runs a command to its end under the drop-in and collects what is known of it.

    Its input and output are this process's; with output_to_stderr what it prints goes where it cannot be mistaken for
    what the command prints.  hz: samples of RSS a second.  options: those of
    ``_run.environment``.  _run.RunError when it cannot be started, ValueError for options that make no sense.
    """
    import psutil  # noqa: F401  (takes its time, and then samples would be missing)

    command = _run.command_of(words)
    with tempfile.TemporaryDirectory(prefix="pyalloc-") as name:
        folder = Path(name)
        env = _run.environment(os.environ, **options)
        env["PYALLOC_REPORT"] = str(folder / "heap.%p.jsonl")
        if trace:
            env["PYALLOC_TRACE"] = str(folder / "trace.%p.json")
        sys.stdout.flush()
        began = time.monotonic()
        try:
            process = subprocess.Popen(command, env=env, stdout=sys.stderr.fileno() if output_to_stderr else None)
        except OSError as error:
            raise _run.RunError(f"{command[0]}: {error.strerror}", 126) from None
        sampler = _Sampler(process.pid, hz)
        sampler.start()
        with _Forwarder(process):
            code, used = _wait(process)
        seconds = time.monotonic() - began
        found = Launched(
            [*words[1:]] if words[0] == "--" else [*words],
            process.pid,
            code,
            seconds,
            used.ru_minflt,
            used.ru_majflt,
            used.ru_utime + used.ru_stime,
            sampler.finish(),
        )
        _collect(folder, found)
    if not found.records:
        found.warning = _run.warning_about(command[0]) or (
            "the program left no record of its heap: it did not load the library, or ended before it used 1 MiB "
            "in a way that runs no exit handlers"
        )
    return found
