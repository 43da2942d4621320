"""Charts as inline SVG for the HTML page: text that a screen reader finds, colours that follow the page's theme."""

from __future__ import annotations

from html import escape
from typing import NamedTuple, Optional, Sequence

from pyalloc._pictures import scale, series
from pyalloc._pictures.waste import MeasuredWaste

_MOST_POINTS = 1600


class Frame(NamedTuple):
    """Widths of a chart in pixels, and what its id ends in: one for screens, one for telephones."""

    width: int
    left: int
    right: int  # 0: no room for names at the ends of lines; they stand above
    suffix: str

    @property
    def plot(self) -> int:
        return self.width - self.left - max(self.right, 10)


WIDE = Frame(1040, 64, 132, "")
NARROW = Frame(370, 56, 0, "-narrow")


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _open(frame: Frame, height: float, name: str, title: str, description: str) -> str:
    name += frame.suffix
    return (
        f'<svg viewBox="0 0 {frame.width} {height:.0f}" role="img" aria-labelledby="{name}-t {name}-d" id="{name}">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(description)}</desc>'
    )


def _path(points: Sequence[tuple[float, float]], steps: bool) -> str:
    parts = []
    last_y: Optional[float] = None
    for x, y in points:
        if last_y is None:
            parts.append(f"M{x:.1f} {y:.1f}")
        elif steps:
            parts.append(f"H{x:.1f}" if f"{y:.1f}" == f"{last_y:.1f}" else f"H{x:.1f}V{y:.1f}")
        else:
            parts.append(f"L{x:.1f} {y:.1f}")
        last_y = y
    return "".join(parts)


def _apart(labels: list[tuple[float, str, str]], least: float, bottom: float) -> list[tuple[float, str, str]]:
    """Labels moved so that they do not overlap, nor leave the chart at its bottom."""
    placed: list[tuple[float, str, str]] = []
    for y, text, kind in sorted(labels):
        placed.append((y if not placed else max(y, placed[-1][0] + least), text, kind))
    for index in range(len(placed) - 1, -1, -1):
        limit = bottom if index == len(placed) - 1 else placed[index + 1][0] - least
        placed[index] = (min(placed[index][0], limit), *placed[index][1:])
    return placed


def shown(found: series.Timeline) -> list[tuple[str, series.Points, str, bool]]:
    """Name, points, class in the style sheet, whether it goes in steps: the series that have points."""
    rows = [
        ("RSS", found.rss, "rss", False),
        ("RSS, all", found.rss_all, "rss all", False),
        ("heap in use", found.in_use, "use", True),
        ("heap goal", found.goal, "goal", True),
        ("live at cycles", found.live, "live", True),
    ]
    return [(name, series.thinned(points, _MOST_POINTS), kind, steps) for name, points, kind, steps in rows if points]


