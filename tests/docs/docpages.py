"""The fenced blocks of the README and of docs/, and what their info strings ask for.

    ```python                   run, in one process with the other python and pycon blocks of the page, in order
    ```python alone             run in a process of its own
    ```pycon                    run as a doctest, in the page's process; numbers and ... as below
    ```sh                       run by bash -euo pipefail, in the page's folder, which is empty at first but for links
                                to the checkout's bench, csrc and docs
    ```python file=app.py       written to that file of the page's folder; a later sh block must name it. Any language;
                                a first line `# file: app.py` says the same
    ```python needs=pandas      left out where that module is missing; several are joined by commas
    ```sh no-run: reason        not run; says why
    ```text output              what the block above it prints, line by line: ... stands for anything in a line, and
                                alone in a line for any lines; blanks count as one
    ```text output figures-vary the same, and any number stands for any number

Blocks without a language, and text, are pictures, formats and the like. Every other language must be one of those
above, so that no example escapes by its spelling.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import List, Optional

ROOT = Path(__file__).resolve().parents[2]
EXECUTED = ("python", "pycon", "sh")
WITH_FILE_ONLY = ("c", "html", "ini", "toml")        # run by what names the file
SILENT = ("", "text")
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


class PageError(Exception):
    """A block whose info string says nothing that is understood."""


@dataclass
class Block:
    page: str
    line: int               # of the first line inside
    language: str
    code: str
    file: Optional[str] = None
    needs: List[str] = field(default_factory=list)
    alone: bool = False
    not_run: Optional[str] = None
    output: Optional[str] = None        # of the block below it
    figures_vary: bool = False

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def pages(root: Path = ROOT) -> "List[Path]":
    """README and docs/, without what is generated and without decisions, which are of their day."""
    found = [root / "README.md"]
    for path in sorted((root / "docs").rglob("*.md")):
        if path.relative_to(root / "docs").parts[0] not in ("reference", "decisions"):
            found.append(path)
    return found


def _block(page: str, line: int, info: str, code: str) -> Block:
    language, _, rest = info.partition(" ")
    block = Block(page, line, language, code)
    rest, colon, reason = rest.partition("no-run")
    if colon:
        block.not_run = reason.lstrip(":").strip()
        if len(block.not_run) < 10:
            raise PageError(f"{block.where}: ```{language} no-run: REASON, and the reason is missing")
    for word in rest.split():
        name, _, value = word.partition("=")
        if name == "file" and re.fullmatch(r"[\w.-]+", value):
            block.file = value
        elif name == "needs" and value:
            block.needs = value.split(",")
        elif word == "alone":
            block.alone = True
        else:
            raise PageError(f"{block.where}: {word!r} means nothing in an info string")
    named = re.match(r"# file: ([\w.-]+)\n", code)
    if named and block.file is None:
        block.file = named.group(1)
    if language not in (*EXECUTED, *WITH_FILE_ONLY, *SILENT):
        raise PageError(f"{block.where}: no language of the examples: {language!r}; one of {EXECUTED + WITH_FILE_ONLY}")
    if language in WITH_FILE_ONLY and block.file is None and block.not_run is None:
        raise PageError(f"{block.where}: ```{language} needs file=NAME, and something that runs it, or no-run: REASON")
    return block


def blocks_of(text: str, page: str) -> "List[Block]":
    """Every block of a page; those that declare an output become part of the block above."""
    found: "List[Block]" = []
    fence, info, start, body = "", "", 0, []       # type: str, str, int, List[str]
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not fence:
            match = re.match(r"(`{3,}|~{3,})\s*(.*)$", stripped)
            if match:
                fence, info, start, body = match.group(1), match.group(2).strip(), number + 1, []
            continue
        if stripped != fence:
            body.append(line)
            continue
        code, fence = textwrap.dedent("\n".join(body) + "\n"), ""
        words = info.split()
        if words[:2] == ["text", "output"]:
            stray = not found or found[-1].output is not None or found[-1].language in SILENT
            if stray or set(words[2:]) - {"figures-vary"}:
                raise PageError(f"{page}:{start}: this output belongs to no block")
            found[-1].output, found[-1].figures_vary = code, "figures-vary" in words
        else:
            found.append(_block(page, start, info, code))
    if fence:
        raise PageError(f"{page}:{start}: the block does not end")
    return found


def _line_pattern(line: str, figures_vary: bool) -> str:
    pieces = []
    for piece in re.split(r"(\.\.\.)", " ".join(line.split())):
        if piece == "...":
            pieces.append(".*")
        elif figures_vary:
            pieces.append(NUMBER.pattern.join(re.escape(text) for text in NUMBER.split(piece)))
        else:
            pieces.append(re.escape(piece))
    return "".join(pieces)


def output_matches(declared: str, printed: str, figures_vary: bool = False) -> bool:
    """Is what was printed what the page says?"""
    pattern = ""
    for line in declared.strip("\n").splitlines():
        pattern += r"(?:[^\n]*\n)*" if line.strip() == "..." else _line_pattern(line, figures_vary) + r"\n"
    lines = [" ".join(line.split()) for line in printed.rstrip("\n").splitlines()]
    return re.fullmatch(pattern, "".join(line + "\n" for line in lines)) is not None
