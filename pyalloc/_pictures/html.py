"""The report: one HTML page without anything from outside, out of what :mod:`launch` found."""

from __future__ import annotations

import base64
import json
import os
import time
from html import escape
from typing import Iterable, Optional, Sequence

import pyalloc
from pyalloc._pictures import raster, scale, series, style, svg, tables, waste
from pyalloc._pictures.launch import Launched
from pyalloc._pictures.palette import DARK, EXPLICIT, FREE, GROUP_NAMES, KEPT, LIGHT, MANAGED, RELEASED
from pyalloc._pictures.profile import Profile
from pyalloc._pictures.record import Record, State

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def _tile(name: str, value: str, note: str = "") -> str:
    return f'<div class="tile"><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>'


def _section(name: str, title: str, lead: str, *body: str) -> str:
    return (
        f'<section id="{name}"><h2>{escape(title)}</h2>'
        + (f'<p class="lead">{escape(lead)}</p>' if lead else "")
        + "".join(body)
        + "</section>"
    )


def _exit_text(code: int) -> str:
    return "0" if code == 0 else f"{code}" if code < 128 else f"{code} (signal {code - 128})"


# ---- Summary


def _peak_rss(run: Launched, subject: Optional[Record]) -> int:
    sampled = max((rss for _, rss in run.samples.get(run.subject_pid, [])), default=0)
    return max(sampled, subject.last.peak_rss if subject else 0)


def _summary(run: Launched, found: series.Timeline, subject: Optional[Record]) -> str:
    rss = _peak_rss(run, subject)
    last_rss = found.rss[-1][1] if found.rss else 0
    tiles = [
        _tile(
            "exit code",
            _exit_text(run.code),
            f"after {scale.seconds(run.seconds)}, " f"{scale.seconds(run.cpu_seconds)} of processor",
        ),
        _tile("peak RSS", scale.size(rss) if rss else "-", f"{scale.size(last_rss)} at its end" if last_rss else ""),
    ]
    if subject:
        state, last = subject.highest, subject.last
        lost = sum(one.wasted for one in waste.measured(state.classes))
        tiles += [
            _tile(
                "peak heap in use",
                scale.size(last.peak_heap_inuse),
                f"{scale.size(last.inuse)} at exit" if subject.exit else "",
            ),
            _tile("wasted at the peak", scale.percent(lost, state.inuse), f"{scale.size(lost)}, partly estimated"),
            _tile(
                "given back",
                scale.size(last.number("/pyalloc/heap/released:bytes")),
                "to the operating system, in all",
            ),
            _tile("page faults", f"{last.minor_faults:,}", f"{last.major_faults:,} from disk"),
        ]
        cycles = last.number("/gc/cycles/total:gc-cycles")
        lengths = _pauses(found, last)
        tiles += [
            _tile(
                "collections",
                f"{cycles:,}",
                (
                    f"{last.number('/gc/cycles/forced:gc-cycles'):,} of them asked for"
                    if cycles
                    else "nothing was managed"
                ),
            ),
            _tile(
                "longest pause",
                scale.seconds(max(lengths)) if lengths else "-",
                (
                    f"median {scale.seconds(series.percentile(lengths, 50))}, {len(lengths):,} pauses"
                    if lengths
                    else "the world was never stopped"
                ),
            ),
        ]
    else:
        tiles.append(_tile("page faults", f"{run.minor_faults:,}", f"{run.major_faults:,} from disk"))
    return f'<section id="summary"><dl class="tiles">{"".join(tiles)}</dl></section>'


def _pauses(found: series.Timeline, state: State) -> list[float]:
    """Seconds: the trace's, or where there is none the last ones that the collector keeps."""
    return [length for _, length in found.pauses] or [ns / 1e9 for ns in state.pauses_ns]


# ---- Heap map


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _swatches(title: str, rows: Iterable[tuple[str, str, int]], roomy: bool = False) -> str:
    width = ' class="roomy"' if roomy else ""
    cells = "".join(
        f'<span{width}><i style="background:var(--{colour})"></i>{escape(name)}<em>'
        f'{scale.size(nbytes) if nbytes else "-"}</em></span>'
        for colour, name, nbytes in rows
    )
    return f'<div><b>{escape(title)}</b><div class="row">{cells}</div></div>'


