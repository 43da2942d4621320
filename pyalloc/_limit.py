"""What a memory limit is in bytes: numbers, sizes, shares of what this process's control groups allow it."""

from __future__ import annotations

import os
import re
from operator import index
from pathlib import Path
from typing import Optional, Union

#: As debug.SetMemoryLimit has it.
NO_LIMIT = 2**63 - 1

_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_AUTO_PERCENT = 90  # of the limit of the cgroup


def limit_bytes(limit: Union[int, str]) -> int:
    """Bytes that a memory limit stands for, NO_LIMIT for "off" and for anything above it.

    limit: bytes, "512MiB", "1.5 GiB", "80%" (of the cgroup's limit, or of the machine's memory), "auto" (90 % of the
    cgroup's limit, none without one) or "off".  ValueError for other text and negative numbers.
    """
    if not isinstance(limit, str):
        limit = index(limit)
        if limit < 0:
            raise ValueError("a memory limit must not be negative; None only asks for it")
        return min(limit, NO_LIMIT)
    text = limit.strip().upper()
    if text == "OFF":
        return NO_LIMIT
    if text == "AUTO":
        own = cgroup_limit()
        return NO_LIMIT if own is None else own * _AUTO_PERCENT // 100
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%|[KMGT]IB|B|)", text)
    if match is None or (match[2] in ("", "B") and "." in match[1]):
        raise ValueError(f'{limit!r} is no memory limit: use bytes, "512MiB", "80%", "auto" or "off"')
    if match[2] == "%":
        if not 0 < float(match[1]) <= 100:
            raise ValueError(f"{limit!r} is no memory limit: a percentage is above 0 and at most 100")
        whole = cgroup_limit() or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return int(whole * float(match[1]) / 100)
    number = float(match[1]) if "." in match[1] else int(match[1])
    return min(int(number * _UNITS[match[2]]), NO_LIMIT)


def cgroup_limit(root: Path = Path("/")) -> Optional[int]:
    """The memory limit of this process's control groups, version 1 or 2, in bytes; None when there is none.

    Limits of the groups around it count too.  root is for tests.
    """
    found: list[int] = []
    try:
        lines = (root / "proc/self/cgroup").read_text(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            top, file = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, file = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = top / path.strip("/")
        for folder in (group, *group.parents):
            if folder != top and top not in folder.parents:
                break
            try:
                text = (folder / file).read_text().strip()
            except OSError:
                continue
            if text.isdigit() and int(text) < 2**60:  # version 1 writes "none" as a number near 2**63
                found.append(int(text))
    return min(found, default=None)
