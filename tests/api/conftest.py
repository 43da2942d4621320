import gc

import pytest

import pyalloc


@pytest.fixture(autouse=True)
def heap_checks():
    """Every test of the API leaves a heap whose structures hold together."""
    yield
    gc.collect()
    pyalloc.heap_check()
