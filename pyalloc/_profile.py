"""Heap profiles: who allocated what is alive, from samples; files that ``go tool pprof`` and speedscope open.

The core samples and writes the file; here it is only started, stopped, read and compressed.
"""

from __future__ import annotations

import errno
import gzip
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Optional, Union

_MOST_RATE = 2**40


@dataclass(frozen=True)
class ProfileFrame:
    """A call on a stack.

    file is a Python file, or the program or library that a native function is in; line is 0 for native functions.
    """

    function: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.function} ({os.path.basename(self.file)}:{self.line})" if self.line else self.function


@dataclass(frozen=True)
class ProfileSample:
    """What was allocated at one stack: estimates; bytes are those of the blocks, rounded to size classes or pages.

    stack: innermost call first.  alloc_*: since the profile began; inuse_*: of that, what is not freed.
    """

    stack: tuple[ProfileFrame, ...]
    alloc_objects: int
    alloc_space: int
    inuse_objects: int
    inuse_space: int


@dataclass(frozen=True)
class ProfileLine:
    """A line of :meth:`Profile.top`: of all samples whose stack has the frame innermost (flat), or anywhere (cum)."""

    frame: ProfileFrame
    flat: int
    cum: int


# ---- profile.proto, as far as the core writes it


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, int or bytes) of a message in protocol buffers' wire format."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 2:
            length = varint()
            yield key >> 3, data[at:at + length]
            at += length
        else:
            yield key >> 3, varint()


def _varints(data: bytes) -> list[int]:
    values, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            values.append(value)
            value = shift = 0
    return values


def _decode(data: bytes) -> list[ProfileSample]:
    strings: list[str] = []
    functions: dict[int, dict[int, int]] = {}
    locations: dict[int, dict[int, Any]] = {}
    samples: list[dict[int, bytes]] = []
    for number, value in _fields(data):
        if number == 2:
            samples.append(dict(_fields(value)))
        elif number in (4, 5):
            message = dict(_fields(value))
            (locations if number == 4 else functions)[message[1]] = message
        elif number == 6:
            strings.append(value.decode("utf-8", "replace"))
    frames = {}
    for identity, location in locations.items():
        line = dict(_fields(location[4]))
        function = functions[line[1]]
        frames[identity] = ProfileFrame(strings[function[2]], strings[function.get(4, 0)], line.get(2, 0))
    found = [ProfileSample(tuple(frames[one] for one in _varints(sample.get(1, b""))), *_varints(sample[2]))
             for sample in samples]
    return sorted(found, key=lambda sample: (-sample.inuse_space, -sample.alloc_space))


def _encoded() -> bytes:
    import pyalloc

    with tempfile.TemporaryFile() as file:
        error = pyalloc.lib.pa_profile_write(file.fileno())
        if error:
            raise OSError(error, os.strerror(error))
        file.seek(0)
        return gzip.decompress(file.read())


# ---- The profile of a block of code


