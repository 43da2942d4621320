"""Every example of the README and of docs/ runs as a reader would run it, and prints what the page says."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import docpages
from docpages import ROOT, PageError, blocks_of, output_matches

DRIVER = Path(__file__).with_name("docdriver.py")
PAGES = [path.relative_to(ROOT).as_posix() for path in docpages.pages()]
NOT_RUN_AT_MOST = 8     # in all pages together
TUNING = ("PYALLOC_", "GOGC", "GOMEMLIMIT", "GODEBUG", "LD_PRELOAD", "PYTHONMALLOC", "MALLOC_")


def blocks(page):
    return blocks_of((ROOT / page).read_text(encoding="utf-8"), page)


def is_missing(block):
    def has(module):
        try:
            return importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:         # of the package that it is in
            return False

    return [name for name in block.needs if not has(name)]


def run(found, folder):
    """Runs blocks of one page in a fresh process; gives (block, status, output) of each that was tried."""
    results = folder / "results.json"
    source = folder / "blocks.json"
    source.write_text(json.dumps([{**dataclasses.asdict(block), "where": block.where} for block in found]))
    work = folder / "work"
    work.mkdir(exist_ok=True)
    for name in ("bench", "csrc", "docs"):
        if not (work / name).exists():
            (work / name).symlink_to(ROOT / name)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(TUNING)}
    environment.update(MPLBACKEND="Agg", PYTHONIOENCODING="utf-8", COLUMNS="200",
                       PATH=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]))
    done = subprocess.run([sys.executable, str(DRIVER), str(source), str(results)], cwd=work, env=environment,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    tried = json.loads(results.read_text()) if results.exists() else []
    results.unlink(missing_ok=True)
    assert done.returncode == 0, (
        f"{found[0].page}: the process ended with {done.returncode} after {len(tried)} of {len(found)} blocks\n"
        f"{done.stdout}{done.stderr}")
    return [(block, result["status"], result["output"]) for block, result in zip(found, tried)]


def check(found, folder):
    """What is wrong, as text."""
    wrong = []
    for block, status, output in run(found, folder):
        if status == "failed":
            wrong.append(f"{block.where} failed:\n{output}")
        elif block.output is not None and not output_matches(block.output, output, block.figures_vary):
            wrong.append(f"{block.where} printed\n{output}and not\n{block.output}")
    return wrong


def executed(page):
    return [block for block in blocks(page)
            if block.not_run is None and (block.language in docpages.EXECUTED or block.file)]


@pytest.mark.parametrize("page", PAGES)
def test_page(page, tmp_path):
    found = executed(page)
    missing = [(block, is_missing(block)) for block in found if is_missing(block)]
    ready = [block for block in found if not is_missing(block)]
    for block in ready:
        if block.file:
            later = [one for one in ready if one.language == "sh" and one.line > block.line]
            assert any(block.file in one.code for one in later), f"{block.where}: nothing runs {block.file}"
    wrong = []
    for number, block in enumerate([block for block in ready if block.alone]):
        (tmp_path / str(number)).mkdir()
        wrong += check([block], tmp_path / str(number))
    together = [block for block in ready if not block.alone]
    if together:
        wrong += check(together, tmp_path)
    assert not wrong, "\n".join(wrong)
    if missing:
        pytest.skip("; ".join(f"{block.where} needs {', '.join(names)}" for block, names in missing))


def test_few_blocks_are_not_run():
    found = [block for page in PAGES for block in blocks(page) if block.not_run is not None]
    reasons = [f"{block.where}: {block.not_run}" for block in found]
    assert len(reasons) <= NOT_RUN_AT_MOST, "\n".join(reasons)


def test_there_are_examples():
    assert [block for block in executed("README.md") if block.language == "python"], "the README lost its examples"


# ---- The checks themselves can fail


def page_of(*parts):
    return blocks_of("\n".join(f"```{info}\n{code}\n```\n" for info, code in parts), "made-up.md")


def test_blocks_of_a_page_share_names_and_output_is_compared(tmp_path):
    found = page_of(("python", "x = 41"), ("pycon", ">>> x + 1\n42\n>>> y = x"), ("python", "print(y)"),
                    ("text output", "41"), ("sh", "echo 7 times"), ("text output figures-vary", "12,345.6 times"))
    assert check(found, tmp_path) == []


@pytest.mark.parametrize("parts, says", [
    ([("python", "import math\nmath.no_such_name")], "line 3"),     # as the page counts
    ([("python", "raise SystemExit(0)")], "SystemExit"),
    ([("sh", "false\necho on")], "exit code 1"),
    ([("sh", "no-such-command | cat")], "exit code 127"),
    ([("pycon", ">>> 1 + 1\n3")], "Expected"),
    ([("pycon", ">>> 1 + 1\n2\n>>> undefined")], "NameError"),
    ([("python", "print(2)"), ("text output", "3")], "and not"),
    ([("python", "print('2 MiB')"), ("text output figures-vary", "3 KiB")], "and not"),
    ([("python", "print('one\\ntwo')"), ("text output", "one")], "and not"),
    ([("python alone", "x = 1"), ("python", "print(x)")], "NameError"),
])
def test_a_wrong_example_is_found(parts, says, tmp_path):
    found = page_of(*parts)
    wrong = check([block for block in found if not block.alone], tmp_path)
    assert len(wrong) == 1 and says in wrong[0]


def test_a_process_that_dies_is_found(tmp_path):
    with pytest.raises(AssertionError, match="after 1 of 2 blocks"):
        check(page_of(("python", "import os"), ("python", "os._exit(3)")), tmp_path)


@pytest.mark.parametrize("text, says", [
    ("```py\nx\n```\n", "no language"), ("```bash\nx\n```\n", "no language"), ("```sh no-run\nx\n```\n", "reason"),
    ("```sh no-run: no\nx\n```\n", "reason"), ("```c\nint x;\n```\n", "file="), ("```python fast\nx\n```\n", "'fast'"),
    ("```text output\nx\n```\n", "belongs to no block"), ("```python\nx\n", "does not end"),
])
def test_an_info_string_that_means_nothing_is_found(text, says):
    with pytest.raises(PageError, match=says):
        blocks_of(text, "made-up.md")


@pytest.mark.parametrize("declared, printed, same", [
    ("a ... z", "a b c z\n", True), ("a ... z", "a b c\n", False), ("a\n...\nz", "a\nb\nc\nz\n", True),
    ("a\n...\nz", "a\nz\n", True), ("a\n...\nz", "a\nz\nb\n", False), ("a  b", "a b\n", True), ("a.b", "axb\n", False),
])
def test_how_output_is_compared(declared, printed, same):
    assert output_matches(declared, printed) is same


def test_what_a_block_asks_for():
    found = page_of(("python needs=no_such_module.part,json", "x"), ("python", "# file: a.py\nx"),
                    ("c file=b.c", "int x;"))
    assert is_missing(found[0]) == ["no_such_module.part"]
    assert [block.file for block in found] == [None, "a.py", "b.c"]


def test_figures_may_vary_but_not_their_number():
    assert output_matches("rss 12.5 MiB of 1,024", "rss   7 MiB of 99\n", figures_vary=True)
    assert not output_matches("rss 12.5 MiB of 1,024", "rss 7 MiB of none\n", figures_vary=True)
    assert not output_matches("rss 12.5 MiB", "rss 7 MiB 8\n", figures_vary=True)
