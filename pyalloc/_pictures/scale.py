"""Axes: round numbers to put at them, and how values are written."""

from __future__ import annotations

import math

_UNITS = (("B", 1), ("KiB", 2**10), ("MiB", 2**20), ("GiB", 2**30), ("TiB", 2**40))


def unit_of(nbytes: float) -> tuple[str, int]:
    """The unit that a scale up to nbytes is written in, and its size."""
    for name, size in reversed(_UNITS):
        if nbytes >= size:
            return name, size
    return _UNITS[0]


def ticks(most: float, count: int = 5, binary: bool = False) -> list[float]:
    """About *count* round numbers from 0 to *most* or just below; powers of two for binary ones where that fits."""
    if most <= 0:
        return [0.0]
    raw = most / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    if binary and raw >= 8:
        step = 2.0 ** round(math.log2(raw))
    return [index * step for index in range(int(most / step + 1e-9) + 1)]


def size(nbytes: float) -> str:
    """Bytes for people, three digits: 512 B, 1.5 KiB, 53.4 MiB, 1,020 KiB."""
    name, unit = unit_of(nbytes)
    value = nbytes / unit
    return f"{value:,.0f} {name}" if value >= 100 else f"{value:.3g} {name}"


def seconds(value: float) -> str:
    """A length of time: 12 µs, 3.4 ms, 1.25 s, 2 min 5 s."""
    if value >= 120:
        return f"{int(value // 60)} min {value % 60:.0f} s"
    if value >= 1:
        return f"{value:.3g} s"
    if value >= 1e-3:
        return f"{value * 1e3:.3g} ms"
    return f"{value * 1e6:.3g} µs"


def number(value: float) -> str:
    """Without zeros that say nothing."""
    return f"{value:.4g}"


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"
