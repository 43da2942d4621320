"""The lines of GODEBUG=gctrace=1, as strict as Go's own printing code: anything else is an error.

Times in ms: "0"; three decimals below 0.1; two below 1; one below 10; whole numbers above.  So two significant digits
at most below 10, never a leading or a superfluous zero.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Tuple

WHOLE = r"0|[1-9]\d*"
MS = r"0|0\.00[1-9]|0\.0[1-9]\d|0\.[1-9]\d|[1-9]\.\d|[1-9]\d+"
LINE = re.compile(
    rf"gc ([1-9]\d*) @((?:{WHOLE})\.\d{{3}})s ({WHOLE})%: "
    rf"({MS})\+({MS})\+({MS}) ms clock, "
    rf"({MS})\+({MS})/({MS})/({MS})\+({MS}) ms cpu, "
    rf"({WHOLE})->({WHOLE})->({WHOLE}) MB, ({WHOLE}) MB goal, ({WHOLE}) MB stacks, ({WHOLE}) MB globals, "
    rf"([1-9]\d*) P( \(forced\))?")


class Line(NamedTuple):
    number: int
    at_seconds: float
    percent: int
    clock: Tuple[float, float, float]
    cpu_stop: Tuple[float, float]
    assist: float
    background: float
    idle: float
    start_mb: int
    end_mb: int
    live_mb: int
    goal_mb: int
    stacks_mb: int
    globals_mb: int
    processors: int
    forced: bool


def parse(text: str) -> Line:
    """ValueError unless text is such a line, whole."""
    match = LINE.fullmatch(text)
    if not match:
        raise ValueError(f"no gctrace line: {text!r}")
    n = match.groups()
    return Line(int(n[0]), float(n[1]), int(n[2]), (float(n[3]), float(n[4]), float(n[5])), (float(n[6]), float(n[10])),
                float(n[7]), float(n[8]), float(n[9]), *map(int, n[11:17]), int(n[17]), n[18] is not None)
