"""What the pages point to exists: other pages, headings, files of the sources, names of the package, variables."""

import re

import pytest

import pyalloc
from docpages import ROOT
from pyalloc._options import options

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").rglob("*.md"),
                *(ROOT / "pyalloc").rglob("*.md")])
LAYERS = sorted(path.name for path in (ROOT / "csrc").iterdir() if path.is_dir())
FILE = re.compile(r"(?<![\w./*{-])((?:[\w.-]+/)+[\w.-]+\.(?:c|h|cc|py|pyi|md|tsv|map|ld))(?![\w/*])")
BASES = (ROOT, ROOT / "csrc", ROOT / "pyalloc", ROOT / "docs", ROOT / "bench", ROOT / "tests")


def name(path):
    return path.relative_to(ROOT).as_posix()


def without_fences(text):
    return re.sub(r"^(`{3,})[^\n]*\n.*?^\1\s*$", "", text, flags=re.S | re.M)


def without_code(text):
    return re.sub(r"`+[^`\n]+`+", "", without_fences(text))


def spans(text):
    """What stands in backquotes."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", without_fences(text))


def anchors(text):
    """Ids of the headings, as hosts of Markdown make them."""
    found = []
    for heading in re.findall(r"^#+ +(.*?)\s*$", without_fences(text), re.M):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        found.append(re.sub(r"[^\w\- ]", "", heading).replace(" ", "-"))
    return found


def broken_links(path, text):
    wrong = []
    for target in re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", without_code(text)):
        if re.match(r"[a-z]+:", target):
            continue
        where, _, anchor = target.partition("#")
        other = (path.parent / where).resolve() if where else path
        if not other.exists() or ROOT not in [other, *other.parents]:
            wrong.append(target)
        elif anchor and other.suffix == ".md":
            other_text = text if other == path else other.read_text(encoding="utf-8")
            if anchor not in anchors(other_text):
                wrong.append(target)
    return wrong


def missing_files(text):
    """`heap/span.c`, `gc/mark`, `bench/rss/waste.py`: what names a file of the sources and is none."""
    wrong = []
    for span in spans(text):
        for word in FILE.findall(span):
            if "NAME" not in word and not any((base / word).is_file() for base in BASES):
                wrong.append(word)
        layer = re.fullmatch(r"(\w+)/(\w+)", span)
        if layer and layer.group(1) in LAYERS:
            folder = ROOT / "csrc" / layer.group(1)
            if not (folder / layer.group(2)).is_dir() and not list(folder.glob(layer.group(2) + ".[ch]")):
                wrong.append(span)
    return wrong


def missing_names(text):
    """pyalloc.x in text or examples, and PYALLOC_X, that do not exist."""
    wrong = []
    instruments = {"pyalloc" + re.sub("[/:]", ".", metric).replace("-", "_") for metric in pyalloc.metrics()}
    text = re.sub(r"\bpyalloc(?:\.\w+){2,}", lambda m: "" if m[0] in instruments else m[0], text)    # OpenTelemetry's
    for one in set(re.findall(r"(?<![\w/.-])pyalloc\.(\w+)", text)) - {"h", "c", "so", "md"}:
        module = any((ROOT / "pyalloc" / part).exists() for part in (f"{one}.py", f"{one}/__init__.py"))
        if not (module or hasattr(pyalloc, one)):
            wrong.append(f"pyalloc.{one}")
    known = {option.name for option in options()}
    of_tools = ("PYALLOC_BUILD_", "PYALLOC_BENCH_", "PYALLOC_RECORD_", "PYALLOC_SOAK_")
    for variable in set(re.findall(r"\bPYALLOC_[A-Z_]*[A-Z]\b", text)):
        if variable not in known | {"PYALLOC_DEBUG"} and not variable.startswith(of_tools):
            wrong.append(variable)
    return wrong


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_somewhere(path):
    assert not broken_links(path, path.read_text(encoding="utf-8"))


# Decisions are of their day: what they name may have gone since.
LIVING = [path for path in PAGES if "decisions" not in path.parts]


@pytest.mark.parametrize("path", LIVING, ids=name)
def test_files_and_names_exist(path):
    text = path.read_text(encoding="utf-8")
    assert not missing_files(text)
    assert not missing_names(text)


@pytest.mark.parametrize("path", LIVING, ids=name)
def test_commands_exist(path):
    """`python -m pyalloc x` and the scripts of bench/."""
    from pyalloc.__main__ import _parser

    choices = next(action.choices for action in _parser(None)._actions if action.dest == "command")
    text = path.read_text(encoding="utf-8")
    used = set(re.findall(r"python3? -m pyalloc ([a-z]\w*)", text))
    assert used <= set(choices)
    scripts = re.findall(r"python3? ((?:bench|gen)/[\w/]+\.py)", text)
    assert not [script for script in scripts if "NAME" not in script and not (ROOT / script).is_file()]


def test_what_is_wrong_is_found():
    path = ROOT / "docs" / "conventions.md"
    text = "# One two\n\n[a](glossary.md) [b](#one-two) [c](glossary.md#the-collector) `[no](link.md)`\n"
    assert broken_links(path, text) == []
    wrong = "[a](no.md) [b](#three) [c](glossary.md#nowhere) [d](../../outside.md)"
    assert broken_links(path, wrong) == ["no.md", "#three", "glossary.md#nowhere", "../../outside.md"]
    assert missing_files("`heap/span.c` `gc/mark` `csrc/base/` `a/b`") == []
    assert missing_files("`pages/no.c` `gc/none`") == ["pages/no.c", "gc/none"]
    assert missing_names("pyalloc.alloc pyalloc.preload pyalloc.h PYALLOC_GOGC `PYALLOC_*`") == []
    assert missing_names("pyalloc.gone PYALLOC_GONE") == ["pyalloc.gone", "PYALLOC_GONE"]