def _legend(state: State) -> str:
    sums = raster.amounts(state.heap_map)

    def row(kind: str, first: int) -> list[tuple[str, str, int]]:
        return [(f"{kind}-{index}", name, sums.by_value[first + index]) for index, name in enumerate(GROUP_NAMES)]

    managed = (
        _swatches("managed objects, by size", row("managed", MANAGED))
        if any(sums.by_value[MANAGED : MANAGED + len(GROUP_NAMES)])
        else ""
    )
    empty = [
        ("released", "not backed", sums.by_value[RELEASED]),
        ("empty", "free, backed", sums.by_value[FREE]),
        ("kept", "kept by threads", sums.by_value[KEPT]),
    ]
    huge = (
        f'<div><b>huge pages</b><div class="row"><span class="roomy"><i class="hatch"></i>hatched<em>'
        f'{scale.size(sums.huge) if sums.huge else "-"}</em></span></div></div>'
    )
    return (
        f'<div class="legend">{_swatches("malloc, by size of block", row("explicit", EXPLICIT))}{managed}'
        f'{_swatches("nothing alive in it", empty, True)}{huge}</div>'
    )


def _map(state: State, when: str) -> str:
    arenas = len(state.heap_map.arenas)
    layout = raster.layout_for(arenas)
    rows = raster.rows_of(state.heap_map, layout)
    height = len(rows)
    text = (
        f"Heap map {when}: {arenas} arenas of 64 MiB, {scale.size(state.inuse)} of pages in use; the legend below "
        "has the amount of each colour."
    )
    first, last = state.heap_map.arenas[0].address, state.heap_map.arenas[-1].address + 2**26
    row_bytes = layout.columns * layout.pages_a_pixel * 8192
    caption = (
        f"{arenas} arena{'s' * (arenas != 1)} of 64 MiB from {first:#x} to {last:#x}, each a band. Addresses "
        f"grow to the right, then downwards; a row is {scale.size(row_bytes)}"
        + ("." if layout.pages_a_pixel == 1 else f", a pixel the fullest of {layout.pages_a_pixel} pages.")
    )
    return (
        f'<figure class="map{" few" * (arenas <= 4)}"><picture><source media="(prefers-color-scheme: dark)" '
        f'srcset="{_uri(raster.png(rows, DARK))}"><img src="{_uri(raster.png(rows, LIGHT))}" width="{raster.WIDTH}" '
        f'height="{height}" alt="{escape(text)}"></picture>{_legend(state)}<figcaption>{caption}</figcaption></figure>'
    )


def _heap_maps(subject: Record, start: float) -> str:
    state = subject.highest
    if not state.heap_map.arenas:
        return _section("map", "Heap map", "The program never asked for heap memory.")
    at = max(0.0, state.seconds - start)
    lead = (
        f"Every 8 KiB page when the heap had {scale.size(state.inuse)} in use, {scale.seconds(at)} after the start. "
        f"The most that was ever in use is {scale.size(subject.last.peak_heap_inuse)}; "
        "pictures are taken each time a tenth more is."
    )
    body = [_map(state, "at its peak")]
    pinned = state.heap_map.pinned()
    if pinned["pages"]:
        body.append(
            f'<p class="muted">{scale.size(pinned["nearly_empty_pages"] * 8192)} lie in spans of which at most an '
            "eighth "
            "is alive: few objects keep them from going back.</p>"
        )
    if subject.exit is not None and subject.exit is not state:
        body.append(
            f"<details><summary>The same at exit: {scale.size(subject.exit.inuse)} in use</summary>"
            f"{_map(subject.exit, 'at exit')}</details>"
        )
    return _section("map", "Heap map", lead, *body)


# ---- Timeline


def _timeline(found: series.Timeline) -> str:
    frame = svg.WIDE
    if not svg.shown(found) or not found.end:
        return _section("timeline", "Over time", "Nothing was recorded over time: the program ended at once.")
    data = {
        "end": found.end,
        "width": frame.width,
        "left": frame.left,
        "plot": frame.plot,
        "series": [
            {"name": name, "points": [[round(at, 5), int(value)] for at, value in points]}
            for name, points, _, _ in svg.shown(found)
        ],
    }
    lost = f" {found.lost:,} events did not fit into the trace: the oldest part is coarse." if found.lost else ""
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return _section(
        "timeline",
        "Over time",
        "RSS is sampled from outside; the rest is what the core wrote down. The heap in use may be above RSS: pages "
        "that were handed out and not touched yet are not resident." + lost,
        f'<figure><div class="wide">{svg.timeline(found, frame)}</div>'
        f'<div class="narrow">{svg.timeline(found, svg.NARROW)}</div>'
        '</figure><p id="readout" class="wide">Move over the chart to read values.</p>'
        f'<script type="application/json" id="timeline-data">{text}</script>',
    )


