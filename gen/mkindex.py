#!/usr/bin/env python3
"""Generates docs/README.md: the pages of docs/ by kind, each with its title and first sentence.

The kind is in the name: tutorial*.md, how-to-*.md, reference/, decisions/; everything else explains.  A new page is
found by itself, so it must have a title and begin with a sentence that says what it is about.

Usage: mkindex.py [--check]     (--check: exit 1 when the committed file differs)
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
TARGET = DOCS / "README.md"
KINDS = (
    ("Tutorial", "from nothing to a service that gives memory back", lambda p: p.name.startswith("tutorial")),
    ("How-to", "one task each", lambda p: p.name.startswith("how-to-")),
    ("Reference", "made from the sources", lambda p: p.parent.name == "reference"),
    ("Explanation", "how it works and why", lambda p: p.parent == DOCS),
    ("Decisions", "what was measured and chosen, each as of its day", lambda p: p.parent.name == "decisions"),
)
#: Explanations in an order to read them; others follow by name.
ORDER = ("tuning", "debugging-by-symptom", "report", "heap-profiles", "path-of-an-allocation", "path-of-a-collection",
         "statistics", "drop-in", "why-not-generational-or-compacting", "glossary", "conventions")


def about(path: Path) -> "tuple[str, str]":
    """Title and first sentence."""
    text = re.sub(r"<!--.*?-->", "", path.read_text(encoding="utf-8"), flags=re.S)
    title = re.match(r"\s*# (.+)\n", text)
    body = text[title.end():] if title else ""
    paragraph = re.match(r"\s*(?!```|[#|>\s]|- )(.+?)(?:\n\s*\n|\Z)", body, re.S)
    if not title or not paragraph:
        raise SystemExit(f"docs/{path.relative_to(DOCS)}: begin with a title and a sentence that says what it is about")
    sentence = re.match(r".+?[.:](?=\s|$)", " ".join(paragraph.group(1).split()))
    said = sentence.group(0) if sentence else " ".join(paragraph.group(1).split())
    return title.group(1).strip(), re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", said).rstrip(".:")


def render() -> str:
    pages = [path for path in sorted(DOCS.rglob("*.md")) if path != TARGET]
    lines = ["# Documentation", "", "<!-- Made by gen/mkindex.py from the pages. Do not edit. -->"]
    for kind, meaning, belongs in KINDS:
        mine = [path for path in pages if belongs(path)]
        pages = [path for path in pages if path not in mine]
        mine.sort(key=lambda path: (ORDER.index(path.stem) if path.stem in ORDER else len(ORDER), path.name))
        lines += ["", f"## {kind}: {meaning}", ""]
        for path in mine:
            title, said = about(path)
            where = path.relative_to(DOCS).as_posix()
            lines.append(f"- [{title}]({where})" + ("" if kind == "Decisions" else f": {said}"))
    if pages:
        raise SystemExit(f"mkindex.py: of no kind: {', '.join(path.name for path in pages)}")
    lines += ["", "A program in C with managed objects: [examples/collector.c](examples/collector.c). The benchmarks "
              "and experiments have their own page: [bench/README.md](../bench/README.md)."]
    return "\n".join(lines) + "\n"


def main() -> None:
    text = render()
    if sys.argv[1:] == ["--check"]:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
            sys.exit("docs/README.md is not what mkindex.py makes: run it and commit the result")
        return
    TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
