"""Figures over time, out of an execution trace (csrc/api/trace_json.c) and samples of RSS."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Optional, Union

Points = list[tuple[float, float]]  # seconds of CLOCK_MONOTONIC, value
RSS_EVENT = "process memory"


class TraceError(ValueError):
    """A file that is no execution trace."""


@dataclass(frozen=True)
class Cycle:
    """One collection."""

    number: int
    start: float  # seconds, as the points of a timeline
    seconds: float
    forced: bool
    marked_bytes: int
    background_cpu: float  # processor seconds
    assist_cpu: float
    longest_pause: float  # of the stops within, seconds


@dataclass
class Timeline:
    """Seconds count from the first thing known; sizes are bytes, lengths seconds."""

    title: str
    end: float = 0.0
    rss: Points = field(default_factory=list)  # of the process
    rss_all: Points = field(default_factory=list)  # of all processes, where there were several
    in_use: Points = field(default_factory=list)  # pages in spans
    live: Points = field(default_factory=list)  # managed objects, as cycles begin and end
    goal: Points = field(default_factory=list)  # of the managed heap
    pauses: Points = field(default_factory=list)  # when each stop began, and how long it was
    releases: list[tuple[float, int, str]] = field(default_factory=list)  # when, bytes, who
    cycles: list[Cycle] = field(default_factory=list)
    lost: int = 0  # events that the trace had no room for


def load_trace(path: Union[str, os.PathLike[str]]) -> dict[str, Any]:
    """The document in a file of ``run --trace``.  TraceError when it is none, OSError when it cannot be read."""
    try:
        document = json.loads(Path(path).read_bytes())
        if not isinstance(document["traceEvents"], list):
            raise TypeError("traceEvents")
    except (ValueError, KeyError, TypeError) as error:
        raise TraceError(f"{os.fspath(path)} is no execution trace of pyalloc: {error!r}") from error
    found: dict[str, Any] = document
    return found


def program_of(document: dict[str, Any]) -> str:
    """Name of the program that was traced."""
    names = [event["args"]["name"] for event in document["traceEvents"] if event.get("name") == "process_name"]
    return str(names[0]) if names else "trace"


def with_rss(document: dict[str, Any], pid: int, samples: Iterable[tuple[float, int]]) -> dict[str, Any]:
    """The trace with samples of RSS in it as counter events, which Perfetto draws as well."""
    counters = [
        {
            "name": RSS_EVENT,
            "ph": "C",
            "pid": pid,
            "tid": 0,
            "cat": "os",
            "ts": round(seconds * 1e6, 3),
            "args": {"rss": rss},
        }
        for seconds, rss in samples
    ]
    names = (
        [{"name": "thread_name", "ph": "M", "pid": pid, "tid": 0, "args": {"name": "process"}}] if counters else []
    )
    events = [*document["traceEvents"], *counters]
    in_time = sorted((event for event in events if "ts" in event), key=lambda event: float(event["ts"]))
    others = [event for event in events if "ts" not in event]
    return {**document, "traceEvents": [*others, *names, *in_time]}


def _cycles(events: list[dict[str, Any]], stops: Points) -> list[Cycle]:
    marks = {event["args"]["cycle"]: event["args"] for event in events if event["name"] == "mark"}
    found = []
    for event in events:
        if event["name"] != "cycle":
            continue
        start, seconds, args = event["ts"] / 1e6, event["dur"] / 1e6, event["args"]
        mark = marks.get(args["cycle"], {})
        within = [length for at, length in stops if start <= at <= start + seconds]
        found.append(
            Cycle(
                args["cycle"],
                start,
                seconds,
                bool(args["forced"]),
                args["marked_bytes"],
                mark.get("background_cpu_ns", 0) / 1e9,
                mark.get("assist_cpu_ns", 0) / 1e9,
                max(within, default=0.0),
            )
        )
    return found


def _counter(events: list[dict[str, Any]], name: str, key: str) -> Points:
    return [
        (event["ts"] / 1e6, event["args"][key])
        for event in events
        if event["name"] == name and event["ph"] == "C" and key in event["args"]
    ]


def timeline(
    title: str,
    document: Optional[dict[str, Any]],
    rss: Iterable[tuple[float, int]] = (),
    rss_all: Iterable[tuple[float, int]] = (),
) -> Timeline:
    """What a trace and samples say, in order of time, from their first moment on.  Either may be missing."""
    events = [] if document is None else document["traceEvents"]
    found = Timeline(title)
    if document is not None:
        found.lost = int(document.get("otherData", {}).get("lost_events", 0))
    try:
        found.pauses = [(event["ts"] / 1e6, event["dur"] / 1e6) for event in events if event["name"] == "stop"]
        found.cycles = _cycles(events, found.pauses)
        found.releases = [
            ((event["ts"] + event["dur"]) / 1e6, event["args"]["heap_bytes"], event["args"]["reason"])
            for event in events
            if event["name"] == "release"
        ]
        found.in_use = sorted(_counter(events, "heap in use", "in_use") + _counter(events, "heap memory", "in_use"))
        found.live = _counter(events, "managed heap", "live")
        found.goal = _counter(events, "managed heap", "goal")
        found.rss = [*_counter(events, RSS_EVENT, "rss"), *rss]
        found.rss_all = list(rss_all)
    except (KeyError, TypeError) as error:
        raise TraceError(f"an event lacks {error}: the trace was written by another program") from error
    _from_zero(found)
    return found


def _from_zero(found: Timeline) -> None:
    """Times count from the first moment; cycles that began before stand at 0."""
    series = (found.rss, found.rss_all, found.in_use, found.live, found.goal, found.pauses)
    times = [at for points in series for at, _ in points] + [release[0] for release in found.releases]
    zero = min(times, default=0.0)
    for points in series:
        points[:] = sorted((at - zero, value) for at, value in points)
    found.releases = sorted((at - zero, nbytes, who) for at, nbytes, who in found.releases)
    found.cycles = sorted(
        (Cycle(**{**vars(cycle), "start": cycle.start - zero}) for cycle in found.cycles),
        key=lambda cycle: cycle.start,
    )
    found.end = max([at - zero for at in times] + [cycle.start + cycle.seconds for cycle in found.cycles] + [0.0])


def thinned(points: Points, most: int) -> Points:
    """At most about *most* points of the same outline: of each stretch its first, lowest, highest and last."""
    if len(points) <= most:
        return points
    size = -(-len(points) * 4 // most)
    found: Points = []
    for at in range(0, len(points), size):
        stretch = points[at : at + size]
        keep = {
            0,
            len(stretch) - 1,
            min(range(len(stretch)), key=lambda i: stretch[i][1]),
            max(range(len(stretch)), key=lambda i: stretch[i][1]),
        }
        found += [stretch[i] for i in sorted(keep)]
    return found


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that at least *percent* of the values do not exceed; 0 of none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