# ---- The page


def _classes(state: State) -> str:
    rows = waste.measured(state.classes)
    lost = sum(one.wasted for one in rows)
    parts = (
        ("alive", "alive"),
        ("rounding", "rounding up (estimate: half of the worst case)"),
        ("free", "free slots"),
        ("tail", "tails of spans"),
    )
    key = "".join(f'<span><i class="{kind}"></i>{escape(name)}</span>' for kind, name in parts)
    key = key.replace("<span>", '<span style="width:auto;display:flex;gap:6px;align-items:center">').replace(
        "<i ", '<i style="width:14px;margin:0" '
    )
    return _section(
        "classes",
        "Size classes and waste",
        f"At the peak {scale.size(lost)} of {scale.size(state.inuse)} in spans carried nothing that the program "
        f"asked for "
        f"({scale.percent(lost, state.inuse)}). The largest classes:",
        f'<div class="legend"><div class="row" style="gap:4px 22px">{key}</div></div>',
        f'<figure><div class="wide">{svg.waste(rows, svg.WIDE)}</div>'
        f'<div class="narrow">{svg.waste(rows, svg.NARROW)}</div>'
        f"</figure>",
        f"<details><summary>All {len(rows)} classes in use</summary>{tables.classes(rows)}</details>",
    )


def page(run: Launched, *, profile: Optional[Profile] = None) -> str:
    """The whole document."""
    found, subject = run.timeline(), run.subject
    sections = [_summary(run, found, subject)]
    if run.warning:
        sections.append(f'<p class="warning">{escape(run.warning)}</p>')
    if subject:
        starts = [points[0][0] for points in run.samples.values()]
        sections.append(_heap_maps(subject, min(starts, default=subject.highest.seconds)))
    sections.append(_timeline(found))
    if subject:
        sections += [
            _classes(subject.highest),
            _section("collections", "Collections", "", tables.collections(found, _pauses(found, subject.last))),
            _section("scavenger", "Memory given back", "", tables.scavenger(subject.last, found)),
        ]
    if profile is not None:
        sections.append(_section("profile", "Allocation sites", "", tables.profile(profile)))
    if len(run.records) > 1 or len(run.samples) > 1:
        sections.append(
            _section(
                "processes",
                "Processes",
                "The page is about the one whose heap became largest.",
                tables.processes(run),
            )
        )
    if subject:
        sections.append(_section("options", "Options in force", "", tables.options(subject)))
    return _document(run, subject, sections)


def _document(run: Launched, subject: Optional[Record], sections: Sequence[str]) -> str:
    titles = {
        "map": "Heap map",
        "timeline": "Over time",
        "classes": "Size classes",
        "collections": "Collections",
        "scavenger": "Given back",
        "profile": "Allocation sites",
        "processes": "Processes",
        "options": "Options",
    }
    body = "".join(sections)
    links = "".join(
        f'<a href="#{name}">{title}</a>' for name, title in titles.items() if f'<section id="{name}"' in body
    )
    about = f"process {run.subject_pid}" + (f" ({escape(subject.program)})" if subject else "")
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime())
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>Memory of {escape(run.title)}</title><link rel="icon" href="data:,">'
        f"<style>{style.sheet()}</style></head>"
        f"<body><main><header><h1>Memory of {escape(run.title)}</h1>"
        f'<p class="muted">{about}, {when}, {os.uname().sysname} {escape(os.uname().release)}, '
        f"pyalloc {pyalloc.__version__}</p>"
        f'</header>{sections[0]}<nav aria-label="Sections">{links}</nav>{"".join(sections[1:])}'
        f"<footer>Sizes are binary: 1 MiB is 1,048,576 bytes. Waste by rounding is estimated, since the core does not "
        f"record what programs ask for; everything else is counted. What each figure means: docs/report.md.</footer>"
        f"</main><script>{style.SCRIPT}</script></body></html>\n"
    )
