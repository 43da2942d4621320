"""How the command line shows things: JSON, rich tables on a terminal, plain text otherwise."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any, Sequence, Union

Cell = Union[str, int, float, None]


def to_json(value: Any) -> None:
    """Prints dataclasses, lists and dicts as JSON."""

    def plain(item: Any) -> Any:
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            return dataclasses.asdict(item)
        raise TypeError(f"not JSON: {type(item).__name__}")

    print(json.dumps(value, indent=2, default=plain))


def human(nbytes: int) -> str:
    """Bytes for people: 512 B, 1.5 KiB, 64 MiB."""
    size = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Prints a table; a column whose every cell is a number or None goes to the right."""
    number = (int, float, type(None))
    numeric = [bool(rows) and all(isinstance(row[i], number) for row in rows) for i in range(len(columns))]
    if sys.stdout.isatty():
        try:
            from rich.console import Console
            from rich.table import Table
        except ImportError:
            pass
        else:
            view = Table(title=title)
            for name, right in zip(columns, numeric):
                view.add_column(name, justify="right" if right else "left")
            for row in rows:
                view.add_row(*(_text(cell) for cell in row))
            Console().print(view, markup=False)
            return
    cells = [[_text(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    print(title)
    for line in [list(columns), *cells]:
        places = zip(line, widths, numeric)
        padded = (text.rjust(width) if right else text.ljust(width) for text, width, right in places)
        print("  " + "  ".join(padded).rstrip())