class Profile:
    """A heap profile of this process, for ``with``; see :func:`profile`."""

    def __init__(self, path: Optional[Path], rate: int, seed: int) -> None:
        self._path = path
        self._rate = rate
        self._seed = seed
        self._running = False
        self._data: Optional[bytes] = None
        self._lost = 0

    def __enter__(self) -> Profile:
        import pyalloc

        if self._running or self._data is not None:
            raise RuntimeError("a profile is used once: make another by pyalloc.profile()")
        if self._path is not None and not self._path.absolute().parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the profile's folder does not exist", str(self._path.parent))
        error = pyalloc.lib.pa_profile_start(self._rate, self._seed)
        if error == errno.EBUSY:
            raise RuntimeError("there is a profile already: one at a time in a process (PYALLOC_PROFILE is one, too)")
        if error:
            raise pyalloc.OutOfMemoryError(f"no memory for the profile's tables: {os.strerror(error)}")
        self._running = True
        return self

    def __exit__(self, *unused: object) -> None:
        import pyalloc

        pyalloc.lib.pa_profile_stop()
        self._running = False
        try:
            self._lost = self._stats().lost
            self._data = _encoded()
        finally:
            pyalloc.lib.pa_profile_discard()
        if self._path is not None:
            self.write(self._path)

    def _stats(self) -> Any:
        import pyalloc

        stats = pyalloc.ffi.new("pa_profile_stats *")
        pyalloc.lib.pa_read_profile_stats(stats)
        return stats

    def _read(self) -> bytes:
        if self._data is not None:
            return self._data
        if not self._running:
            raise RuntimeError("the profile has not begun: use it with `with`")
        return _encoded()

    def write(self, path: Union[str, os.PathLike[str]]) -> None:
        """Writes the profile as it is now, or was at the end of the block, as gzip of pprof's profile.proto.

        For ``go tool pprof -http=: PATH`` or speedscope.app.  OSError as from open().  Any thread.
        """
        Path(path).write_bytes(gzip.compress(self._read(), 6, mtime=0))

    def samples(self) -> list[ProfileSample]:
        """One for each stack, those with the most bytes in use first.  While the block runs: as of now.  Any thread."""
        return _decode(self._read())

    def top(self, count: int = 20, *, by: str = "inuse_space") -> list[ProfileLine]:
        """The *count* frames with the largest flat sums, as ``go tool pprof -top`` has them, but by line.

        by: "inuse_space" or "alloc_space" (bytes), "inuse_objects" or "alloc_objects"; ValueError for others.
        """
        if by not in ("inuse_space", "inuse_objects", "alloc_space", "alloc_objects"):
            raise ValueError(f"by is {by!r}: use inuse_space, inuse_objects, alloc_space or alloc_objects")
        flat: dict[ProfileFrame, int] = {}
        cum: dict[ProfileFrame, int] = {}
        for sample in self.samples():
            value = getattr(sample, by)
            for frame in set(sample.stack):
                cum[frame] = cum.get(frame, 0) + value
            if sample.stack:
                flat[sample.stack[0]] = flat.get(sample.stack[0], 0) + value
        lines = [ProfileLine(frame, flat.get(frame, 0), value) for frame, value in cum.items() if value]
        return sorted(lines, key=lambda line: (-line.flat, -line.cum, str(line.frame)))[:count]

    @property
    def lost(self) -> int:
        """How many blocks were due for a sample and not sampled: a table was full, or memory was out."""
        return int(self._stats().lost) if self._running else self._lost


def profile(path: Union[str, os.PathLike[str], None] = None, *, rate: int = 512 * 1024, seed: int = 0) -> Profile:
    """Samples what is allocated while a ``with`` block runs: by whom, and whether it is still alive.

        with pyalloc.profile("out.pb.gz") as p:
            work()
        for line in p.top(5):
            print(line.flat, line.cum, line.frame)

    The file opens in ``go tool pprof`` and speedscope.  None for *path*: no file, only :meth:`Profile.samples`,
    :meth:`Profile.top` and :meth:`Profile.write`.  Buffers and managed objects are seen; under ``python -m pyalloc
    run`` everything that the program gets from malloc.  Stacks have native functions and lines of Python code.

    rate: one sample in so many bytes on average, 1 (every block) to 1 TiB.  Each stands for as many blocks as it
    takes, so sums are unbiased.  A sampled block takes pages of its own, 8 KiB if it is small: with small rates a
    profile needs much memory.  seed: other than 0 to take the same samples again (of one thread).

    One profile at a time in a process (RuntimeError), of all its threads; a fork child goes on with a copy of it.
    ValueError for other rates, FileNotFoundError when there is no such folder, OutOfMemoryError.
    Go counterpart: runtime.MemProfile, pprof.WriteHeapProfile.
    """
    if not 1 <= rate <= _MOST_RATE:
        raise ValueError(f"rate is {rate!r}: use 1 (every block) to 2**40 bytes between two samples")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed!r}: use 0 to 2**64 - 1")
    return Profile(None if path is None else Path(path), rate, seed)
