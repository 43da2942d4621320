"""The PNG: geometric means per peer, and every test's ratios, on logarithmic axes around 1."""

from __future__ import annotations

import os
from typing import Any, List, Sequence

from pyalloc._bench import report
from pyalloc._bench.allocators import OURS, BenchError
from pyalloc._bench.runner import FIELDS, Results

COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c")
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def check() -> None:
    """:class:`BenchError` when matplotlib is missing; called before the long run, not after it."""
    try:
        os.environ.setdefault("MPLBACKEND", "Agg")
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise BenchError("--png needs matplotlib (pip install matplotlib)") from error


def _axis(axes: Any, lowest: float, highest: float) -> None:
    axes.set_xscale("log")
    low, high = min(lowest, 0.8) / 1.15, max(highest, 1.25) * 1.15
    axes.set_xlim(low, high)
    shown = [tick for tick in TICKS if low <= tick <= high]
    axes.set_xticks(shown)
    axes.set_xticklabels([f"{tick:g}×" for tick in shown])
    axes.minorticks_off()
    axes.axvline(1, color="#222222", linewidth=1, zorder=1)
    axes.grid(axis="x", color="#dddddd", zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _means(axes: Any, results: Results, name: str, title: str) -> None:
    labels = [
        (label, group)
        for label, group in report.MEANS
        if group is None or any(t.group == group for t in results.tests)
    ]
    shades = (1.0, 0.65, 0.35)
    values: List[float] = []
    for at, peer in enumerate(results.peers):
        for k, (_, group) in enumerate(labels):
            mean = results.geometric_mean(peer, FIELDS[name], group)
            if mean is None:
                continue
            values.append(mean)
            y = at + (k - (len(labels) - 1) / 2) * 0.27
            axes.barh(
                y, mean - 1, left=1, height=0.24, color=COLOURS[at % len(COLOURS)], alpha=shades[k], zorder=2
            )
            beyond = mean >= 1
            axes.annotate(
                f"{mean:.2f}" + ("" if len(labels) == 1 else f"  {labels[k][0]}"),
                (mean, y),
                xytext=(4 if beyond else -4, 0),
                textcoords="offset points",
                va="center",
                ha="left" if beyond else "right",
                fontsize=7,
                color="#333333",
            )
    axes.set_yticks(range(len(results.peers)))
    axes.set_yticklabels([f"vs {peer}" for peer in results.peers])
    axes.invert_yaxis()
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    _axis(axes, min(values, default=1) / 2.2, max(values, default=1) * 1.6)


def _tests(axes: Any, results: Results, name: str, title: str, with_labels: bool) -> None:
    values: List[float] = []
    for at, peer in enumerate(results.peers):
        xs, ys, errors = [], [], ([], [])  # type: ignore[var-annotated]
        for row, test in enumerate(results.tests):
            one = results.ratio(test.name, peer, FIELDS[name])
            if one is None or one.median <= 0:
                continue
            xs.append(one.median)
            ys.append(row + (at - (len(results.peers) - 1) / 2) * 0.13)
            errors[0].append(one.median - one.q1)
            errors[1].append(one.q3 - one.median)
        values += xs
        colour = COLOURS[at % len(COLOURS)]
        axes.errorbar(
            xs,
            ys,
            xerr=errors,
            fmt="o",
            markersize=4,
            color=colour,
            elinewidth=1,
            label=f"vs {peer}",
            zorder=3,
        )
    for row in range(0, len(results.tests), 2):
        axes.axhspan(row - 0.5, row + 0.5, color="#f4f4f4", zorder=0)
    axes.set_ylim(len(results.tests) - 0.5, -0.5)
    axes.set_yticks(range(len(results.tests)))
    axes.set_yticklabels([test.name for test in results.tests] if with_labels else [])
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    _axis(axes, min(values, default=1), max(values, default=1))


def write(path: str, results: Results, subtitle: str) -> None:
    """Draws all of *results* into a PNG file."""
    check()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights: Sequence[float] = (0.75 * max(len(results.peers), 1) + 0.6, 0.27 * len(results.tests) + 0.8)
    figure = Figure(figsize=(12, sum(heights) + 1.4), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, height_ratios=heights)
    _means(figure.add_subplot(grid[0, 0]), results, "time", "Time, geometric means")
    _means(figure.add_subplot(grid[0, 1]), results, "rss", "Peak RSS, geometric means")
    _tests(figure.add_subplot(grid[1, 0]), results, "time", "Time, each test", True)
    below = figure.add_subplot(grid[1, 1])
    _tests(below, results, "rss", "Peak RSS, each test", False)
    below.legend(loc="best", fontsize=8, framealpha=0.9)
    figure.suptitle(f"{OURS} / peer: left of 1 is better for {OURS}\n{subtitle}", fontsize=11)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error}") from error
