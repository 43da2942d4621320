"""The tables of the HTML page."""

from __future__ import annotations

from html import escape
from typing import Iterable, Sequence

from pyalloc._pictures import scale, series
from pyalloc._pictures.launch import Launched
from pyalloc._pictures.profile import Profile
from pyalloc._pictures.record import Record, State
from pyalloc._pictures.waste import MeasuredWaste

_MOST_CYCLES = 40
_NONE = 2**64 - 1
_OFF = {"BYTES": 2**63 - 1, "PERCENT": -1}


def table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    kinds: Sequence[str] = (),
    marked: Iterable[bool] = (),
) -> str:
    """Cells are text; kinds are classes of cells by column, marked rows are bold."""
    classes = [f' class="{kind}"' if kind else "" for kind in (*kinds, *[""] * (len(columns) - len(kinds)))]
    heads = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(columns, classes))
    lines, flags = [], iter(marked)
    for row in rows:
        cells = "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row, classes))
        lines.append(f'<tr{" class=set" if next(flags, False) else ""}>{cells}</tr>')
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    body = "".join(lines)
    return f'<div class="scroll"><table>{title}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def classes(rows: Sequence[MeasuredWaste]) -> str:
    return table(
        "Bytes; rounding is an estimate and at most as much again.",
        ["block", "class", "in spans", "alive", "rounding", "free slots", "tails", "wasted"],
        [
            (
                scale.size(one.object_bytes) if one.size_class else "> 32 KiB",
                str(one.size_class),
                scale.size(one.span_bytes),
                scale.size(one.live),
                scale.size(one.rounding),
                scale.size(one.free),
                scale.size(one.tail),
                scale.percent(one.wasted, one.span_bytes),
            )
            for one in rows
        ],
    )


def _spread(name: str, values: Sequence[float]) -> tuple[str, ...]:
    return (
        name,
        f"{len(values):,}",
        *(scale.seconds(series.percentile(values, percent)) for percent in (50, 90, 99)),
        scale.seconds(max(values)),
        scale.seconds(sum(values)),
    )


def collections(found: series.Timeline, pauses: Sequence[float]) -> str:
    """Percentiles, then cycle by cycle: the last ones, where there were many."""
    if not pauses and not found.cycles:
        return '<p class="none muted">There was no collection: the program has no managed objects, or few.</p>'
    spreads = [_spread("pauses", pauses)] if pauses else []
    if found.cycles:
        spreads += [
            _spread("cycles, begin to end", [one.seconds for one in found.cycles]),
            _spread("longest pause of each cycle", [one.longest_pause for one in found.cycles]),
        ]
    parts = [table("Lengths of time.", ["", "count", "median", "90 %", "99 %", "longest", "sum"], spreads)]
    if found.cycles:
        shown = found.cycles[-_MOST_CYCLES:]
        left_out = len(found.cycles) - len(shown)
        parts.append(
            table(
                (
                    f"The last {len(shown)} cycles; {left_out:,} before them are left out."
                    if left_out
                    else "Cycle by cycle."
                ),
                [
                    "cycle",
                    "began at",
                    "took",
                    "longest pause",
                    "marked",
                    "marking, background",
                    "by allocating threads",
                    "",
                ],
                [
                    (
                        str(one.number),
                        f"{one.start:.3f} s",
                        scale.seconds(one.seconds),
                        scale.seconds(one.longest_pause),
                        scale.size(one.marked_bytes),
                        scale.seconds(one.background_cpu),
                        scale.seconds(one.assist_cpu),
                        "asked for" if one.forced else "",
                    )
                    for one in shown
                ],
            )
        )
    return "".join(parts)


