#!/usr/bin/env python3
"""What does MADV_FREE give back, and when? Memory is filled, given back with MADV_FREE or MADV_DONTNEED,
looked at and used again.

Without memory pressure MADV_FREE leaves RSS as it was - LazyFree in smaps_rollup says how much of it the
kernel may take - and using the pages again costs no fault. MADV_DONTNEED takes them at once and each comes
back with a fault. Inside a memory cgroup whose limit is near, the kernel takes the lazily freed pages, and
both ways end the same. Rows: raw madvise on a mapping, and pyalloc with madvdontneed=1 (its default) and 0;
each free and in a cgroup where one can be made.

    python bench/rss/release.py [--quick] [--json PATH] [--png PATH]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, List, Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent))

import common  # noqa: E402
from common import ExperimentError, Row  # noqa: E402

NAME = "release"
TITLE = "MADV_FREE and MADV_DONTNEED"
COLUMNS = {"way": "given back by", "where": "where", "full_mib": "full MiB", "rss_mib": "RSS after MiB",
           "lazy_mib": "of it LazyFree", "pressed_mib": "RSS under pressure", "faults_per_page": "faults a page again",
           "release_ns": "ns a page given", "again_ns": "ns a page again"}
WAYS = (("MADV_DONTNEED", "dontneed", ""), ("MADV_FREE", "free", ""), ("pyalloc, madvdontneed=1", "pyalloc", "1"),
        ("pyalloc, madvdontneed=0", "pyalloc", "0"))
V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@contextmanager
def cgroup(limit_bytes: int) -> Iterator[Optional[Path]]:
    """A memory cgroup with that limit, version 1 or 2; None where none can be made."""
    if (V1 / "memory.limit_in_bytes").exists():
        top, file = V1, "memory.limit_in_bytes"
    else:
        top, file = V2, "memory.max"
    folder = top / f"pyalloc-rss-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
    except OSError:
        yield None
        return
    try:
        try:
            (folder / file).write_text(str(limit_bytes))
        except OSError:
            yield None
        else:
            yield folder
    finally:
        folder.rmdir()


def _run(command: Sequence[object], env: dict[str, str], group: Optional[Path]) -> Row:
    words = [str(word) for word in command]
    if group is not None:
        words = ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh", *words]
    done = subprocess.run(words, env=common.clean_environment(env), capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise ExperimentError(f"{' '.join(words)}: exit {done.returncode}\n{done.stderr}")
    return dict(json.loads(done.stdout))


def run(options: argparse.Namespace) -> List[Row]:
    mib = 64 if options.quick else 512
    rows: List[Row] = []
    with common.scratch() as folder, cgroup((mib + mib // 4) << 20) as group:
        program = common.build(Path(folder), "release", ["release.c"], "-lpyalloc")
        for where in ("free",) if group is None else ("free", "cgroup"):
            for label, way, setting in WAYS:
                env = {"PYALLOC_DEBUG": f"madvdontneed={setting}"} if setting else {}
                # In the group: what is asked for under pressure fits only when the given pages are taken.
                command = [program, mib, way, mib if where == "cgroup" else 0]
                found = _run(command, env, group if where == "cgroup" else None)
                rows.append({"way": label, "where": where, "full_mib": found["full"] / 2**20,
                             "rss_mib": found["rss_after"] / 2**20, "lazy_mib": found["lazy_after"] / 2**20,
                             "pressed_mib": found["rss_pressed"] / 2**20, "faults_per_page": found["faults_per_page"],
                             "release_ns": found["release_ns_per_page"], "again_ns": found["again_ns_per_page"]})
    if group is None:
        print("release: no memory cgroup can be made here (it takes root and a writable cgroup file system)",
              file=sys.stderr)
    return rows


def draw(figure: Any, rows: Sequence[Row]) -> None:
    labels = [f"{row['way']}\n{row['where']}" for row in rows]
    places = range(len(rows))
    axes = common.axes_of(figure, 121, "RSS after giving back", "MiB", "")
    axes.barh(places, [row["rss_mib"] for row in rows], color="#b2182b", label="RSS")
    axes.barh(places, [row["lazy_mib"] for row in rows], color="#fddbc7", label="of it LazyFree")
    axes.plot([row["pressed_mib"] for row in rows], places, "k|", markersize=14, label="RSS after pressure")
    axes.legend(fontsize=8)
    second = common.axes_of(figure, 122, "Using it again", "processor ns a page", "")
    second.barh(places, [row["again_ns"] for row in rows], color="#2166ac")
    for one in (axes, second):
        one.set_yticks(list(places))
        one.set_yticklabels(labels if one is axes else [], fontsize=7)
        one.invert_yaxis()


if __name__ == "__main__":
    sys.exit(common.main(sys.modules[__name__]))
