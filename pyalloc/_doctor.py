"""``python -m pyalloc doctor``: is this a place where pyalloc works well, and does it work?

Each check gives one finding.  ``fail`` means that something is broken, ``warn`` that it works but worse than
it could, ``info`` is for the reader of a bug report.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import resource
import sys
from dataclasses import dataclass
from typing import Callable, Iterator

import pyalloc
from pyalloc import _core, preload
from pyalloc._report import human

_EXTRAS = ("rich", "matplotlib", "numpy", "cmeel")


@dataclass(frozen=True)
class Finding:
    check: str
    status: str  # ok, info, warn, fail
    value: str
    hint: str = ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _versions() -> Iterator[Finding]:
    yield Finding("pyalloc", "info", pyalloc.__version__)
    yield Finding("python", "info", f"{platform.python_implementation()} {platform.python_version()}")
    known = platform.system() == "Linux" and platform.machine() in ("x86_64", "aarch64") and sys.maxsize > 2**32
    running = f"{platform.system()} {platform.release()} {platform.machine()}"
    yield Finding("platform", "ok" if known else "warn", running,
                  "" if known else "pyalloc is made for 64-bit Linux on x86-64 and aarch64")


def _library() -> Iterator[Finding]:
    loaded = preload.loaded_path()
    own = preload.path()
    same = loaded is not None and os.path.exists(loaded) and os.path.samefile(loaded, own)
    yield Finding("library", "ok" if same else "warn", loaded or "not found in /proc/self/maps",
                  "" if same else f"this installation's library is {own}")
    version = _core.core_version()
    same = version == pyalloc.__version__
    yield Finding("core version", "ok" if same else "warn", f"{version}, ABI {_core.ABI_VERSION}",
                  "" if same else "the package and the library are of different versions")
    active = preload.active()
    yield Finding("preloaded", "info", "yes" if active else "no",
                  "" if active else "malloc of this process is not pyalloc's; see pyalloc.preload.env()")


def _kernel() -> Iterator[Finding]:
    yield Finding("page size", "info", human(os.sysconf("SC_PAGE_SIZE")))
    huge = _read("/sys/kernel/mm/transparent_hugepage/enabled")
    chosen = huge.partition("[")[2].partition("]")[0] or "unknown"
    yield Finding("transparent huge pages", "info", chosen)
    overcommit = _read("/proc/sys/vm/overcommit_memory")
    strict = overcommit == "2"
    hint = "vm.overcommit_memory=2 charges reserved address space: arenas of 64 MiB may be refused"
    yield Finding("overcommit", "warn" if strict else "ok", overcommit or "unknown", hint if strict else "")
    maps = _read("/proc/sys/vm/max_map_count")
    yield Finding("max map count", "info", maps or "unknown")


def _limits() -> Iterator[Finding]:
    for name, which in (("ulimit -v", resource.RLIMIT_AS), ("ulimit -d", resource.RLIMIT_DATA)):
        soft = resource.getrlimit(which)[0]
        if soft == resource.RLIM_INFINITY:
            yield Finding(name, "ok", "unlimited")
        else:
            yield Finding(name, "warn", human(soft), "address space is limited: the heap grows 64 MiB at a time")
    limit = _read("/sys/fs/cgroup/memory.max") or _read("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    limited = limit.isdigit() and int(limit) < 1 << 60  # version 1 says "none" by a huge number
    yield Finding("cgroup memory limit", "info", human(int(limit)) if limited else "none" if limit else "unknown")


def _tools() -> Iterator[Finding]:
    maps = _read("/proc/self/maps")
    valgrind = "vgpreload" in maps or "/valgrind/" in maps
    yield Finding("valgrind", "warn" if valgrind else "ok", "running under valgrind" if valgrind else "no",
                  "times and addresses mean little here" if valgrind else "")
    for name in _EXTRAS:
        found = importlib.util.find_spec(name) is not None
        shown = "cmeel-mimalloc" if name == "cmeel" else name
        yield Finding(f"extra: {shown}", "info", "present" if found else "absent",
                      "" if found else f"optional: pip install {shown}")


def _self_test() -> Iterator[Finding]:
    sizes = (0, 1, 64, 4096, 1 << 20)
    for nbytes in sizes:
        with pyalloc.alloc(nbytes) as buffer:
            view = memoryview(buffer)
            if any(view[i] for i in range(0, nbytes, 512)):
                yield Finding("self test", "fail", f"alloc({nbytes}) is not zeroed")
                return
            view[:] = b"\xa5" * nbytes
            if not pyalloc.owns(buffer) or buffer.usable_size < nbytes:
                yield Finding("self test", "fail", f"alloc({nbytes}) is not ours or too small")
                return
            view.release()
    yield Finding("self test", "ok", f"{len(sizes)} buffers made, written and freed")


def _heap() -> Iterator[Finding]:
    pyalloc.heap_check()
    stats = pyalloc.read_mem_stats()
    yield Finding("heap check", "ok", f"{human(stats.heap_inuse)} in use, {human(stats.heap_idle)} idle")


_CHECKS: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
    ("versions", _versions),
    ("library", _library),
    ("kernel", _kernel),
    ("limits", _limits),
    ("tools", _tools),
    ("self test", _self_test),
    ("heap check", _heap),
)


def examine() -> list[Finding]:
    """Every finding; a check that raises is a finding too."""
    findings: list[Finding] = []
    for name, check in _CHECKS:
        try:
            findings.extend(check())
        except Exception as error:  # a doctor does not die of what it finds
            findings.append(Finding(name, "fail", f"{type(error).__name__}: {error}"))
    return findings