def scavenger(state: State, found: series.Timeline) -> str:
    """Who gave how much back, and what the limit is."""
    reasons = (
        ("background thread", "background", "/pyalloc/released/background:bytes"),
        ("malloc and free, as time passed", "tick", "/pyalloc/released/tick:bytes"),
        ("allocations over the memory limit", "limit", "/pyalloc/released/limit:bytes"),
        ("the program asked", "asked", "/pyalloc/released/asked:bytes"),
    )
    rows = []
    for name, reason, metric in reasons:
        times = [at for at, _, who in found.releases if who == reason]
        rows.append(
            (
                name,
                scale.size(state.number(metric)),
                f"{len(times):,}" if times else "-",
                f"{times[-1]:.2f} s" if times else "-",
            )
        )
    limit = state.number("/gc/gomemlimit:bytes")
    facts = [
        (
            "No memory limit."
            if limit in (0, _NONE)
            else f"Memory limit {scale.size(limit)}; {scale.size(state.number('/pyalloc/limit/backed:bytes'))} counted "
            f"against it at the end, "
            f"and it was exceeded {state.number('/pyalloc/limit/exceeded:events'):,} times with nothing to give back."
        ),
        f"At the end {scale.size(state.number('/memory/classes/heap/released:bytes'))} of the heap's address space "
        "was with the "
        f"operating system and {scale.size(state.number('/memory/classes/heap/free:bytes'))} free and still backed.",
    ]
    lazily = state.number("/pyalloc/released/lazily:bytes")
    if lazily:
        facts.append(f"{scale.size(lazily)} went by MADV_FREE: they stay in RSS until the system needs them.")
    cpu = state.metrics.get("/cpu/classes/scavenge/background:cpu-seconds", 0.0)
    if isinstance(cpu, float) and cpu:
        facts.append(f"The background thread used {scale.seconds(cpu)} of processor time.")
    return table("", ["who", "gave back", "times", "last at"], rows) + f"<p>{escape(' '.join(facts))}</p>"


def processes(run: Launched) -> str:
    """Every process that left a record or was seen."""
    by_pid = {one.pid: one for one in run.records}
    rows, marked = [], []
    for pid in sorted({*by_pid, *run.samples}):
        one = by_pid.get(pid)
        sampled = max((rss for _, rss in run.samples.get(pid, [])), default=0)
        rss = max(sampled, one.last.peak_rss if one else 0)
        rows.append(
            (
                str(pid),
                one.program if one else "-",
                scale.size(rss) if rss else "-",
                scale.size(one.last.peak_heap_inuse) if one else "no record",
                "" if one is None else "yes" if one.exit else "no: killed, or it became another program",
            )
        )
        marked.append(pid == run.subject_pid)
    return table(
        "",
        ["process", "program", "peak RSS", "peak heap in use", "exit seen"],
        rows,
        ["", "left", "", "", "left"],
        marked,
    )


def _value(option: dict[str, object]) -> str:
    value, kind = option["value"], str(option["type"])
    if kind in _OFF and value == _OFF[kind]:
        return "off"
    if kind == "BYTES" and isinstance(value, int):
        return scale.size(value)
    return str(value) or "-"


def options(record: Record) -> str:
    """Those that somebody set are bold; the report's own come last in the core's list."""
    own = {"PYALLOC_REPORT", "PYALLOC_TRACE"}
    rows = [one for one in record.options if one["name"] not in own]
    return table(
        "In bold: set in the environment. PYALLOC_REPORT and PYALLOC_TRACE were set to make this page.",
        ["option", "value", "from"],
        [(one["name"], _value(one), one["source"]) for one in rows],
        ["mono", "", "left"],
        [one["source"] != "default" for one in rows],
    )


def profile(found: Profile) -> str:
    """The largest sites of the last type that is in bytes and in use, or of the last type."""
    kinds = [index for index, (name, unit) in enumerate(found.types) if unit == "bytes"] or [len(found.types) - 1]
    inuse = [index for index in kinds if "inuse" in found.types[index][0]]
    kind = (inuse or kinds)[-1]
    name, unit = found.types[kind]
    whole = sum(site.values[kind] for site in found.sites)
    rows = [
        (
            scale.size(site.values[kind]) if unit == "bytes" else f"{site.values[kind]:,}",
            scale.percent(site.values[kind], whole),
            " ← ".join(site.stack[:6]) + (" ← …" if len(site.stack) > 6 else ""),
        )
        for site in found.largest(kind)
        if site.values[kind]
    ]
    return table(
        f"{name}, innermost function first; shares of {scale.size(whole) if unit == 'bytes' else f'{whole:,}'}.",
        [name, "share", "where"],
        rows,
        ["", "", "left wrap mono"],
    )
