"""What all tests share: fresh processes, and a heap that must check after every test of the API."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Callable, Mapping, Optional

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config):
    config.addinivalue_line("markers", "soak: longer stress runs; only with -m soak, which CI does")
    config.addinivalue_line("markers", "full: an experiment at full scale; only with -m full, on a quiet machine")


def pytest_collection_modifyitems(config, items):
    unwanted = {"soak", "full"} - set(config.getoption("-m", default="").split())
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in unwanted)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


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
