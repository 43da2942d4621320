"""The lines of GODEBUG=scavtrace=1, as strict as Go's own printing code: anything else is an error."""

from __future__ import annotations

import re
from typing import NamedTuple

WHOLE = r"0|[1-9]\d*"
LINE = re.compile(
    rf"scav ({WHOLE}) KiB work \(bg\), ({WHOLE}) KiB work \(eager\), ({WHOLE}) KiB now, ({WHOLE})% util( \(forced\))?")


class Line(NamedTuple):
    background_kib: int     # given back since the last line, by the background thread
    eager_kib: int          # by allocating threads
    now_kib: int            # address space that is released now
    util_percent: int       # of the backed heap, what is in use
    forced: bool            # free_os_memory


def parse(text: str) -> Line:
    """ValueError unless text is such a line, whole."""
    match = LINE.fullmatch(text)
    if not match:
        raise ValueError(f"no scavtrace line: {text!r}")
    return Line(*map(int, match.groups()[:4]), match[5] is not None)
