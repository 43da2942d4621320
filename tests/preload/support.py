"""Helpers of the drop-in's tests that are not fixtures."""

from __future__ import annotations

import re
import shutil

import pytest

#: One block of PYALLOC_STATS_AT_EXIT: process, program.
SUMMARY = re.compile(r"^pyalloc \S+: statistics at exit, process (\d+) \((.*)\)\n(?:  .*\n)+", re.M)


def need(program: str, package: str) -> str:
    """The path of a program; a skip that names its Debian package when it is missing."""
    path = shutil.which(program)
    if not path:
        pytest.skip(f"{program} is missing: apt-get install {package}")
    return path
