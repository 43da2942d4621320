"""The heap map as pixels: arenas as bands, a pixel or more a page, and PNG files of that without a drawing library."""

from __future__ import annotations

import functools
import struct
import zlib
from typing import NamedTuple

from pyalloc._heapmap import PAGE_BYTES, PAGES, ArenaMap, HeapMap
from pyalloc._pictures import palette
from pyalloc._pictures.palette import Theme

WIDTH = 1024  # of every map, pixels
_HATCH = 8  # pixels from one line of the hatch to the next
_MOST_HEIGHT = 4096
_KEPT_STATES, _EXPLICIT, _MANAGED = (2, 4), 3, 5


class Layout(NamedTuple):
    """How the pages of an arena lie: rows of columns, each page scale pixels wide and high; or pages_a_pixel."""

    columns: int
    scale: int
    gap: int  # pixels between arenas
    pages_a_pixel: int

    @property
    def rows(self) -> int:
        return PAGES // self.pages_a_pixel // self.columns

    @property
    def band(self) -> int:
        """Height of an arena, pixels, with the gap below it."""
        return self.rows * self.scale + self.gap

    def height(self, arenas: int) -> int:
        return max(arenas * self.band - self.gap, 1)


def layout_for(arenas: int) -> Layout:
    """Large pages while arenas are few, one pixel a page up to some 400, then several pages a pixel."""
    if arenas <= 1:
        return Layout(128, 8, 8, 1)
    if arenas <= 4:
        return Layout(256, 4, 8, 1)
    if arenas <= 24:
        return Layout(512, 2, 6, 1)
    pages = 1
    while pages < 8 and Layout(WIDTH, 1, 2, pages).height(arenas) > _MOST_HEIGHT:
        pages *= 2
    return Layout(WIDTH, 1, 2 if pages < 8 else 0, pages)


@functools.lru_cache(maxsize=None)
def _table() -> list[list[int]]:
    """Pixel value by state and size class."""
    groups = palette.group_by_class()
    table = [[palette.RELEASED] * 256, [palette.FREE] * 256, *([palette.KEPT] * 256 for _ in range(4))]
    for size_class, group in enumerate(groups):
        table[_EXPLICIT][size_class] = palette.EXPLICIT + group
        table[_MANAGED][size_class] = palette.MANAGED + group
    return table


def pages_of(arena: ArenaMap) -> bytes:
    """Pixel value of each page."""
    table = _table()
    return bytes([table[state][size_class] for state, size_class in zip(arena.state, arena.size_class)])


def _fold(values: bytes, pages: int) -> bytes:
    """One for each *pages*: what is in use before what is free, larger blocks before smaller."""
    return values if pages == 1 else bytes([max(values[i : i + pages]) for i in range(0, len(values), pages)])


def rows_of(found: HeapMap, layout: Layout) -> list[bytes]:
    """The picture, a pixel value a byte, WIDTH bytes a row."""
    wide = [bytes((value,)) * layout.scale for value in range(palette.COLOURS)]
    gap = [bytes((palette.BACKGROUND,)) * WIDTH] * layout.gap
    picture: list[bytes] = []
    for arena in found.arenas:
        values = _fold(pages_of(arena), layout.pages_a_pixel)
        huge = _fold(arena.huge, layout.pages_a_pixel)
        for row in range(layout.rows):
            span = slice(row * layout.columns, (row + 1) * layout.columns)
            line = b"".join([wide[value] for value in values[span]])
            marks = huge[span]
            for y in range(layout.scale):
                picture.append(_hatched(line, marks, layout.scale, len(picture)) if any(marks) else line)
        picture += gap
    return picture[: layout.height(len(found.arenas))] or [bytes((palette.BACKGROUND,)) * WIDTH]


def _hatched(line: bytes, marks: bytes, scale: int, y: int) -> bytes:
    hatched = bytearray(line)
    for thickness in range(2 if scale >= 4 else 1):
        for x in range(-(y + thickness) % _HATCH, len(line), _HATCH):
            if marks[x // scale]:
                hatched[x] = palette.HUGE
    return bytes(hatched)


def png(rows: list[bytes], theme: Theme) -> bytes:
    """A PNG file of pixel values."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 3, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"PLTE", theme.palette())
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
        + chunk(b"IEND", b"")
    )


class Amounts(NamedTuple):
    """Bytes by pixel value, and of all those the ones in huge pages."""

    by_value: tuple[int, ...]
    huge: int


def amounts(found: HeapMap) -> Amounts:
    """How much of the heap has each colour."""
    pages = [0] * palette.COLOURS
    huge = 0
    for arena in found.arenas:
        values = pages_of(arena)
        for value in set(values):
            pages[value] += values.count(value)
        huge += sum(arena.huge)
    return Amounts(tuple(count * PAGE_BYTES for count in pages), huge * PAGE_BYTES)
