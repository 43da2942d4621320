"""Every ```python block of docs/how-to-numpy.md runs, each in a process of its own."""

import re
from pathlib import Path

import pytest

pytest.importorskip("numpy")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to-numpy.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)


@pytest.mark.parametrize("code", BLOCKS, ids=[f"block {i + 1}" for i in range(len(BLOCKS))])
def test_example(run_python, code):
    result = run_python("-c", code, env={"LD_PRELOAD": ""})
    assert result.stdout == "" and result.stderr == ""


def test_there_are_examples():
    assert len(BLOCKS) == 2
