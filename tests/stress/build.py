"""Compiles the stress programs with the core's own sources, three ways: plain, ASan+UBSan and TSan.

The core is compiled once a variant into objects that all programs share.  Everything lands in a folder of the
system's temporary directory named by a hash of sources, flags and compiler, so that a second pytest run compiles
nothing; a build is put in place by one rename, so that two runs at once do not disturb each other.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
HERE = ROOT / "tests" / "stress"
LAYERS = ("base", "sys", "pages", "heap", "world", "gc", "api")
JOBS = 2
STALE_SECONDS = 24 * 3600       # another checkout may be using its own build right now

CC = os.environ.get("CC", "gcc")
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-g", "-Wall", "-Wextra", "-Wno-unused-parameter", f"-I{CSRC}", f"-I{HERE}",
         "-pthread", "-fno-omit-frame-pointer", "-DPA_WHITEBOX=1", "-DPA_ASSERT_LEVEL=2",
         # The programs check what malloc did: no allocation may be optimised away.
         "-fno-builtin"]
VARIANTS = {
    "plain": ["-O2"],
    "asan": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "tsan": ["-O1", "-fsanitize=thread"],
}


def core_sources() -> "list[Path]":
    return sorted(path for layer in LAYERS for path in (CSRC / layer).glob("*.c"))


def programs() -> "list[str]":
    return sorted(path.stem for path in HERE.glob("*.c"))


def _digest(variant: str) -> str:
    digest = hashlib.sha256(repr((CC, FLAGS, VARIANTS[variant], __file__)).encode())
    digest.update(subprocess.run([CC, "--version"], capture_output=True, check=True).stdout)
    for path in sorted([*CSRC.glob("*/*.[ch]"), *HERE.glob("*.[ch]")]):
        if path.parent.name in (*LAYERS, "include", "stress"):
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _run(command: "list[object]") -> None:
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{result.stderr}")


def build(variant: str) -> Path:
    """The folder that holds all programs of a variant, compiled."""
    where = Path(tempfile.gettempdir()) / f"pyalloc-stress-{os.getuid()}"
    where.mkdir(mode=0o700, exist_ok=True)
    done = where / f"{variant}-{_digest(variant)}"
    if done.is_dir():
        return done
    with tempfile.TemporaryDirectory(dir=where) as scratch:
        out = Path(scratch) / "out"
        out.mkdir()
        compiler = [CC, *FLAGS, *VARIANTS[variant]]
        with ThreadPoolExecutor(JOBS) as pool:
            core = core_sources()
            objects = [Path(scratch) / f"core-{path.parent.name}-{path.stem}.o" for path in core]
            list(pool.map(lambda pair: _run([*compiler, "-c", pair[0], "-o", pair[1]]), zip(core, objects)))
            list(pool.map(lambda name: _run([*compiler, HERE / f"{name}.c", *objects, "-o", out / name]), programs()))
        for old in where.glob(f"{variant}-*"):
            if old.stat().st_mtime < time.time() - STALE_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
        try:
            out.rename(done)
        except OSError:         # somebody else was faster with the same build
            if not done.is_dir():
                raise
    return done
