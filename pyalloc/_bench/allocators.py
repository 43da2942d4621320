"""Which allocators can be measured on this machine.

glibc needs no preload.  The others are looked for where distributions and PyPI put them; what is absent
is reported with a line that says how to get it.  ``PYALLOC_BENCH_PEERS=name=path,...`` adds further
libraries or replaces found ones; ``PYALLOC_BENCH_LIB`` replaces pyalloc's own library (for developing
the benchmark itself).
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

OURS = "pyalloc"


class BenchError(RuntimeError):
    """Something that the user must know and can probably mend; the message says it all."""


class Allocator(NamedTuple):
    """One allocator under test: *library* is preloaded (None: the C library's own malloc), with *env* set."""

    name: str
    library: Optional[str]
    env: Mapping[str, str] = {}


class _Known(NamedTuple):
    name: str
    sonames: Sequence[str]
    hint: str


_KNOWN = (
    _Known("jemalloc", ("libjemalloc.so.2",), "apt-get install libjemalloc2"),
    _Known("tcmalloc", ("libtcmalloc_minimal.so.4",), "apt-get install libtcmalloc-minimal4"),
    _Known("mimalloc", ("libmimalloc.so.3",), "pip install cmeel-mimalloc"),
)


def _loader_cache() -> Dict[str, str]:
    """Names and paths that the dynamic loader knows, for this interpreter's word size."""
    tool = shutil.which("ldconfig") or next(
        (p for p in ("/sbin/ldconfig", "/usr/sbin/ldconfig") if os.path.exists(p)), None
    )
    if tool is None:
        return {}
    done = subprocess.run([tool, "-p"], capture_output=True, text=True, errors="replace")
    found: Dict[str, str] = {}
    for line in done.stdout.splitlines():
        left, arrow, path = line.strip().partition(" => ")
        wide = "64" in left.partition("(")[2]
        if arrow and wide == (sys.maxsize > 2**32):
            found.setdefault(left.split()[0], path)
    return found


def _candidates(soname: str, cache: Mapping[str, str]) -> List[str]:
    places = [sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"], *sys.path]
    found = [os.path.join(place, "cmeel.prefix", "lib", soname) for place in places if place]
    if soname in cache:
        found.append(cache[soname])
    for pattern in ("/usr/local/lib", "/usr/lib", "/usr/lib64", "/usr/lib/*-linux-*"):
        found += [os.path.join(folder, soname) for folder in glob.glob(pattern)]
    return [path for path in found if os.path.exists(path)]


def own_library() -> Path:
    """pyalloc's shared library; :class:`BenchError` when it is not built."""
    override = os.environ.get("PYALLOC_BENCH_LIB")
    path = Path(override) if override else Path(__file__).resolve().parent.parent / "libpyalloc.so"
    if not path.exists():
        raise BenchError(f"{path} is missing: build the package first (pip install -e .)")
    return path


def find() -> Tuple[List[Allocator], Dict[str, str]]:
    """All allocators found, ours first and glibc second, and {absent: how to get it}."""
    cache = _loader_cache()
    found = [Allocator(OURS, str(own_library())), Allocator("glibc", None)]
    missing: Dict[str, str] = {}
    for known in _KNOWN:
        paths = [path for soname in known.sonames for path in _candidates(soname, cache)]
        if paths:
            found.append(Allocator(known.name, paths[0]))
        else:
            missing[known.name] = known.hint
    for item in filter(None, os.environ.get("PYALLOC_BENCH_PEERS", "").split(",")):
        name, equals, path = item.partition("=")
        if not equals or not name or not os.path.exists(path):
            raise BenchError(f"PYALLOC_BENCH_PEERS: {item!r} is not NAME=PATH of an existing library")
        found = [one for one in found if one.name != name] + [Allocator(name, path)]
        missing.pop(name, None)
    for one in found:
        if one.name == "mimalloc":
            # the same library without transparent huge pages: another point between time and memory
            found.append(Allocator("mimalloc-nothp", one.library, {"MIMALLOC_ALLOW_THP": "0"}))
            break
    return found, missing


def select(found: Sequence[Allocator], names: Optional[str]) -> List[Allocator]:
    """Ours and the peers named in *names* (comma-separated; None: all)."""
    if names is None:
        return list(found)
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = {one.name for one in found}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise BenchError(f"no such allocator here: {', '.join(unknown)} (found: {', '.join(sorted(known))})")
    return [one for one in found if one.name == OURS or one.name in wanted]
