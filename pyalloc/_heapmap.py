"""The heap map: every 8 KiB page of every arena, as data and as a picture.

The picture is a PNG written here, a pixel or more a page, so that it takes no drawing library.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from dataclasses import dataclass
from typing import Any, Union

from pyalloc import _core

PAGE_BYTES = 8192
PAGES = 8192  # an arena

#: By number of pa_page_state.
STATES = ("released", "free", "stock", "explicit", "cached", "managed")

_COLUMNS, _ROWS, _GAP = 128, 64, 2
_SHADES = 16  # of a span's occupancy, for explicit and for managed pages
_BACKGROUND, _EXPLICIT, _MANAGED = len(STATES), 16, 32


def _mix(low: tuple[int, int, int], high: tuple[int, int, int], share: float) -> bytes:
    return bytes(round(a + (b - a) * share) for a, b in zip(low, high))


def _palette() -> bytes:
    colours = [bytes(3)] * 48
    colours[0] = b"\xf2\xf2\xf2"  # released
    colours[1] = b"\xa6\xbd\xdb"  # free and backed
    colours[2] = b"\x74\xa9\xcf"  # in a page cache
    colours[4] = b"\xb3\xde\x69"  # cached span
    colours[_BACKGROUND] = b"\xff\xff\xff"
    for i in range(_SHADES):
        share = i / (_SHADES - 1)
        colours[_EXPLICIT + i] = _mix((254, 224, 210), (165, 15, 21), share)
        colours[_MANAGED + i] = _mix((229, 245, 224), (0, 90, 50), share)
    return b"".join(colours)


@dataclass(frozen=True)
class ArenaMap:
    """The 8192 pages of one 64 MiB arena.  Columns have one entry a page."""

    address: int
    state: bytes  # index into STATES
    size_class: bytes  # of the span: 0 large, or no span
    first: bytes  # 1: first page of its span
    huge: bytes  # 1: the operating system maps it as part of a huge page; always 0 before Linux 6.7
    live: array[int]  # live objects in the whole span; blocks that are on their way home count
    capacity: array[int]  # objects that the span holds when full; 0: no span

    def shades(self) -> bytes:
        """Palette index a page: the state and, in spans, how full the span is."""
        found = bytearray(self.state)
        for i, state in enumerate(self.state):
            if state in (3, 5) and self.capacity[i]:
                full = min(self.live[i] * (_SHADES - 1) // self.capacity[i], _SHADES - 1)
                found[i] = (_EXPLICIT if state == 3 else _MANAGED) + full
        return bytes(found)


@dataclass(frozen=True)
class HeapMap:
    """What :func:`heap_map` found: its arenas in order of growth."""

    arenas: tuple[ArenaMap, ...]

    def counts(self) -> dict[str, int]:
        """Pages by state, over all arenas."""
        found: Counter[int] = Counter()
        for arena in self.arenas:
            found.update(arena.state)
        return {name: found[number] for number, name in enumerate(STATES)}

    def pinned(self) -> dict[str, int]:
        """Why memory in spans cannot go back: spans that hold live objects, by how few of them.

        Counts spans of small classes: "spans", "pages", "live" (objects), "capacity" (objects), and
        "nearly_empty_pages", pages of spans of which at most an eighth is live.
        """
        total = dict.fromkeys(("spans", "pages", "live", "capacity", "nearly_empty_pages"), 0)
        for arena in self.arenas:
            for i, state in enumerate(arena.state):
                if state not in (3, 5) or not arena.size_class[i] or not arena.live[i]:
                    continue
                total["pages"] += 1
                total["nearly_empty_pages"] += arena.live[i] * 8 <= arena.capacity[i]
                if arena.first[i]:
                    total["spans"] += 1
                    total["live"] += arena.live[i]
                    total["capacity"] += arena.capacity[i]
        return total

    def plot(self, path: Union[str, os.PathLike[str]], title: str = "Heap of this process") -> None:
        """Draws every page by size class into a PNG file, with addresses and a legend (docs/report.md).

        Huge pages are hatched where the kernel tells (Linux 6.7).  Needs matplotlib; ImportError that says so where it
        is missing, OSError when it cannot be written.
        """
        from pyalloc._pictures import plots

        plots.heap_map(path, self, title)

    def save_png(self, path: Union[str, os.PathLike[str]], scale: int = 3) -> None:
        """Draws how full spans are, without matplotlib: the arenas below each other, 128 pages a row, *scale* pixels a
        page, addresses growing to the right and downwards.

        White-grey: released.  Blue: free and backed, darker in a thread's page cache.  Lime: an empty span that a
        thread keeps.  Red: explicit, green: managed, darker the fuller the span.  OSError when it cannot be written,
        ValueError for a scale below 1.
        """
        import struct
        import zlib

        if scale < 1:
            raise ValueError(f"scale must be at least 1, not {scale!r}")
        width = _COLUMNS * scale
        lines: list[bytes] = []
        for arena in self.arenas:
            shades = arena.shades()
            for row in range(_ROWS):
                pages = shades[row * _COLUMNS:(row + 1) * _COLUMNS]
                line = b"\0" + b"".join(bytes((page,)) * scale for page in pages)
                lines += [line] * scale
            lines += [b"\0" + bytes((_BACKGROUND,)) * width] * _GAP

        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        header = struct.pack(">IIBBBBB", width, max(len(lines), 1), 8, 3, 0, 0, 0)
        pixels = b"".join(lines) or b"\0" + bytes((_BACKGROUND,)) * width
        with open(path, "wb") as file:
            file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"PLTE", _palette())
                       + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b""))


def heap_map() -> HeapMap:
    """Every page of every arena: free, backed, or in which span and how full that is.

    Which pages are free is exact at one instant an arena's chunk; spans are read without stopping any thread.
    Costs a millisecond or so an arena.  Any thread.  Go counterpart: none.
    """
    rows: Any = _core.arena_map_rows()
    arenas = []
    for address, state, size_class, first, huge, live, capacity in rows:
        arenas.append(ArenaMap(address, state, size_class, first, huge, array("I", live), array("I", capacity)))
    return HeapMap(tuple(arenas))
