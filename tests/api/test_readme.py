"""Every ```python block of the README runs, each in a namespace of its own."""

import contextlib
import io
import os
import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"


def blocks():
    text = README.read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"^```python\n(.*?)^```", text, re.S | re.M):
        found.append(pytest.param(match.group(1), id=f"line {text.count(chr(10), 0, match.start()) + 1}"))
    return found


@pytest.mark.parametrize("code", blocks())
def test_example(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, str(README), "exec"), {"__name__": "__main__"})
    assert os.getcwd() == str(tmp_path)


def test_there_are_examples():
    assert blocks(), "the README lost its examples"
