"""PNG files: heap map, timeline, waste.  With matplotlib, which is loaded when the first one is drawn."""

from __future__ import annotations

import os
from typing import Any, Optional, Sequence, Union

from pyalloc._heapmap import HeapMap
from pyalloc._pictures import palette, raster, scale, series
from pyalloc._pictures.palette import LIGHT
from pyalloc._pictures.waste import ClassWaste, MeasuredWaste, RecordedWaste, at_size
from pyalloc._stats import size_classes

Path = Union[str, os.PathLike[str]]
_DPI = 100


def require() -> None:
    """ImportError that says what to do when matplotlib is missing; called before a long run, not after it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError("drawing a PNG needs matplotlib: pip install 'pyalloc[plot]'") from None


def _figure(width: float, height: float) -> Any:
    """A figure of that many pixels."""
    require()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=LIGHT.background)
    FigureCanvasAgg(figure)
    return figure


def _heading(figure: Any, left: float, title: str, subtitle: str) -> None:
    height = figure.get_figheight() * _DPI
    figure.text(left, 1 - 20 / height, title, fontsize=13, fontweight="bold", color=LIGHT.text, va="top")
    figure.text(left, 1 - 46 / height, subtitle, fontsize=9, color=LIGHT.muted, va="top")


def _bare(axes: Any) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LIGHT.muted)
    axes.tick_params(colors=LIGHT.muted, labelsize=9, length=0)
    axes.set_axisbelow(True)


# ---- Heap map

_LEFT, _RIGHT, _TOP, _BOTTOM = 124, 24, 76, 172


def _swatches(axes: Any, x: float, y: float, title: str, rows: Sequence[tuple[str, str, int]], step: float) -> None:
    """Squares in a row, each with what it is and how much of it there is below."""
    axes.text(x, y, title, fontsize=9, color=LIGHT.text, va="baseline", fontweight="bold")
    for index, (colour, name, nbytes) in enumerate(rows):
        left = x + index * step
        axes.add_patch(_rectangle(left, y + 8, step - 6, 12, colour))
        axes.text(left, y + 32, name, fontsize=8, color=LIGHT.text, va="baseline")
        axes.text(left, y + 46, scale.size(nbytes) if nbytes else "-", fontsize=8, color=LIGHT.muted, va="baseline")


def _rectangle(x: float, y: float, width: float, height: float, colour: str, hatch: Optional[str] = None) -> Any:
    from matplotlib.patches import Rectangle

    edge = hatch or "#00000022"
    return Rectangle(
        (x, y), width, height, facecolor=colour, edgecolor=edge, linewidth=0.5, hatch="////" if hatch else None
    )


def _legend(figure: Any, found: HeapMap, height: float) -> None:
    axes = figure.add_axes((0, 0, 1, _BOTTOM / height))
    axes.set_xlim(0, figure.get_figwidth() * _DPI)
    axes.set_ylim(_BOTTOM, 0)
    axes.axis("off")
    sums = raster.amounts(found)
    names = palette.GROUP_NAMES

    def row(first: int, colours: Sequence[str]) -> list[tuple[str, str, int]]:
        return [(colour, name, sums.by_value[first + at]) for at, (colour, name) in enumerate(zip(colours, names))]

    _swatches(axes, _LEFT, 28, "malloc, by size of block", row(palette.EXPLICIT, LIGHT.explicit), 68)
    _swatches(axes, _LEFT, 104, "managed objects, by size", row(palette.MANAGED, LIGHT.managed), 68)
    empty = [
        (LIGHT.released, "not backed", sums.by_value[palette.RELEASED]),
        (LIGHT.free, "free, backed", sums.by_value[palette.FREE]),
        (LIGHT.kept, "kept by threads", sums.by_value[palette.KEPT]),
    ]
    _swatches(axes, _LEFT + 540, 28, "nothing alive in it", empty, 106)
    axes.text(
        _LEFT + 540, 104, "hatched: the system maps it as huge pages", fontsize=9, color=LIGHT.text, fontweight="bold"
    )
    axes.add_patch(_rectangle(_LEFT + 540, 112, 100, 12, LIGHT.background, LIGHT.huge))
    axes.text(_LEFT + 540, 136, "2 MiB at a time", fontsize=8, color=LIGHT.text)
    axes.text(_LEFT + 540, 150, scale.size(sums.huge) if sums.huge else "-", fontsize=8, color=LIGHT.muted)


def heap_map(path: Path, found: HeapMap, title: str) -> None:
    """Arenas as bands below each other, with addresses and a legend.  OSError when it cannot be written."""
    arenas = len(found.arenas)
    layout = raster.layout_for(arenas)
    rows = raster.rows_of(found, layout)
    width, height = _LEFT + raster.WIDTH + _RIGHT, _TOP + len(rows) + _BOTTOM
    figure = _figure(width, height)
    row_bytes = layout.columns * layout.pages_a_pixel * 8192
    _heading(
        figure,
        _LEFT / width,
        title,
        f"{arenas} arena{'s' * (arenas != 1)} of 64 MiB, each a band; addresses grow to the right, then downwards; "
        f"a row is {scale.size(row_bytes)}, a page of 8 KiB "
        + (
            f"{layout.scale} × {layout.scale} pixels"
            if layout.pages_a_pixel == 1
            else f"1/{layout.pages_a_pixel} pixel: the fullest is shown"
        ),
    )
    axes = figure.add_axes((_LEFT / width, _BOTTOM / height, raster.WIDTH / width, len(rows) / height))
    axes.imshow(_pixels(rows), interpolation="nearest", aspect="auto", extent=(0, raster.WIDTH, len(rows), 0))
    every = max(1, -(-28 // layout.band)) if arenas > 24 else 1  # so that addresses do not overlap
    axes.set_yticks([index * layout.band + min(layout.band, 14) / 2 for index in range(0, arenas, every)])
    axes.set_yticklabels([f"{arena.address:#x}" for arena in found.arenas[::every]], family="monospace")
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0, labelsize=8, colors=LIGHT.muted)
    axes.set_frame_on(False)
    _legend(figure, found, height)
    figure.savefig(path, format="png")


def _pixels(rows: list[bytes]) -> Any:
    import numpy

    colours = numpy.frombuffer(LIGHT.palette(), dtype=numpy.uint8).reshape(-1, 3)
    return colours[numpy.frombuffer(b"".join(rows), dtype=numpy.uint8).reshape(len(rows), -1)]


# ---- Timeline


def _label_ends(axes: Any, labels: list[tuple[float, str, str]], x: float, least: float) -> None:
    """Names at the right ends of lines, moved apart where they would overlap."""
    last: Optional[float] = None
    for y, text, colour in sorted(labels):
        y = y if last is None or y - last >= least else last + least
        axes.annotate(
            text,
            (x, y),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=colour,
            annotation_clip=False,
        )
        last = y


def timeline(path: Path, found: series.Timeline) -> None:
    """Memory over time with the pauses below it.  OSError when it cannot be written."""
    figure = _figure(1200, 640 if found.pauses else 480)
    grid = figure.add_gridspec(
        2 if found.pauses else 1,
        1,
        height_ratios=(3, 1) if found.pauses else (1,),
        left=0.075,
        right=0.86,
        top=0.85,
        bottom=0.1,
        hspace=0.16,
    )
    axes = figure.add_subplot(grid[0])
    shown = (
        ("RSS", found.rss, "rss", "plot"),
        ("RSS of all processes", found.rss_all, "rss", "plot"),
        ("heap in use", found.in_use, "in use", "steps"),
        ("goal", found.goal, "goal", "steps"),
        ("live at cycles", found.live, "live", "steps"),
    )
    most = max((value for _, points, _, _ in shown for _, value in points), default=1.0)
    unit, size = scale.unit_of(most)
    labels: list[tuple[float, str, str]] = []
    for name, points, key, kind in shown:
        if not points:
            continue
        colour = LIGHT.lines[key]
        xs, ys = zip(*[*points, (found.end, points[-1][1])] if kind == "steps" else points)
        values = [y / size for y in ys]
        style = "--" if key == "goal" or "all" in name else "-"
        axes.plot(
            xs, values, style, color=colour, linewidth=1.6, drawstyle="steps-post" if kind == "steps" else "default"
        )
        if key == "in use":
            axes.fill_between(xs, values, step="post", color=colour, alpha=0.12, linewidth=0)
        labels.append((values[-1], name, colour))
    axes.set_ylim(0, most / size * 1.06)
    _label_ends(axes, labels, found.end, most / size * 0.05)
    axes.set_ylabel(unit, color=LIGHT.muted)
    axes.grid(axis="y", color=LIGHT.grid)
    _bare(axes)
    last = axes
    if found.pauses:
        last = figure.add_subplot(grid[1], sharex=axes)
        xs, lengths = zip(*found.pauses)
        unit, per_second = ("ms", 1e3) if max(lengths) >= 1e-3 else ("µs", 1e6)
        last.vlines(xs, 0, [length * per_second for length in lengths], color=LIGHT.lines["pause"], linewidth=1.2)
        last.set_ylim(bottom=0)
        last.set_ylabel(f"pause, {unit}", color=LIGHT.muted)
        last.grid(axis="y", color=LIGHT.grid)
        _bare(last)
        axes.tick_params(labelbottom=False)
    axes.set_xlim(0, found.end or 1)
    last.set_xlabel("seconds", color=LIGHT.muted)
    _heading(figure, 0.075, found.title if len(found.title) <= 90 else found.title[:89] + "…", _subtitle(found))
    figure.savefig(path, format="png")


def _subtitle(found: series.Timeline) -> str:
    parts = []
    if found.rss:
        parts.append(f"peak RSS {scale.size(max(value for _, value in found.rss))}")
    if found.in_use:
        parts.append(f"peak heap in use {scale.size(max(value for _, value in found.in_use))}")
    if found.cycles:
        parts.append(f"{len(found.cycles)} collections")
    if found.pauses:
        lengths = [length for _, length in found.pauses]
        parts.append(
            f"{len(lengths)} pauses, median {scale.seconds(series.percentile(lengths, 50))}, "
            f"longest {scale.seconds(max(lengths))}"
        )
    if found.lost:
        parts.append(f"{found.lost:,} events lost: the beginning is coarse")
    return " · ".join(parts) or "nothing was recorded"


# ---- Waste


def waste(
    path: Path, table: Sequence[ClassWaste], measured: Sequence[Union[MeasuredWaste, RecordedWaste]], title: str
) -> None:
    """Waste by size of request, and of a program by class.  OSError when it cannot be written."""
    most = max((one.wasted for one in measured), default=0)
    rows = sorted((one for one in measured if one.wasted * 200 > most), key=lambda one: -one.wasted)[:16]
    figure = _figure(1200, 460 + (60 + 26 * len(rows) if rows else 0))
    height = figure.get_figheight() * _DPI
    upper = figure.add_axes((0.075, 1 - 400 / height, 0.895, 310 / height))
    sizes = sorted(
        {min(int(1.004**step), 65536) for step in range(2780)}
        | {row.smallest_request for row in table}
        | {row.object_bytes for row in table}
    )
    classes = size_classes()
    upper.plot(sizes, [100 * at_size(size, classes) for size in sizes], color=LIGHT.explicit[3], linewidth=1.1)
    edges = [(row.smallest_request, row.object_bytes, row.average_percent) for row in table if row.object_bytes >= 16]
    upper.hlines(
        [edge[2] for edge in edges],
        [edge[0] for edge in edges],
        [edge[1] for edge in edges],
        color=LIGHT.managed[4],
        linewidth=2.4,
    )
    upper.set_xscale("log", base=2)
    upper.set_xlim(8, 66500)
    upper.set_ylim(0, 60)
    upper.set_xticks([2**power for power in range(3, 17)])
    upper.set_xticklabels([scale.size(2**power) for power in range(3, 17)])
    upper.minorticks_off()
    upper.set_ylabel("% of its memory wasted", color=LIGHT.muted)
    upper.grid(axis="y", color=LIGHT.grid)
    upper.text(14, 52, "each size of request", color=LIGHT.explicit[3], fontsize=9)
    upper.text(14, 56, "mean of a class", color=LIGHT.managed[4], fontsize=9)
    _bare(upper)
    if rows:
        _measured_bars(figure.add_axes((0.11, 60 / height, 0.86, 26 * len(rows) / height)), rows)
    worst = max((row for row in table if row.object_bytes >= 32), key=lambda row: row.worst_percent)
    _heading(
        figure,
        0.075,
        title,
        f"what a request wastes of its part of a span, tail included; from 32 B on at most "
        f"{worst.worst_percent:.1f} % ({worst.smallest_request} bytes in {worst.object_bytes}), "
        f"above 32 KiB: whole pages of 8 KiB",
    )
    figure.savefig(path, format="png")


def _parts(one: Union[MeasuredWaste, RecordedWaste]) -> tuple[tuple[str, int, str], ...]:
    if isinstance(one, RecordedWaste):
        return (("rounding", one.wasted, LIGHT.explicit[3]),)
    return (
        ("rounding, estimated", one.rounding, LIGHT.explicit[3]),
        ("free slots", one.free, LIGHT.explicit[1]),
        ("tails", one.tail, LIGHT.managed[3]),
    )


def _measured_bars(axes: Any, rows: Sequence[Union[MeasuredWaste, RecordedWaste]]) -> None:
    unit, size = scale.unit_of(max(one.wasted for one in rows))
    legend = {}
    for at, one in enumerate(rows):
        left = 0.0
        for name, nbytes, colour in _parts(one):
            axes.barh(at, nbytes / size, left=left, color=colour, height=0.7)
            legend[name] = colour
            left += nbytes / size
        whole = one.slots if isinstance(one, RecordedWaste) else one.span_bytes
        axes.annotate(
            f"{scale.size(one.wasted)}, {scale.percent(one.wasted, whole)} of the class",
            (left, at),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=LIGHT.muted,
        )
    axes.set_yticks(range(len(rows)))
    axes.set_yticklabels([scale.size(one.object_bytes) if one.size_class else "large" for one in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, max(one.wasted for one in rows) / size * 1.22)
    axes.set_xlabel(unit, color=LIGHT.muted)
    axes.text(
        0, 1.02, "wasted, by class of block", fontsize=10, color=LIGHT.text, transform=axes.transAxes, va="bottom"
    )
    x = 0.19
    for name, colour in legend.items():
        axes.text(x, 1.02, "■ " + name, color=colour, fontsize=9, transform=axes.transAxes, va="bottom")
        x += 0.035 + 0.0065 * len(name)
    axes.grid(axis="x", color=LIGHT.grid)
    _bare(axes)
