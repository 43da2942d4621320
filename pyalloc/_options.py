"""The run-time options of the core, as ``python -m pyalloc options`` shows them.

The list lives in csrc/base/options.h; here it is only read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

_OFF_BYTES = 2**63 - 1


@dataclass(frozen=True)
class Option:
    name: str  # the environment variable; PYALLOC_DEBUG=key for a key of that list
    type: str  # BOOL, MS, COUNT, PERCENT, BYTES, NUMBER or PATH
    default: str
    value: Union[int, str, None]  # of this process; None for off; text for a PATH
    source: str  # the variable that set it, or "default"
    doc: str


def options() -> list[Option]:
    """Every option with its value in this process, in the order of the documentation."""
    import pyalloc

    ffi, lib = pyalloc.ffi, pyalloc.lib

    def text(pointer: object) -> str:
        return str(ffi.string(pointer).decode())

    found: list[Option] = []
    info = ffi.new("pa_option_info *")
    while lib.pa_option(len(found), info):
        value: Union[int, str, None] = int(info.value)
        if text(info.type) == "PATH":
            value = text(ffi.cast("char *", info.value)) if info.value else None
        if (info.value, text(info.type)) in ((-1, "PERCENT"), (_OFF_BYTES, "BYTES")):
            value = None
        found.append(Option(text(info.name), text(info.type), text(info.default_text), value, text(info.source),
                            text(info.doc)))
    return found
