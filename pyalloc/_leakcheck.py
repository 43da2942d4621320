"""What outlives a piece of work: Buffers and managed objects made since, with the places that made them.

The registry of places is the core's (csrc/python/sites.c) and off unless a LeakCheck is there; pytest_pyalloc.py is the
fixture of it.
"""

from __future__ import annotations

import fnmatch
import gc
import os
import sys
from collections import Counter, deque
from types import CodeType
from typing import Any, NamedTuple, Optional, Sequence

from pyalloc import _core
from pyalloc._gc import collect
from pyalloc._report import human

_BUFFER, _OBJECT, _REFERENCE = range(3)
_ROUNDS = 3  # of collecting: what one frees may have held something that the next frees
_SHOWN_FRAMES = 4
_MOST_VISITED = 200_000  # objects, when roots are looked for
_MOST_GROUPS = 20
_OWN_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep
_HARNESS = (f"{os.sep}_pytest{os.sep}", f"{os.sep}pluggy{os.sep}", f"{os.sep}unittest{os.sep}")

_Frames = tuple[tuple[CodeType, int], ...]
_users = 0


def hold() -> None:
    """Keeps the registry on until release(); they nest."""
    global _users
    _users += 1
    _core.sites_note(True)


def release() -> None:
    """Ends a hold(); with the last one the registry goes off and forgets."""
    global _users
    _users -= 1
    if _users == 0:
        _core.sites_note(False)


class Survivor(NamedTuple):
    """Something that is still there."""

    what: str  # "Buffer", or the name of the class of a managed object
    nbytes: int
    site: tuple[str, ...]  # who made it, innermost first: "tests/test_a.py:12 in make"
    root: Optional[tuple[str, ...]]  # of managed objects: who made the reference that keeps it; () for an unknown one


def _path(filename: str) -> str:
    if not os.path.isabs(filename):
        return filename
    relative = os.path.relpath(filename)
    return filename if relative.startswith(os.pardir) else relative


def _site(frames: _Frames) -> tuple[str, ...]:
    shown = []
    for code, line in frames:
        if any(part in code.co_filename for part in _HARNESS):
            break
        if not code.co_filename.startswith(_OWN_FOLDER):
            shown.append(f"{_path(code.co_filename)}:{line} in {code.co_name}")
    return tuple(shown[:_SHOWN_FRAMES])


# ---- Which reference keeps an object


def _children(managed: Any) -> list[Any]:
    if isinstance(managed, _core.RefArray):
        return [one for one in managed if one is not None]
    if isinstance(managed, _core.Struct):
        values = (field.__get__(managed) for field in type(managed).__fields__.values() if field.type == "Ref")
        return [one for one in values if one is not None]
    return []


def _keepers(roots: Sequence[tuple[Any, _Frames]]) -> dict[Any, _Frames]:
    """Reachable objects, each with the frames of the first of the roots that leads to it."""
    found: dict[Any, _Frames] = {}
    for root, frames in roots:
        queue = deque([root])
        while queue and len(found) < _MOST_VISITED:
            managed = queue.popleft()
            if managed not in found:
                found[managed] = frames
                queue.extend(_children(managed))
    return found


# ---- The check


class LeakCheck:
    """Finds what was made since this object was, by any thread, and is still there.  Close it in the end."""

    def __init__(self, allow: Sequence[str] = ()) -> None:
        hold()
        self._open = True
        self._allowed = list(allow)
        self._since, self._missed = _core.sites_mark()

    def allow(self, *patterns: str) -> None:
        """Expects survivors that were made at these places: part of "path/file.py:12 in function", of any of the
        frames that are shown, or the name of a class; with * and ? for the whole."""
        self._allowed += patterns

    def _is_allowed(self, survivor: Survivor) -> bool:
        return any(
            pattern == survivor.what or any(pattern in frame or fnmatch.fnmatchcase(frame, pattern)
                                            for frame in survivor.site)
            for pattern in self._allowed)

    def _any(self) -> bool:
        return any(row[0] != _REFERENCE for row in _core.sites_rows(self._since))

    def survivors(self) -> list[Survivor]:
        """What is still there after both collectors have run, but for what is allowed."""
        if not self._open:
            raise ValueError("the check is closed")
        for _ in range(_ROUNDS):
            if not self._any():  # the common case: nothing to collect for
                return []
            gc.collect()
            collect()
        found: list[Survivor] = _core.sites_quietly(self._find)
        return [one for one in found if not self._is_allowed(one)]

    def _find(self) -> list[Survivor]:
        rows = _core.sites_rows(self._since)
        roots = [(managed, frames) for kind, managed, frames in rows if kind == _REFERENCE]
        roots += [(managed, frames) for kind, managed, frames in _core.sites_rows(0) if kind == _REFERENCE]
        keepers = _keepers(roots) if any(row[0] == _OBJECT for row in rows) else {}
        found = []
        for kind, one, frames in rows:
            if kind == _BUFFER:
                found.append(Survivor("Buffer", 0 if one.freed else one.nbytes, _site(frames), None))
            elif kind == _OBJECT:
                nbytes = sys.getsizeof(one) - type(one).__basicsize__
                found.append(Survivor(type(one).__name__, nbytes, _site(frames), _site(keepers.get(one, ()))))
        return found

    def report(self) -> Optional[str]:
        """The survivors in words; None when there are none."""
        return describe(self.survivors(), _core.sites_mark()[1] - self._missed)

    def close(self) -> None:
        """Ends the check.  More calls do nothing."""
        if self._open:
            self._open = False
            release()

    def __enter__(self) -> LeakCheck:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


def describe(survivors: Sequence[Survivor], missed: int = 0) -> Optional[str]:
    """Survivors in words, by the places that made them, most bytes first."""
    if not survivors:
        return None
    counts: Counter[tuple[str, tuple[str, ...], Optional[tuple[str, ...]]]] = Counter()
    sizes: Counter[tuple[str, tuple[str, ...], Optional[tuple[str, ...]]]] = Counter()
    for one in survivors:
        key = (one.what, one.site, one.root)
        counts[key] += 1
        sizes[key] += one.nbytes
    buffers = sum(one.root is None for one in survivors)
    kinds = [(buffers, "Buffer"), (len(survivors) - buffers, "managed object")]
    listed = " and ".join(f"{count} {noun}{'s' * (count != 1)}" for count, noun in kinds if count)
    total = human(sum(one.nbytes for one in survivors))
    lines = [f"{listed} ({total} in all):"]
    for (what, site, root), nbytes in sizes.most_common(_MOST_GROUPS):
        lines.append(f"  {counts[what, site, root]} x {what}, {human(nbytes)}, made at")
        lines += [f"      {frame}" for frame in site or ("no Python code",)]
        if root is not None and root != site:
            lines.append("    kept by a reference made at" if root else
                         "    kept by a reference that is older than the check, or by C code")
            lines += [f"      {frame}" for frame in root]
    if len(sizes) > _MOST_GROUPS:
        lines.append(f"  and {len(sizes) - _MOST_GROUPS} places more")
    if missed:
        lines.append(f"  {missed} were not noted for want of memory")
    return "\n".join(lines)
