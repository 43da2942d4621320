"""What the experiments share: compiling their C programs, running them, tables, JSON and PNG.

Each experiment is a module with NAME, COLUMNS, run(options) -> rows, draw(figure, rows) and a docstring whose
first paragraph is its question; main() below is its command line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, List, Mapping, Optional, Sequence

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.append(str(ROOT))     # the tree's package, when none is installed

from pyalloc import _report, preload  # noqa: E402

Row = Dict[str, Any]
TUNING = ("GOGC", "GOMEMLIMIT", "GODEBUG", "PYALLOC_", "MALLOC_", "GLIBC_TUNABLES", "MIMALLOC_", "TCMALLOC_",
          "LD_PRELOAD")
COLOURS = ("#b2182b", "#2166ac", "#1b7837", "#e08214", "#762a83", "#737373", "#35978f", "#c51b7d")


class ExperimentError(RuntimeError):
    """Something that the user must know and can probably mend."""


def clean_environment(more: Optional[Mapping[str, str]] = None) -> Dict[str, str]:
    """The environment without anything that changes an allocator's behaviour, and *more*."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(TUNING)}
    return {**kept, **(more or {})}


def build(folder: Path, name: str, sources: Sequence[str], *flags: str) -> Path:
    """Compiles C files of this folder (or paths below the root) into a program or, named .so, a shared library.

    "-lpyalloc" among the flags links the installed library, wherever it is."""
    compiler = (os.environ.get("CC") or "cc").split()
    if shutil.which(compiler[0]) is None:
        raise ExperimentError("no C compiler: install gcc, or set CC")
    library = Path(preload.path())
    words: List[str] = []
    for flag in flags:
        words += [str(library), f"-Wl,-rpath,{library.parent}"] if flag == "-lpyalloc" else [flag]
    files = [str(ROOT / path if "/" in path else HERE / path) for path in sources]
    shape = ["-shared", "-fPIC"] if name.endswith(".so") else []
    target = folder / name
    done = subprocess.run(
        [*compiler, "-std=c11", "-D_GNU_SOURCE", "-O2", "-fno-builtin", "-pthread", "-Wall", "-Wextra",
         "-Wno-unused-parameter",
         f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'bench' / 'kernels'}", *shape, *files, "-o", str(target), *words],
        capture_output=True, text=True)
    if done.returncode != 0:
        raise ExperimentError(f"{name} does not compile:\n{done.stderr}")
    return target


def run_json(command: Sequence[object], env: Optional[Mapping[str, str]] = None, timeout: float = 600) -> Row:
    """Runs a program that prints one JSON object."""
    words = [str(word) for word in command]
    done = subprocess.run(words, env=clean_environment(env), capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise ExperimentError(f"{' '.join(words)}: exit {done.returncode}\n{done.stderr}")
    return dict(json.loads(done.stdout))


def scratch() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="pyalloc-rss-")


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"
    return value


def main(module: ModuleType, words: Optional[Sequence[str]] = None) -> int:
    """Command line of one experiment."""
    doc = (module.__doc__ or "").strip()
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small scale that takes seconds")
    parser.add_argument("--json", metavar="PATH", help="- for stdout instead of the table")
    parser.add_argument("--png", metavar="PATH", help="needs matplotlib")
    if hasattr(module, "add_arguments"):
        module.add_arguments(parser)
    options = parser.parse_args(words)
    try:
        rows = module.run(options)
        if options.json:
            text = json.dumps({"experiment": module.NAME, "quick": options.quick, "rows": rows}, indent=1)
            if options.json == "-":
                print(text)
            else:
                Path(options.json).write_text(text + "\n", encoding="utf-8")
        if options.json != "-":
            shown = [[_cell(row.get(name)) for name in module.COLUMNS] for row in rows]
            _report.table(module.TITLE, list(module.COLUMNS.values()), shown)
        if options.png:
            picture(module, rows, options.png)
    except (ExperimentError, OSError, subprocess.SubprocessError) as error:
        print(f"{module.NAME}: {error}", file=sys.stderr)
        return 2
    return 0


def picture(module: ModuleType, rows: Sequence[Row], path: str) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ExperimentError("no chart: pip install matplotlib") from None
    figure = Figure(figsize=(10, 4.8), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    module.draw(figure, rows)
    figure.suptitle(module.TITLE, fontsize=11)
    figure.savefig(path, format="png")


def axes_of(figure: Any, place: int, title: str, x: str, y: str) -> Any:
    """A panel with the look of all experiments; place as matplotlib's 121."""
    axes = figure.add_subplot(place)
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(True, color="#e5e5e5")
    return axes
