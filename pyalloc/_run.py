"""``python -m pyalloc run -- command``: a program with pyalloc as its malloc.

Sets the environment and becomes the program by exec, so signals, exit codes and the process id are the program's own.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from typing import Mapping, Optional, Sequence

from pyalloc import preload
from pyalloc._limit import NO_LIMIT, limit_bytes

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # as shells have it
_PT_INTERP = 3
_UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_PYTHON_LINES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_site")


class RunError(Exception):
    """Why the program was not started; code is the exit code for that."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


# ---- The program


def _is_static(path: str) -> bool:
    """An ELF program without an interpreter: no dynamic linker runs, nothing is preloaded."""
    with open(path, "rb") as file:
        head = file.read(64)
        if len(head) < 64 or head[:5] != b"\x7fELF\x02" or head[5] != 1:
            return False
        offset, size, count = (int.from_bytes(head[32:40], "little"), int.from_bytes(head[54:56], "little"),
                               int.from_bytes(head[56:58], "little"))
        file.seek(offset)
        table = file.read(size * count)
    types = [int.from_bytes(table[i * size:i * size + 4], "little") for i in range(count)]
    return bool(types) and _PT_INTERP not in types


def warning_about(path: str) -> Optional[str]:
    """Why preloading into this program has no effect, None when it has."""
    try:
        if os.stat(path).st_mode & (stat.S_ISUID | stat.S_ISGID) and os.geteuid() != 0:
            return f"{path} is setuid or setgid: the dynamic linker ignores LD_PRELOAD for it"
        if _is_static(path):
            return f"{path} is statically linked: it keeps its own malloc"
    except OSError:
        pass
    return None


def command_of(words: Sequence[str]) -> list[str]:
    """The command to execute, its path found; a Python script that is not executable gets this interpreter."""
    command = list(words[1:] if words and words[0] == "--" else words)
    if not command:
        raise RunError("no command; for example: python -m pyalloc run -- sort file", 2)
    name = command[0]
    path = shutil.which(name)
    if path:
        return [path, *command[1:]]
    if name.endswith(".py") and os.path.isfile(name):
        return [sys.executable, *command]
    if os.path.isdir(name):
        raise RunError(f"{name} is a directory", _NOT_EXECUTABLE)
    if os.path.exists(name) and os.sep in name:
        raise RunError(f"{name} is not executable", _NOT_EXECUTABLE)
    raise RunError(f"no such command: {name}", _NOT_FOUND)


def environment(base: Mapping[str, str], *, limit: Optional[str] = None, python_objects: bool = False,
                stats_at_exit: bool = False, background: bool = True, trace: Optional[str] = None,
                live: bool = False, profile: Optional[str] = None,
                profile_rate: Optional[str] = None) -> dict[str, str]:
    """The program's environment. What *base* says about the background thread holds unless it is turned off; about
    huge pages it holds."""
    env = preload.env(base)
    if not background:
        env["PYALLOC_BACKGROUND"] = "0"
    elif not env.get("PYALLOC_BACKGROUND"):
        env["PYALLOC_BACKGROUND"] = "1"
    if limit is not None:
        nbytes = limit_bytes(limit)
        env["PYALLOC_MEMLIMIT"] = "off" if nbytes == NO_LIMIT else str(nbytes)
    if python_objects:
        env["PYTHONMALLOC"] = "malloc"
        env["PYALLOC_HUGE_PAGES"] = env.get("PYALLOC_HUGE_PAGES") or "1"
    if stats_at_exit:
        env["PYALLOC_STATS_AT_EXIT"] = "1"
    if live:
        env["PYALLOC_LIVE"] = "1"
    if trace is not None:
        env["PYALLOC_TRACE"] = _file_for("--trace", trace)
    if profile is not None:
        env["PYALLOC_PROFILE"] = _file_for("--profile", profile)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [_PYTHON_LINES, env.get("PYTHONPATH")]))
    if profile_rate is not None:
        if profile is None:
            raise ValueError("--profile-rate: there is no --profile")
        env["PYALLOC_PROFILE_RATE"] = str(_rate(profile_rate))
    return env


def _rate(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*(B|KiB|MiB|GiB|TiB|)", text.strip())
    nbytes = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 1 <= nbytes <= 2**40:
        raise ValueError(f"--profile-rate {text}: use bytes, or 64KiB and the like, from 1 to 1TiB")
    return nbytes


def _file_for(option: str, path: str) -> str:
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise ValueError(f"{option} {path}: there is no folder {folder}")
    return os.path.abspath(path)


def run(words: Sequence[str], **options: object) -> int:
    """Becomes the program; returns only when that fails, with the exit code for it."""
    try:
        command = command_of(words)
        env = environment(os.environ, **options)  # type: ignore[arg-type]
        warning = warning_about(command[0])
        if warning:
            print(f"pyalloc run: {warning}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(command[0], command, env)
    except RunError as error:
        message, code = str(error), error.code
    except ValueError as error:
        message, code = str(error), 2
    except OSError as error:
        message, code = f"{command[0]}: {error.strerror}", _NOT_EXECUTABLE
    print(f"pyalloc run: {message}", file=sys.stderr)
    return code
