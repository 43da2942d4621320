"""The shared library as the malloc of a whole program.

    subprocess.run(["sqlite3", "db"], env=pyalloc.preload.env())

A program that starts with ``LD_PRELOAD`` set to :func:`path` gets all its malloc from pyalloc; when it
is a Python program that imports pyalloc too, both are one heap.
"""

from __future__ import annotations

import functools
import os
import re
from typing import Mapping, Optional

from pyalloc import _core

_LIBRARY = "libpyalloc.so"


def path() -> str:
    """Absolute path of the libpyalloc.so of this installation."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), _LIBRARY)


def env(base: Optional[Mapping[str, str]] = None) -> dict[str, str]:
    """A copy of *base* (default: os.environ) with the library first in LD_PRELOAD.

    ValueError when the library's path has a blank or a colon in it: LD_PRELOAD is a list and cannot say that.
    """
    if re.search(r"[\s:]", path()):
        raise ValueError(f"LD_PRELOAD cannot name {path()!r}: blanks and colons separate the names in it")
    result = dict(os.environ if base is None else base)
    others = [name for name in result.get("LD_PRELOAD", "").replace(":", " ").split() if name != path()]
    result["LD_PRELOAD"] = ":".join([path(), *others])
    return result


@functools.lru_cache(maxsize=None)
def active() -> bool:
    """True when the malloc of this process is pyalloc's, that is, when the library was preloaded.

    Asks for the block that the C library itself gets for strdup(): not even Python's own allocator hooks change
    that.  The answer cannot change while the process lives.
    """
    import ctypes

    strdup = ctypes.CDLL(None).strdup
    strdup.restype, strdup.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    return _core.owns(strdup(b"") or 0)  # one byte, once: whose free() it needs is just what is not known


def loaded_path() -> Optional[str]:
    """Path of the libpyalloc.so that this process has mapped: :func:`path`, or the preloaded one."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.rstrip("\n").split(None, 5)
            if len(fields) == 6 and os.path.basename(fields[5]) == _LIBRARY:
                return fields[5]
    return None
