"""gctrace lines, in the one format that Go and pyalloc share, and what they say about processor shares.

    gc N @S.SSSs P%: A+B+C ms clock, D+E/F/G+H ms cpu, X->Y->Z MB, W MB goal, U MB stacks, V MB globals, M P (forced)
"""

from __future__ import annotations

import re
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

_NUMBER = r"([0-9.]+(?:e[+-]?\d+)?)"
_LINE = re.compile(
    rf"gc (\d+) @{_NUMBER}s {_NUMBER}%: {_NUMBER}\+{_NUMBER}\+{_NUMBER} ms clock, "
    rf"{_NUMBER}\+{_NUMBER}/{_NUMBER}/{_NUMBER}\+{_NUMBER} ms cpu, "
    r"(\d+)->(\d+)->(\d+) MB, (\d+) MB goal, (\d+) MB stacks, (\d+) MB globals, (\d+) P( \(forced\))?"
)

_MARK = re.compile(r"(.*) @([0-9.]+)s$")


class Cycle(NamedTuple):
    number: int
    started_s: float
    first_stop_ms: float
    mark_ms: float
    last_stop_ms: float
    first_stop_cpu_ms: float
    assist_ms: float
    background_ms: float
    idle_ms: float
    last_stop_cpu_ms: float
    heap_started_mb: int
    heap_marked_mb: int
    live_mb: int
    goal_mb: int
    processors: int
    forced: bool

    @property
    def total_ms(self) -> float:
        return self.first_stop_ms + self.mark_ms + self.last_stop_ms


def parse(lines: Iterable[str]) -> List[Cycle]:
    """The cycles among *lines*; other lines are skipped."""
    found = []
    for line in lines:
        match = _LINE.match(line.strip())
        if match:
            g = match.groups()
            times = [float(value) for value in g[3:11]]
            heap_mb = [int(value) for value in g[11:15]]
            found.append(Cycle._make([int(g[0]), float(g[1]), *times, *heap_mb, int(g[17]), g[18] is not None]))
    return found


def split(lines: Sequence[str], first: str, last: str) -> Tuple[List[Cycle], Optional[float]]:
    """The cycles that began and ended between two marks, and when the next one began if that was before the end.

    A mark is a line "text @S.SSSs".
    """
    marks: Dict[str, Tuple[int, float]] = {}
    for at, line in enumerate(lines):
        match = _MARK.match(line.strip())
        if match and match.group(1) in (first, last):
            marks[match.group(1)] = (at, float(match.group(2)))
    if len(marks) < 2:
        return [], None
    (begin_at, begin_s), (end_at, end_s) = marks[first], marks[last]
    inside = [one for one in parse(lines[begin_at:end_at]) if one.started_s >= begin_s]
    after = [one.started_s for one in parse(lines[end_at:]) if one.started_s < end_s]
    return inside, min(after, default=None)


def shares(cycles: Sequence[Cycle], next_s: Optional[float] = None) -> Dict[str, Optional[float]]:
    """What collection took of the processors, forced cycles left out.

    background_share   background marking / (time of marking * processors): nominally 0.25
    marking_share      background + assists of the same
    idle_share         marking on processors that the collector took for idle, of the same
    total_share        background + assists / (time * processors), from the start of the first cycle to that of
                       the last (or to next_s), so that marking and rest are both whole; None with one start
    peak_over_goal     the largest heap at the end of marking / its goal
    cycles_settled     how many cycles that comes from

    The first cycle is left out where two others remain: the pacer had not settled.
    """
    settled = [one for one in cycles if not one.forced]
    if len(settled) >= 3:
        settled = settled[1:]
    found: Dict[str, Optional[float]] = dict.fromkeys(
        ("background_share", "marking_share", "idle_share", "total_share", "peak_over_goal"))
    found["cycles_settled"] = len(settled)
    marking_ms = sum(one.mark_ms * one.processors for one in settled)
    if marking_ms > 0:
        background = sum(one.background_ms for one in settled)
        assists = sum(one.assist_ms for one in settled)
        found["background_share"] = background / marking_ms
        found["marking_share"] = (background + assists) / marking_ms
        found["idle_share"] = sum(one.idle_ms for one in settled) / marking_ms
    starts = [one.started_s for one in settled] + ([] if next_s is None else [next_s])
    if len(starts) >= 2 and starts[-1] > starts[0]:
        taken = sum(one.background_ms + one.assist_ms for one in settled[:len(starts) - 1])
        found["total_share"] = taken / (1e3 * (starts[-1] - starts[0]) * settled[0].processors)
    goals = [one.heap_marked_mb / one.goal_mb for one in settled if one.goal_mb]
    found["peak_over_goal"] = max(goals, default=None)
    return found
