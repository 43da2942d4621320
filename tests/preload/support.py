"""Helpers of the drop-in's tests that are not fixtures."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Callable, Optional

import pytest

#: One block of PYALLOC_STATS_AT_EXIT: process, program.
SUMMARY = re.compile(r"^pyalloc \S+: statistics at exit, process (\d+) \((.*)\)\n(?:  .*\n)+", re.M)


def need(program: str, package: str) -> str:
    """The path of a program; a skip that names its Debian package when it is missing."""
    path = shutil.which(program)
    if not path:
        pytest.skip(f"{program} is missing: apt-get install {package}")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Asks again until condition() holds; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def uses_library(pid: int) -> bool:
    try:
        return "libpyalloc.so" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:  # it is gone already
        return False


def children_of(pid: int) -> "list[int]":
    try:
        return [int(word) for task in Path(f"/proc/{pid}/task").iterdir()
                for word in (task / "children").read_text().split()]
    except OSError:
        return []


class Server:
    """A server process in the foreground that listens on a port of loopback; with a library to preload, its maps must
    name it. Ends with the with statement."""

    def __init__(self, command: "list[object]", port: int, library: Optional[str]) -> None:
        self.command, self.port, self.library = [str(word) for word in command], port, library

    def _listens(self) -> bool:
        assert self.process.poll() is None, f"{self.command[0]} ended with {self.process.returncode}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def __enter__(self) -> "Server":
        env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        if self.library:
            env["LD_PRELOAD"] = self.library
        self.process = subprocess.Popen(self.command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        try:
            wait_for(self._listens, f"{self.command[0]} on port {self.port}")
            assert uses_library(self.process.pid) == bool(self.library)
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait(self, seconds: float = 30) -> int:
        return self.process.wait(seconds)

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
