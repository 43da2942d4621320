"""Colours, and the groups of size classes that they stand for.

Blue (malloc) against orange (managed) is told apart with every common colour blindness; within each, lightness orders
the sizes, so a print in grey still shows them.  Grey is memory without anything alive in it.  Magenta is used for one
thing only, so that it stands out.
"""

from __future__ import annotations

from typing import NamedTuple

from pyalloc._stats import size_classes

#: Upper ends of the groups in bytes, and what the legend says; above the last: large, whole pages.
GROUPS = (
    (64, "≤ 64 B"),
    (256, "≤ 256 B"),
    (1024, "≤ 1 KiB"),
    (4096, "≤ 4 KiB"),
    (16384, "≤ 16 KiB"),
    (32768, "≤ 32 KiB"),
)
LARGE = "> 32 KiB"
GROUP_NAMES = (*(name for _, name in GROUPS), LARGE)

#: Pixel values of the heap map.
RELEASED, FREE, KEPT, EXPLICIT = range(4)
MANAGED = EXPLICIT + len(GROUP_NAMES)
BACKGROUND = MANAGED + len(GROUP_NAMES)
HUGE = BACKGROUND + 1
COLOURS = HUGE + 1


class Theme(NamedTuple):
    released: str
    free: str
    kept: str
    explicit: tuple[str, ...]  # by group
    managed: tuple[str, ...]
    background: str
    huge: str
    text: str
    muted: str
    grid: str
    lines: dict[str, str]  # of the timeline, by series

    def colours(self) -> tuple[str, ...]:
        """By pixel value."""
        return (self.released, self.free, self.kept, *self.explicit, *self.managed, self.background, self.huge)

    def palette(self) -> bytes:
        """The same as red, green and blue bytes."""
        return b"".join(bytes.fromhex(colour[1:]) for colour in self.colours())


LIGHT = Theme(
    released="#f0f0ee",
    free="#cfcfca",
    kept="#979791",
    explicit=("#c3dbef", "#94c4e0", "#61a5d2", "#3585c0", "#1a65a9", "#0b478a", "#082a5c"),
    managed=("#fdd5a8", "#fdb470", "#fa9240", "#ee7113", "#d45003", "#a63a03", "#6e2703"),
    background="#ffffff",
    huge="#d1008f",
    text="#1c1e21",
    muted="#62666d",
    grid="#e4e4e0",
    lines={"rss": "#1c1e21", "in use": "#1a65a9", "goal": "#a63a03", "live": "#ee7113", "pause": "#d1008f"},
)
DARK = Theme(
    released="#26292f",
    free="#474b54",
    kept="#767b86",
    explicit=("#244a6e", "#2a6396", "#367fbd", "#559cd5", "#82b8e4", "#a5caec", "#c0daf2"),
    managed=("#6b3a14", "#8f4c12", "#b86114", "#dd7a20", "#f39a4a", "#fbbd85", "#fbd3ab"),
    background="#16181c",
    huge="#ff5cc8",
    text="#e8e9eb",
    muted="#9ca1aa",
    grid="#2f333a",
    lines={"rss": "#e8e9eb", "in use": "#559cd5", "goal": "#f39a4a", "live": "#dd7a20", "pause": "#ff5cc8"},
)


def group_of(object_bytes: int) -> int:
    """Group of a slot of that size; 0 bytes stands for large blocks."""
    for group, (most, _) in enumerate(GROUPS):
        if 0 < object_bytes <= most:
            return group
    return len(GROUPS)


def group_by_class() -> list[int]:
    """Group of each size class, 0 (large) and up."""
    return [group_of(0), *(group_of(row.object_bytes) for row in size_classes())]