def timeline(found: series.Timeline, frame: Frame) -> str:
    """Memory over time, the pauses below; there is something to show."""
    rows = shown(found)
    most = max((value for _, points, _, _ in rows for _, value in points), default=0.0)
    top = 20.0 if frame.right else 24.0 + 20 * (-(-len(rows) // 3))
    bottom = top + (300 if frame.right else 210)
    base = bottom + (84 if found.pauses else 0)
    unit, size = scale.unit_of(most)
    high = most * 1.05

    def at(seconds: float, value: float) -> tuple[float, float]:
        return frame.left + seconds / found.end * frame.plot, bottom - value / high * (bottom - top)

    summary = ", ".join(
        f"{name} up to {scale.size(max(value for _, value in points))}" for name, points, _, _ in rows
    )
    parts = [
        _open(frame, base + 44, "timeline-chart", "Memory over time", f"Over {scale.seconds(found.end)}: {summary}.")
    ]
    for tick in scale.ticks(high / size, binary=True):
        y = at(0, tick * size)[1]
        parts += [
            _line(frame.left, y, frame.left + frame.plot, y, "grid"),
            _text(frame.left - 8, y + 4, scale.number(tick), "tick", "end"),
        ]
    parts.append(_text(frame.left - 8, top - 8, unit, "tick", "end"))
    labels: list[tuple[float, str, str]] = []
    for name, points, kind, steps in rows:
        if steps:
            points = [*points, (found.end, points[-1][1])]
        path = _path([at(*point) for point in points], steps)
        if kind == "use":
            parts.append(f'<path d="{path}V{bottom:.1f}H{at(points[0][0], 0)[0]:.1f}Z" class="area"/>')
        parts.append(f'<path d="{path}" class="line {kind}"/>')
        labels.append((at(*points[-1])[1] + 4, name, kind))
    parts += _names(labels, frame, bottom)
    if found.pauses:
        parts.append(_pauses(found, bottom + 24, base, frame))
    parts.append(_line(frame.left, bottom, frame.left + frame.plot, bottom, "axis"))
    for tick in scale.ticks(found.end, 8 if frame.right else 4):
        parts.append(_text(at(tick, 0)[0], base + 18, scale.number(tick), "tick", "middle"))
    parts.append(_text(frame.left + frame.plot / 2, base + 36, "seconds", "tick", "middle"))
    if frame.right:
        parts.append(f'<line id="cursor" class="cursor" x1="0" x2="0" y1="{top}" y2="{base}" visibility="hidden"/>')
    return "".join(parts) + "</svg>"


def _names(labels: list[tuple[float, str, str]], frame: Frame, bottom: float) -> list[str]:
    """Of lines: at their right ends, or above the chart where there is no room."""
    if frame.right:
        return [
            _text(frame.left + frame.plot + 8, y, name, f"name {kind}")
            for y, name, kind in _apart(labels, 17, bottom + 4)
        ]
    return [
        _text(4 + index % 3 * 122, 14 + index // 3 * 20, name, f"name {kind}")
        for index, (_, name, kind) in enumerate(labels)
    ]


def _pauses(found: series.Timeline, top: float, bottom: float, frame: Frame) -> str:
    longest = max(length for _, length in found.pauses)
    label = (
        _text(frame.left + frame.plot + 8, (top + bottom) / 2 + 4, "pauses", "name pause")
        if frame.right
        else _text(frame.left + 4, top + 2, "pauses", "name pause")
    )
    parts = [
        _text(frame.left - 8, top + 8, scale.seconds(longest), "tick", "end"),
        _text(frame.left - 8, bottom, "0", "tick", "end"),
        label,
    ]
    path = "".join(
        f"M{frame.left + seconds / found.end * frame.plot:.1f} {bottom:.1f}"
        f"V{bottom - length / longest * (bottom - top):.1f}"
        for seconds, length in _longest_each_pixel(found, frame)
    )
    return (
        "".join(parts)
        + f'<path d="{path}" class="line pause"/>'
        + _line(frame.left, bottom, frame.left + frame.plot, bottom, "axis")
    )


def _longest_each_pixel(found: series.Timeline, frame: Frame) -> series.Points:
    columns: dict[int, tuple[float, float]] = {}
    for seconds, length in found.pauses:
        column = int(seconds / found.end * frame.plot)
        if length > columns.get(column, (0.0, -1.0))[1]:
            columns[column] = (seconds, length)
    return sorted(columns.values())


def waste(rows: Sequence[MeasuredWaste], frame: Frame, most: int = 12) -> str:
    """Bars by class of block: what is alive in it, and the three kinds of waste."""
    rows = list(rows)[:most]
    if not rows:
        return '<p class="none">No size class has a span.</p>'
    row_height, top = 24, 8
    bottom = top + row_height * len(rows)
    widest = max(one.span_bytes for one in rows)
    unit, size = scale.unit_of(widest)
    left = 78
    plot = frame.width - left - (176 if frame.right else 124)
    parts = [
        _open(
            frame,
            bottom + 42,
            "waste-chart",
            "Memory of size classes and what of it is waste",
            "; ".join(f"{_name(one)}: {scale.size(one.wasted)} of {scale.size(one.span_bytes)}" for one in rows),
        )
    ]
    for tick in scale.ticks(widest / size, 5 if frame.right else 3, binary=True):
        x = left + tick * size / widest * plot
        parts += [_line(x, top, x, bottom, "grid"), _text(x, bottom + 18, scale.number(tick), "tick", "middle")]
    parts.append(_text(left + plot / 2, bottom + 36, f"{unit} of spans", "tick", "middle"))
    for index, one in enumerate(rows):
        x, y = float(left), top + index * row_height
        parts.append(_text(left - 8, y + 16, _name(one), "tick strong", "end"))
        used = one.live - one.rounding
        for nbytes, kind in ((used, "alive"), (one.rounding, "rounding"), (one.free, "free"), (one.tail, "tail")):
            width = nbytes / widest * plot
            if width >= 0.05:
                parts.append(
                    f'<rect x="{x:.1f}" y="{y + 3}" width="{width:.1f}" height="{row_height - 7}" '
                    f'class="bar {kind}"/>'
                )
            x += width
        word = " wasted," if frame.right else ","
        parts.append(
            _text(
                x + 6, y + 16, f"{scale.size(one.wasted)}{word} {scale.percent(one.wasted, one.span_bytes)}", "tick"
            )
        )
    return "".join(parts) + "</svg>"


def _name(one: MeasuredWaste) -> str:
    return scale.size(one.object_bytes) if one.size_class else "> 32 KiB"
