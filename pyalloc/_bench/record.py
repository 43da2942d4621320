"""Records the allocations of a real program and makes a compact trace of them.

    python -m pyalloc._bench.record --name NAME --output DIR [--exe PROGRAM] [--max N] -- COMMAND ...

Compiles ``bench/recorder/recorder.c`` of the source tree with ``cc`` (so this works from a checkout or an
unpacked sdist, and on glibc only), runs COMMAND under it, and writes ``DIR/NAME.patrace.xz``.  ``--exe``
names the program to record when COMMAND starts others (``--exe cc1 -- gcc -c big.c``).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional

from pyalloc._bench import trace

_SOURCE = Path(__file__).resolve().parents[2] / "bench" / "recorder" / "recorder.c"


class RecordError(RuntimeError):
    """The recorder could not be built, or the program left no recording."""


def build(directory: Path, source: Optional[Path] = None, compiler: Optional[str] = None) -> Path:
    """Compiles the recorder into *directory*; returns the library's path."""
    source = source or _SOURCE
    compiler = compiler or os.environ.get("CC") or "cc"
    if not source.exists():
        raise RecordError(f"{source} is missing: recording needs pyalloc's source tree")
    if shutil.which(compiler.split()[0]) is None:
        raise RecordError(f"no C compiler ({compiler})")
    library = directory / "recorder.so"
    command = [*compiler.split(), "-O2", "-shared", "-fPIC", "-pthread", str(source), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RecordError(f"cannot compile the recorder:\n{done.stderr}")
    return library


def run(
    library: Path,
    command: List[str],
    raw: Path,
    *,
    exe: Optional[str] = None,
    most: Optional[int] = None,
    extra_env: Optional[Dict[str, str]] = None,
    **popen: Any,
) -> int:
    """Runs *command* under the recorder, which writes *raw*; returns the command's exit code."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYALLOC_RECORD")}
    environment.update(extra_env or {})
    environment.update(LD_PRELOAD=str(library), PYALLOC_RECORD=str(raw))
    if exe is not None:
        environment["PYALLOC_RECORD_EXE"] = exe
    if most is not None:
        environment["PYALLOC_RECORD_MAX"] = str(most)
    return subprocess.run(command, env=environment, **popen).returncode


def convert(raw: Path, name: str, command: str, most: Optional[int] = None) -> trace.Trace:
    """The recording in *raw* as a trace with its metadata."""
    if not raw.exists():
        raise RecordError("nothing was recorded: is the program statically linked, or is --exe wrong?")
    made = trace.read_raw(raw.read_bytes())
    calls = sum(event.kind != trace.THREAD for event in made.events)
    if calls == 0:
        raise RecordError("the program allocated nothing")
    metadata = dict(made.metadata, name=name, command=command)
    metadata["truncated"] = most is not None and calls + made.metadata["unknown_frees"] >= most
    return trace.Trace(made.events, metadata)


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pyalloc._bench.record", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--name", required=True, help="name of the trace")
    parser.add_argument("--output", type=Path, default=Path("."), help="directory for NAME.patrace.xz")
    parser.add_argument("--exe", help="record only the process that runs this program")
    parser.add_argument("--max", type=int, help="stop recording after so many calls")
    parser.add_argument(
        "--env", action="append", default=[], metavar="K=V", help="environment for the program"
    )
    parser.add_argument("--describe", help="the command as it shall stand in the metadata")
    parser.add_argument("command", nargs="+", help="the program and its arguments, after --")
    args = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="pyalloc-record-") as scratch:
            raw = Path(scratch) / "events.raw"
            code = run(
                build(Path(scratch)),
                args.command,
                raw,
                exe=args.exe,
                most=args.max,
                extra_env=dict(item.split("=", 1) for item in args.env),
            )
            if code != 0:
                raise RecordError(f"the program ended with exit code {code}")
            words = [*args.env, *args.command]
            made = convert(raw, args.name, args.describe or " ".join(words), args.max)
            target = args.output / (args.name + trace.SUFFIX)
            packed = trace.save(target, made)
    except (RecordError, trace.TraceError) as error:
        print(f"record: {error}", file=sys.stderr)
        return 1
    summary = trace.summarize(made.events)
    print(f"{target}: {len(made.events)} events, {packed} bytes, {summary}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
