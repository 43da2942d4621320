"""The generated pages: complete, no entry without a word, and current (tests/conventions runs every generator)."""

import importlib.util
import re

import pytest

import pyalloc
from pyalloc import __main__ as commands
from pyalloc._options import options


@pytest.fixture(scope="module")
def page(root):
    return lambda name: (root / "docs" / "reference" / name).read_text(encoding="utf-8")


def load(root, name):
    spec = importlib.util.spec_from_file_location(name, root / "gen" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_there(page):
    headings = "\n".join(line for line in page("python.md").splitlines() if line.startswith("#"))
    missing = [name for name in pyalloc.__all__ if not re.search(rf"[`.]{re.escape(name)}\b", headings)]
    assert not missing


def test_every_function_of_the_header_is_there(root, page):
    header = (root / "csrc/include/pyalloc.h").read_text(encoding="utf-8")
    code = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
    functions = set(re.findall(r"\b(pa_\w+)\(", code))
    assert len(functions) > 60
    headings = " ".join(line for line in page("c.md").splitlines() if line.startswith("### "))
    assert not {name for name in functions if f"`{name}`" not in headings}


def test_every_option_metric_and_command_is_there(page):
    assert not [one.name for one in options() if f"`{one.name}`" not in page("options.md")]
    assert not [name for name in pyalloc.metrics() if f"`{name}`" not in page("metrics.md")]
    choices = next(action.choices for action in commands._parser(None)._actions if action.dest == "command")
    assert not [name for name in choices if f"## {name}\n" not in page("commands.md")]


@pytest.mark.parametrize("name", ["python.md", "c.md"])
def test_no_entry_is_without_a_word(page, name):
    # Types and constants of the header have their words at the fields, in the declaration below the heading.
    empty = re.findall(r"^#{3,4} (.*)\n+(?=#|\Z)", page(name), re.M)
    assert not empty, "without a docstring"


def test_tables_have_a_description_in_every_row(page):
    for name in ("commands.md", "options.md", "metrics.md"):
        assert not re.findall(r"^\|.*\|\s*\|$", page(name), re.M)


def test_a_difference_is_found(root, tmp_path, monkeypatch):
    """Every page of --check counts: one word changed, one page lost, one too many."""
    module = load(root, "mkreference")
    monkeypatch.setattr(module, "TARGET", tmp_path)
    monkeypatch.setattr("sys.argv", ["mkreference.py"])
    module.main()
    monkeypatch.setattr("sys.argv", ["mkreference.py", "--check"])
    module.main()
    changed = tmp_path / "options.md"
    text = changed.read_text(encoding="utf-8")
    changed.write_text(text.replace("500", "501"), encoding="utf-8")
    with pytest.raises(SystemExit, match="options.md"):
        module.main()
    changed.unlink()
    with pytest.raises(SystemExit, match="options.md"):
        module.main()
    changed.write_text(text, encoding="utf-8")
    (tmp_path / "old.md").write_text("")
    with pytest.raises(SystemExit, match="old.md"):
        module.main()


def test_the_index_wants_a_title_and_a_sentence(root, tmp_path, monkeypatch):
    module = load(root, "mkindex")
    monkeypatch.setattr(module, "DOCS", tmp_path)
    path = tmp_path / "how-to-x.md"
    path.write_text("# X\n\nDo [this](that.md): then that. And so on.\n\nMore.\n")
    assert module.about(path) == ("X", "Do this")
    for text in ("X without a title\n", "# X\n", "# X\n\n```sh\ntrue\n```\n", "# X\n\n| a |\n"):
        path.write_text(text)
        with pytest.raises(SystemExit, match="how-to-x.md"):
            module.about(path)
