"""Compiles folders of C test programs with the core's own sources, in several variants, and runs them.

The core is compiled once a set of flags into objects that all programs share, of other folders too.  Everything lands
in a folder of the system's temporary directory named by a hash of sources, flags and compiler, so that a second pytest
run compiles nothing; a build is put in place by one rename, so that two runs at once do not disturb each other.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Sequence

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
CSRC = ROOT / "csrc"
LAYERS = ("base", "sys", "pages", "heap", "world", "gc", "api")
JOBS = 2
STALE_SECONDS = 24 * 3600       # another checkout may be using its own build right now

CC = os.environ.get("CC", "gcc")
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-g", "-Wall", "-Wextra", "-Wno-unused-parameter", f"-I{CSRC}", f"-I{TESTS}",
         "-pthread", "-fno-omit-frame-pointer",
         # The programs check what malloc did: no allocation may be optimised away.
         "-fno-builtin"]
ASAN = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
TSAN = ["-O1", "-fsanitize=thread"]

ENVIRONMENT = {
    **os.environ,
    # The leak checker cannot ptrace everywhere, and the programs prove by the heap's own books that nothing is left.
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}
for _name in ("LD_PRELOAD", "GOGC", "GOMEMLIMIT", "GODEBUG", "PYALLOC_GOGC", "PYALLOC_MEMLIMIT", "PYALLOC_DEBUG",
              "PYALLOC_SOAK_SECONDS"):     # for the tests, an unknown option to the library
    ENVIRONMENT.pop(_name, None)


def core_sources() -> "List[Path]":
    return sorted(path for layer in LAYERS for path in (CSRC / layer).glob("*.c"))


def _call(command: "Sequence[object]") -> None:
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{result.stderr}")


def _compiler() -> bytes:
    return subprocess.run([CC, "--version"], capture_output=True, check=True).stdout


def _put_in_place(where: Path, name: str, done: Path, make: "Callable[[Path], None]") -> Path:
    """done, made by make(scratch), which fills scratch / "out"; old builds of that name go."""
    if done.is_dir():
        return done
    with tempfile.TemporaryDirectory(dir=where) as scratch:
        out = Path(scratch) / "out"
        out.mkdir()
        make(Path(scratch))
        for old in where.glob(f"{name}-*"):
            if old.stat().st_mtime < time.time() - STALE_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
        try:
            out.rename(done)
        except OSError:         # somebody else was faster with the same build
            if not done.is_dir():
                raise
    return done


def _folder(name: str) -> Path:
    where = Path(tempfile.gettempdir()) / f"pyalloc-{name}-{os.getuid()}"
    where.mkdir(mode=0o700, exist_ok=True)
    return where


def compile_all(pairs: "Sequence[tuple]", flags: "Sequence[object]") -> None:
    """source -> object, JOBS at a time."""
    with ThreadPoolExecutor(JOBS) as pool:
        list(pool.map(lambda pair: _call([CC, *flags, "-c", pair[0], "-o", pair[1]]), pairs))


def shared_library(name: str, soname: str, sources: "Sequence[Path]", flags: "Sequence[object]",
                   link: "Sequence[object]" = ()) -> Path:
    """The folder that holds soname, built from sources; built once for all tests that ask for the same."""
    digest = hashlib.sha256(repr((CC, [str(f) for f in flags], [str(f) for f in link], soname)).encode() + _compiler())
    for path in sorted({*CSRC.glob("*/*.[ch]"), *sources}):
        digest.update(str(path).encode() + b"\0" + path.read_bytes())
    where = _folder("library")

    def make(scratch: Path) -> None:
        objects = [scratch / f"{path.parent.name}-{path.stem}.o" for path in sources]
        compile_all(list(zip(sources, objects)), [*FLAGS, "-fPIC", "-fvisibility=hidden", *flags])
        _call([CC, "-shared", "-pthread", *flags, *objects, f"-Wl,-soname,{soname}", *link,
               "-o", scratch / "out" / soname])

    return _put_in_place(where, name, where / f"{name}-{digest.hexdigest()[:16]}", make)


def _core_files() -> "List[Path]":
    return sorted(path for path in CSRC.glob("*/*.[ch]") if path.parent.name in (*LAYERS, "include"))


def core_objects(flags: "Sequence[str]") -> "List[Path]":
    """The core compiled with FLAGS and these; once for all folders and all runs."""
    flags = [*FLAGS, *flags]
    digest = hashlib.sha256(repr((CC, flags, LAYERS)).encode() + _compiler())
    for path in _core_files():
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    names = {path: f"{path.parent.name}-{path.stem}.o" for path in core_sources()}

    def make(scratch: Path) -> None:
        compile_all([(path, scratch / "out" / name) for path, name in names.items()], flags)

    where = _folder("core")
    folder = _put_in_place(where, "core", where / f"core-{digest.hexdigest()[:16]}", make)
    return [folder / name for name in names.values()]


class Programs:
    """The C programs of one folder; variants: name -> compiler flags beyond FLAGS."""

    def __init__(self, folder: Path, variants: "Mapping[str, Sequence[str]]"):
        self.folder, self.variants = folder, variants

    def names(self) -> "List[str]":
        return sorted(path.stem for path in self.folder.glob("*.c"))

    def _flags(self, variant: str) -> "List[str]":
        return [*FLAGS, f"-I{self.folder}", *self.variants[variant]]

    def _digest(self, variant: str) -> str:
        digest = hashlib.sha256(repr((CC, self._flags(variant), LAYERS)).encode() + Path(__file__).read_bytes())
        digest.update(_compiler())
        for path in sorted([*_core_files(), *TESTS.glob("*.h"), *self.folder.glob("*.[ch]")]):
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()[:16]

    def build(self, variant: str) -> Path:
        """The folder that holds all programs of a variant, compiled."""
        where = _folder(self.folder.name)

        def make(scratch: Path) -> None:
            flags, objects = self._flags(variant), core_objects(self.variants[variant])
            with ThreadPoolExecutor(JOBS) as pool:
                list(pool.map(lambda name: _call([CC, *flags, self.folder / f"{name}.c", *objects, "-o",
                                                  scratch / "out" / name]), self.names()))

        return _put_in_place(where, variant, where / f"{variant}-{self._digest(variant)}", make)

    def cached(self) -> "Callable[[str], Path]":
        """build, compiled when a variant is first asked for."""
        folders: "Dict[str, Path]" = {}

        def folder(variant: str) -> Path:
            if variant not in folders:
                folders[variant] = self.build(variant)
            return folders[variant]

        return folder


def run(command: "Sequence[object]", timeout: float = 120, limit_kib: Optional[int] = None,
        cwd: Optional[Path] = None, env: "Optional[Mapping[str, str]]" = None):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if limit_kib:
            resource.setrlimit(resource.RLIMIT_AS, (limit_kib * 1024, limit_kib * 1024))

    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=timeout,
                          env={**ENVIRONMENT, **(env or {})}, preexec_fn=limit, cwd=cwd)


def must_pass(command: "Sequence[object]", **options) -> str:
    """The standard output of a program that ends with 0 and says nothing on standard error."""
    result = run(command, **options)
    assert result.returncode == 0, (
        f"{' '.join(map(str, command))}: {result.returncode}\n{result.stdout}{result.stderr}")
    assert result.stderr == ""
    return result.stdout
