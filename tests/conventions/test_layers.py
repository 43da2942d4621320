"""docs/conventions.md, as far as a machine can check it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"

#: What each layer may include besides itself; order of docs/conventions.md.
CHAIN = ["include", "base", "sys", "pages", "heap", "world", "gc", "api"]
MAY_INCLUDE = {layer: set(CHAIN[: i + 1]) for i, layer in enumerate(CHAIN)}
MAY_INCLUDE["python"] = {*CHAIN, "python"}
MAY_INCLUDE["preload"] = {*CHAIN, "preload"}
MAY_INCLUDE["export"] = {*CHAIN, "export"}  # test builds only; neither Python nor preload is in them

C_FILES = sorted([*CSRC.rglob("*.c"), *CSRC.rglob("*.h")])
MAX_LINES = 600
MAX_COLUMNS = 120  # where it hurts; the aim is 110


def name(path):
    return str(path.relative_to(ROOT))


def layer_of(path):
    return path.relative_to(CSRC).parts[0]


def without_comments(text):
    """C text with comments blanked, line numbers kept."""
    def blank(match):
        return match.group(0) if match.group(0)[0] == '"' else re.sub(r"[^\n]", " ", match.group(0))

    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', blank, text, flags=re.S)


def is_generated(text):
    return "generated" in text[:300].lower()


def violations_of_layers(path, text):
    layer = layer_of(path)
    found = []
    for number, line in enumerate(without_comments(text).splitlines(), 1):
        quoted = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
        if quoted:
            target = quoted.group(1)
            if layer == "include" and (path.parent / target).is_file():
                continue    # public headers name each other as programs see them
            if "/" not in target or ".." in target:
                found.append(f"{number}: {target}: name the layer")
            elif target.split("/")[0] not in MAY_INCLUDE[layer]:
                found.append(f"{number}: {layer} must not include {target}")
        if re.match(r"\s*#\s*include\s*<sys/mman\.h>", line) and path != CSRC / "sys" / "vm_linux.c":
            found.append(f"{number}: only sys/vm_linux.c talks to mmap")
        if re.match(r"\s*#\s*include\s*<Python\.h>", line) and layer != "python":
            found.append(f"{number}: only python/ knows CPython")
    return found


def violations_of_conditionals(path, text):
    """#if and its family outside base/ and sys/vm_linux.c, but for include guards and __cplusplus."""
    if layer_of(path) == "base" or path == CSRC / "sys" / "vm_linux.c":
        return []
    guard = re.search(r"#ifndef (\w+)\s*\n\s*#define \1\b", text)
    lines = without_comments(text).splitlines()
    found, stack = [], []
    for number, line in enumerate(lines, 1):
        directive = re.match(r"\s*#\s*(if|ifdef|ifndef|elif|else|endif)\b\s*(.*)", line)
        if not directive:
            continue
        word, rest = directive.group(1), directive.group(2).strip()
        if word in ("if", "ifdef", "ifndef"):
            allowed = path.suffix == ".h" and (
                (word == "ifdef" and rest == "__cplusplus") or (word == "ifndef" and guard and rest == guard.group(1)))
            stack.append(allowed)
        allowed = bool(stack and stack[-1]) and word not in ("elif", "else")
        if not allowed:
            found.append(f"{number}: #{word} {rest}")
        if word == "endif" and stack:
            stack.pop()
    return found


def test_there_is_something_to_check():
    assert {"base", "sys", "pages", "heap", "world", "api", "python", "include"} <= {layer_of(path) for path in C_FILES}


def test_every_folder_is_a_layer():
    assert {path.name for path in CSRC.iterdir() if path.is_dir()} <= set(MAY_INCLUDE)


@pytest.mark.parametrize("path", C_FILES, ids=name)
def test_includes_point_down(path):
    assert not violations_of_layers(path, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", C_FILES, ids=name)
def test_conditional_compilation_stays_below(path):
    assert not violations_of_conditionals(path, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", [path for path in C_FILES if path.suffix == ".c"], ids=name)
def test_every_source_opens_with_an_essay(path):
    text = path.read_text(encoding="utf-8")
    essay = re.match(r"/\*(.*?)\*/", text, re.S)
    assert essay, "the file does not open with a comment"
    assert essay.group(1).split()[:2] == [path.name, "-"] or is_generated(text), "open with: <file> - ..."
    assert len(essay.group(1).split()) >= 12, "an essay says what the file owns, its locks and its idea"


@pytest.mark.parametrize("path", [path for path in C_FILES if path.suffix == ".h"], ids=name)
def test_every_header_says_what_it_is_and_has_a_guard(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("/* "), "the file does not open with a comment"
    assert re.search(r"#ifndef (PA\w*_H|PYALLOC\w*_H)\n#define \1\n", text) or is_generated(text)


def source_files():
    listed = [ROOT / "setup.py", *C_FILES]
    for folder, patterns in (("pyalloc", ("*.py", "*.pyi")), ("gen", ("*.py",)), ("tests", ("*.py", "*.c", "*.h")),
                             ("bench", ("*.py", "*.c", "*.h"))):
        listed += [path for pattern in patterns for path in (ROOT / folder).rglob(pattern)]
    return sorted(path for path in listed if path.is_file())


@pytest.mark.parametrize("path", source_files(), ids=name)
def test_size_of_files(path):
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    if path.suffix in (".h", ".c") and is_generated(text):
        return
    assert len(lines) <= MAX_LINES, f"{len(lines)} lines: one concept, one file"
    long = [f"{number}: {len(line)} columns" for number, line in enumerate(lines, 1) if len(line) > MAX_COLUMNS]
    assert not long
    assert "\t" not in text, "indent with spaces"


@pytest.mark.parametrize("path", [*source_files(), *sorted((ROOT / "docs").rglob("*.md"))], ids=name)
def test_no_paths_of_one_machine(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])/(?:home|root|work|Users)/\w", text)


@pytest.mark.parametrize("path", sorted((ROOT / "gen").glob("*.py")), ids=name)
def test_generated_files_are_current(path):
    result = subprocess.run([sys.executable, str(path), "--check"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


# ---- The checks themselves can fail


def test_the_layer_check_sees_violations():
    path = CSRC / "pages" / "made_up.c"
    good = '#include "pages/chunk.h"\n#include "base/bits.h"\n'
    text = good + '#include "heap/span.h"\n#include "chunk.h"\n#include <sys/mman.h>\n'
    assert [line.split(":")[0] for line in violations_of_layers(path, text)] == ["3", "4", "5"]
    assert not violations_of_layers(path, '/* #include "heap/span.h" */\n')
    assert violations_of_layers(CSRC / "preload" / "x.c", '#include "python/core.h"\n')
    assert violations_of_layers(CSRC / "python" / "x.c", '#include "preload/core.h"\n')


def test_the_conditional_check_sees_violations():
    header = CSRC / "heap" / "made_up.h"
    guard = "#ifndef PA_X_H\n#define PA_X_H\n"
    assert not violations_of_conditionals(header, guard + '#ifdef __cplusplus\nextern "C" {\n#endif\n#endif\n')
    assert violations_of_conditionals(header, guard + "#ifdef __linux__\n#endif\n#endif\n")
    assert violations_of_conditionals(header, guard + "#ifdef __cplusplus\n#else\n#endif\n#endif\n")
    assert violations_of_conditionals(CSRC / "heap" / "x.c", "#if DEBUG\n#endif\n")
    assert not violations_of_conditionals(CSRC / "base" / "x.c", "#if DEBUG\n#endif\n")
