"""The programs of this folder, compiled when a variant is first asked for."""

import pytest

from gc_programs import PROGRAMS


@pytest.fixture(scope="session")
def built():
    """variant -> folder of programs."""
    return PROGRAMS.cached()
