"""Execution traces: what collector and heap did when, as Chrome trace-event JSON, which Perfetto opens.

The core records and writes the file; here it is only started, stopped and read.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Optional, Union

_LEAST_BYTES, _MOST_BYTES = 8 * 2**10, 4 * 2**30


class Trace:
    """A trace of this process, for ``with``; see :func:`trace`."""

    def __init__(self, path: Optional[Path], buffer_bytes: int) -> None:
        self._path = path
        self._buffer_bytes = buffer_bytes
        self._running = False
        self._document: Optional[dict[str, Any]] = None

    def __enter__(self) -> Trace:
        import pyalloc

        if self._running or self._document is not None:
            raise RuntimeError("a trace is used once: make another by pyalloc.trace()")
        if self._path is not None and not self._path.absolute().parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the trace's folder does not exist", str(self._path.parent))
        error = pyalloc.lib.pa_trace_start(self._buffer_bytes)
        if error == errno.EBUSY:
            raise RuntimeError("there is a trace already: one at a time in a process (PYALLOC_TRACE is one, too)")
        if error:
            raise pyalloc.OutOfMemoryError(f"no {self._buffer_bytes} bytes for the trace: {os.strerror(error)}")
        self._running = True
        return self

    def __exit__(self, *unused: object) -> None:
        import pyalloc

        pyalloc.lib.pa_trace_stop()
        self._running = False
        try:
            text = _written()
        finally:
            pyalloc.lib.pa_trace_discard()
        self._document = json.loads(text)
        if self._path is not None:
            self._path.write_bytes(text)

    def _read(self) -> dict[str, Any]:
        if self._document is not None:
            return self._document
        if not self._running:
            raise RuntimeError("the trace has not begun: use it with `with`")
        document: dict[str, Any] = json.loads(_written())
        return document

    def events(self) -> list[dict[str, Any]]:
        """The events, oldest first, metadata behind and in front: dicts as in the file.

        ``ts`` and ``dur`` are microseconds of CLOCK_MONOTONIC (time.monotonic() * 1e6), ``args`` are bytes unless a
        name says otherwise.  While the trace runs: those until now.  Any thread.
        """
        events: list[dict[str, Any]] = self._read()["traceEvents"]
        return events

    @property
    def lost(self) -> int:
        """How many events were recorded and are not there any more: the oldest, when the buffer is full."""
        return int(self._read()["otherData"]["lost_events"])


def _written() -> bytes:
    import pyalloc

    with tempfile.TemporaryFile() as file:
        error = pyalloc.lib.pa_trace_write(file.fileno())
        if error:
            raise OSError(error, os.strerror(error))
        file.seek(0)
        return file.read()


def trace(path: Union[str, os.PathLike[str], None] = None, *, buffer_bytes: int = 16 * 2**20) -> Trace:
    """Records what collector and heap do while a ``with`` block runs, and writes it to a file at its end.

        with pyalloc.trace("out.json") as t:
            work()
        print(len(t.events()), t.lost)

    The file is Chrome trace-event JSON: open it at ui.perfetto.dev.  It has phases of cycles, stops, assists, sweeps,
    releases, growth, spans, and counters of the heap.  None for *path*: no file, only :meth:`Trace.events`.

    buffer_bytes: 64 bytes an event, an eighth for what is rare and the rest for spans and assists; 8 KiB to 4 GiB.
    When it is full the oldest are overwritten.  One trace at a time in a process (RuntimeError), of all its threads; a
    fork child has none.  ValueError for other sizes, FileNotFoundError when there is no such folder, OutOfMemoryError.
    Go counterpart: runtime/trace.
    """
    if not _LEAST_BYTES <= buffer_bytes <= _MOST_BYTES:
        raise ValueError(f"buffer_bytes is {buffer_bytes!r}: use 8 KiB to 4 GiB")
    return Trace(None if path is None else Path(path), buffer_bytes)
