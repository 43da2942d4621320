"""What all tests share: fresh processes, and a heap that must check after every test of the API."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Callable, Mapping, Optional

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def run_python() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs python in a fresh process, from a folder where only the installed pyalloc can be imported, or ROOT's."""

    def run(*arguments: str, env: Optional[Mapping[str, str]] = None, check: bool = True, timeout: float = 120):
        result = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, timeout=timeout, cwd=ROOT,
            env=None if env is None else {**os.environ, **env},
        )
        if check and result.returncode != 0:
            pytest.fail(f"python {' '.join(arguments)[:500]}\nexit {result.returncode}\n{result.stdout}{result.stderr}")
        return result

    return run
