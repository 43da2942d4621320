"""docs/how-to-watch.md: every example runs, and says what the page says."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to-watch.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.S | re.M)
PYTHON = [text for kind, text in BLOCKS if kind == "python" and not text.startswith("# file:")]
FILES = dict(re.match(r"# file: (\S+)\n(.*)", text, re.S).groups()
             for kind, text in BLOCKS if text.startswith("# file:"))
SHELL = [text for kind, text in BLOCKS if kind == "sh"]
REPORTS = [text for kind, text in BLOCKS if kind == ""]


def test_there_are_examples():
    assert len(PYTHON) == 3 and len(FILES) == 2 and len(SHELL) == len(REPORTS) == 1


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: re.search(r"pyalloc[.\w]*", code)[0])
def test_python(run_python, code):
    if "prometheus" in code:
        pytest.importorskip("prometheus_client")
    if "opentelemetry" in code:
        pytest.importorskip("opentelemetry")
    result = run_python("-c", code)     # in a process of its own: live mode lasts
    assert result.stderr == "" and ("pyalloc_gc_heap_live_bytes 0.0\n" in result.stdout) == ("prometheus" in code)


def test_top():
    words = shlex.split(SHELL[0])
    command = [sys.executable if word == "python" else word for word in words]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYALLOC", "LD_PRELOAD"))}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert result.returncode == 0 and result.stderr == ""
    assert len(result.stdout.splitlines()) == 3 and "MiB in use" in result.stdout.splitlines()[-1]


def pytest_on(folder, name):
    (folder / name).write_text(FILES[name])
    (folder / "pytest.ini").write_text("[pytest]\n")
    return subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", name], capture_output=True,
                          text=True, cwd=folder, timeout=120)


def test_the_test_that_forgets(tmp_path):
    result = pytest_on(tmp_path, "test_cache.py")
    assert result.returncode == 1 and REPORTS[0] in result.stdout, result.stdout
    assert "1 passed, 1 error" in result.stdout


def test_the_tests_that_are_allowed_to(tmp_path):
    result = pytest_on(tmp_path, "test_allowed.py")
    assert result.returncode == 0 and "2 passed" in result.stdout, result.stdout


def test_the_metrics_of_the_page_exist():
    import pyalloc

    pytest.importorskip("prometheus_client")
    import pyalloc.prometheus

    names = {pyalloc.prometheus.family_name(name) for name in pyalloc.metrics()}
    table = re.findall(r"pyalloc_\w+", "".join(line for line in PAGE.splitlines() if line.startswith("| `")))
    assert len(table) == 3 and {re.sub(r"_(total|bucket)$", "", name) if name not in names else name
                                for name in table} <= names


def test_the_page_names_what_is_there():
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        from pyalloc.__main__ import main

        main(["top", "--help"])
    for option in ("--interval", "--count", "--json"):
        assert option in out.getvalue()
