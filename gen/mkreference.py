#!/usr/bin/env python3
"""Generates docs/reference/: what can be called, from where it is defined.

    python.md    public modules of the package: signatures and docstrings. Python code is read, not imported, so that
                 the text is the same under every version of Python; what is written in C is asked for its docstrings
                 and typed by its stub
    commands.md  `python -m pyalloc`, from its argument parser
    options.md   PYALLOC_* variables, from the core's list
    metrics.md   metrics(), from the core's list
    c.md         csrc/include/pyalloc.h and the inline header

A public module is a file of the package, or a folder with __init__.py, whose name has no underscore in front; new ones
are found.  So are modules beside the package that pyproject.toml names: pytest's plugin.  Needs the built package.

Usage: mkreference.py [--check]     (--check: exit 1 when a committed file differs)
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))     # the checkout's package, when none is installed

PACKAGE = ROOT / "pyalloc"
TARGET = ROOT / "docs" / "reference"
NOTE = "<!-- Made by gen/mkreference.py from {0}. Do not edit. -->\n\n"

#: Of names that no definition explains.
NOTES = {
    "__version__": "Version of the package, as text.",
    "lib": "The C interface, [c.md](c.md), through cffi: `pyalloc.lib.pa_malloc(64)`. Loaded when first asked for.",
    "ffi": "cffi's object for it: `pyalloc.ffi.new(\"pa_mem_stats *\")`.",
}
SCALARS = ("Types of the fields of a `Struct`: whole numbers of 8 to 64 bits, floating-point numbers of 32 and 64, and "
           "a truth value. An attribute gives an `int`, `float` or `bool`; a value that does not fit is an "
           "OverflowError.")


def markdown(doc: "str | None") -> str:
    """A docstring as Markdown: its roles and double backquotes."""
    text = inspect.cleandoc(doc or "")
    text = re.sub(r":(?:func|class|meth|data|attr):`~?\.?([\w.]+)`", r"`\1`", text)
    return re.sub(r"``([^`\n]+)``", r"`\1`", text)


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def table(head: "list[str]", rows: "list[list[str]]") -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(cell(one) for one in row) + " |" for row in rows]) + "\n"


# ---- Python


class Source:
    """One file, read."""

    def __init__(self, path: Path):
        self.text = path.read_text(encoding="utf-8")
        self.lines = self.text.splitlines()
        self.tree = ast.parse(self.text)
        self.doc = ast.get_docstring(self.tree)
        #: Text of strings that stand alone, by the line above them.
        self.below = {node.lineno - 1: " ".join(node.value.value.split()) for node in ast.walk(self.tree)
                      if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
                      and isinstance(node.value.value, str)}

    def definitions(self):
        """name -> def or class, at the top level or under an `if`; the last one wins, as it does when run."""
        found, waiting = {}, list(self.tree.body)
        while waiting:
            node = waiting.pop(0)
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found[node.name] = node
            elif isinstance(node, (ast.If, ast.Try)):
                waiting += [*node.body, *node.orelse]
        return found

    def constants(self):
        """name -> `NAME: type` at the top level."""
        return {node.target.id: node for node in self.tree.body
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}

    def imports(self):
        """name -> module it is from, of `from pyalloc... import name` anywhere in the file."""
        return {alias.asname or alias.name: node.module for node in ast.walk(self.tree)
                if isinstance(node, ast.ImportFrom) and node.module for alias in node.names}

    def names(self):
        """__all__, or what is defined here, has no underscore in front and is no hook of pytest's."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and any(getattr(one, "id", "") == "__all__" for one in node.targets):
                return list(ast.literal_eval(node.value))
        return [name for name in self.definitions() if not name.startswith(("_", "pytest_"))]

    def segment(self, node) -> str:
        return " ".join((ast.get_source_segment(self.text, node) or "").split())

    def signature(self, node: ast.FunctionDef, method: bool) -> str:
        """name(parameters) -> result, as written, without self."""
        args, shown = node.args, []
        positional = [*args.posonlyargs, *args.args]
        defaults = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)

        def one(argument, default, stars=""):
            text = stars + argument.arg + (f": {self.segment(argument.annotation)}" if argument.annotation else "")
            equals = " = " if argument.annotation else "="
            return text if default is None else text + equals + self.segment(default)

        for place, (argument, default) in enumerate(zip(positional, defaults)):
            if not (method and place == 0):
                shown.append(one(argument, default))
            if args.posonlyargs and place == len(args.posonlyargs) - 1 and shown:
                shown.append("/")
        if args.vararg:
            shown.append(one(args.vararg, None, "*"))
        elif args.kwonlyargs:
            shown.append("*")
        shown += [one(argument, default) for argument, default in zip(args.kwonlyargs, args.kw_defaults)]
        if args.kwarg:
            shown.append(one(args.kwarg, None, "**"))
        result = f" -> {self.segment(node.returns)}" if node.returns else ""
        text = f"{node.name}({', '.join(shown)}){result}"
        return text.replace("_SupportsBuffer", "SupportsBuffer").replace("_type[", "type[")

    def comment(self, node) -> str:
        """Behind a field or constant, `#:` lines above it, or a string below it."""
        line = self.lines[node.end_lineno - 1]
        match = re.search(r"\s# ?(.*)$", line[node.end_col_offset:])
        if match:
            return match.group(1)
        above, number = [], node.lineno - 2
        while number >= 0 and self.lines[number].strip().startswith("#:"):
            above.insert(0, self.lines[number].strip()[2:].strip())
            number -= 1
        return " ".join(above) or self.below.get(node.end_lineno, "")


def is_decorated(node, *names) -> bool:
    return any(getattr(one, "id", getattr(one, "attr", "")) in names for one in node.decorator_list)


def members(source: Source, node: ast.ClassDef, runtime) -> str:
    """Fields, properties and methods of a class; runtime: the class itself when it is written in C."""
    fields, parts = [], []
    for one in node.body:
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and not one.target.id.startswith("_"):
            fields.append([f"`{one.target.id}`", f"`{source.segment(one.annotation)}`", markdown(source.comment(one))])
        if not isinstance(one, ast.FunctionDef) or one.name.startswith("_") or is_decorated(one, "setter", "deleter"):
            continue
        doc = ast.get_docstring(one)
        if runtime is not None:
            doc = inspect.getdoc(getattr(runtime, one.name))
        shown = source.signature(one, method=not is_decorated(one, "staticmethod"))
        if is_decorated(one, "property"):
            shown = f"{one.name}{shown[shown.rindex(' -> '):].replace(' -> ', ': ') if ' -> ' in shown else ''}"
        parts.append(f"#### `{node.name}.{shown}`\n\n{markdown(doc)}\n")
    if fields and runtime is None:
        parts.insert(0, table(["field", "type", ""], fields))
    return "\n".join(parts)


def path_of(module: str) -> Path:
    return PACKAGE / (module.partition(".")[2].replace(".", "/") + ".py")


def constant(source: Source, node: ast.AnnAssign, prefix: str) -> str:
    kind = re.sub(r"^Final\[(.*)\]$", r"\1", source.segment(node.annotation))
    return f"### `{prefix}{node.target.id}: {kind}`\n\n{markdown(source.comment(node))}\n"


def entry(source: Source, node, listed: "list[str]", runtime=None, prefix: str = "") -> str:
    """A function or class with its docstring; listed: names that have an entry of their own."""
    doc = inspect.getdoc(runtime) if runtime is not None else ast.get_docstring(node)
    if isinstance(node, ast.FunctionDef):
        shown, returns = source.signature(node, method=False), source.segment(node.returns) if node.returns else ""
        if is_decorated(node, "fixture"):
            shown = f"{node.name}: {returns}"
        text = f"### `{prefix}{shown}`\n\n{markdown(doc)}\n"
        origin = source.imports().get(returns, "")
        of_result = Source(path_of(origin)) if origin.startswith("pyalloc._") and origin != "pyalloc._core" else source
        result = of_result.definitions().get(returns)
        if isinstance(result, ast.ClassDef) and not result.name.startswith("_") and result.name not in listed:
            text += "\n" + members(of_result, result, None)      # what it gives, which has no name of its own
        return text
    shown = f"class {prefix}{node.name}"
    for one in node.body:
        if isinstance(one, ast.FunctionDef) and one.name == "__init__" and runtime is None:
            shown += source.signature(one, method=True)[len("__init__"):].replace(" -> None", "")
    bases = [source.segment(base) for base in node.bases]
    bases = [base for base in bases if not base.startswith(("Generic", "Protocol"))]
    after = f"Bases: {', '.join(f'`{base}`' for base in bases)}.\n\n" if bases else ""
    return f"### `{shown}`\n\n{after}{markdown(doc)}\n\n{members(source, node, runtime)}"


def modules() -> "list[tuple[str, Path]]":
    found = [("pyalloc", PACKAGE / "__init__.py")]
    for path in sorted(PACKAGE.iterdir()):
        if path.name.startswith("_"):
            continue
        file = path / "__init__.py" if path.is_dir() else path
        if file.suffix == ".py" and file.is_file():
            found.append((f"pyalloc.{path.stem}", file))
    beside = re.search(r"^py-modules = \[(.*)\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    names = re.findall(r'"(\w+)"', beside.group(1)) if beside else []
    return found + [(name, ROOT / f"{name}.py") for name in names]


def of_module(name: str, path: Path, stub: Source, core) -> str:
    source = Source(path)
    own, imports = source.definitions(), source.imports()
    entries, scalars, listed = {}, [], source.names()
    for one in listed:
        origin = imports.get(one, "")
        if one in NOTES:
            entries[one] = f"### `{name}.{one}`\n\n{NOTES[one]}\n"
        elif one in own:
            entries[one] = entry(source, own[one], listed, prefix=f"{name}.")
        elif origin == "pyalloc._core" and one in stub.constants():
            entries[one] = constant(stub, stub.constants()[one], f"{name}.")
        elif origin == "pyalloc._core":
            entries[one] = entry(stub, stub.definitions()[one], listed, getattr(core, one), prefix=f"{name}.")
        elif origin.startswith("pyalloc._"):
            other = Source(path_of(origin))
            if one in other.definitions():
                entries[one] = entry(other, other.definitions()[one], listed, prefix=f"{name}.")
            else:
                scalars.append(one)
        elif f"pyalloc.{one}" not in dict(modules()):
            raise SystemExit(f"mkreference.py: {name}.{one} has no definition that is found; give it one, or a note")
    if scalars:
        scalars.sort(key=lambda one: (one.rstrip("0123456789"), len(one), one))
        entries[scalars[0]] = f"### {', '.join(f'`{one}`' for one in scalars)}\n\n{SCALARS}\n"
    order = sorted(entries, key=lambda one: (one.strip("_").lower(), one))
    return f"## `{name}`\n\n{markdown(source.doc)}\n\n" + "\n".join(entries[one] for one in order)


def python_page() -> str:
    from pyalloc import _core

    stub = Source(PACKAGE / "_core.pyi")
    text = "# Reference: Python\n\nEvery public name of the package. Sizes are bytes. Modules: "
    text += ", ".join(f"`{name}`" for name, _ in modules()) + ".\n\n"
    return text + "\n".join(of_module(name, path, stub, _core) for name, path in modules())


# ---- Commands, options, metrics


def help_of(action, prog: str) -> str:
    if not action.help or action.help == argparse.SUPPRESS:
        return ""
    values = {name: getattr(value, "__name__", value) for name, value in vars(action).items()}
    return str(action.help % {**values, "prog": prog})


def rows_of(parser) -> "list[list[str]]":
    rows = []
    for action in parser._actions:
        text = help_of(action, parser.prog)
        if not text or isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):
            continue
        value = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
        if action.choices:
            value = "{" + ",".join(str(one) for one in action.choices) + "}"
        names = [name + ("" if action.nargs == 0 else f" {value}") for name in action.option_strings] or [str(value)]
        rows.append([f"`{', '.join(names)}`", text])
    return rows


def commands_page() -> str:
    from pyalloc.__main__ import _parser

    parts = ["# Reference: commands\n\nEvery command of `python -m pyalloc`, or `pyalloc`, with its options.\n"]
    names = next(action for action in _parser(None)._actions if isinstance(action, argparse._SubParsersAction)).choices
    for name in names:
        # A command's modules are loaded for itself only, so each is asked by a parser of its own.
        action = next(one for one in _parser(name)._actions if isinstance(one, argparse._SubParsersAction))
        parser = action.choices[name]
        about = next(one.help for one in action._choices_actions if one.dest == name)
        usage = parser.usage or f"python -m pyalloc {name}" + (" [options]" if rows_of(parser) else "")
        shown = [f"## {name}\n", f"    {usage}\n", f"{about[0].upper()}{about[1:]}.\n"]
        if rows_of(parser):
            shown.append(table(["argument", "meaning"], rows_of(parser)))
        parts.append("\n".join(shown))
    return "\n".join(parts)


def options_page() -> str:
    from pyalloc._options import options

    rows = [[f"`{one.name}`", one.type.lower(), one.default and f"`{one.default}`", one.doc] for one in options()]
    return (
        "# Reference: options\n\nThe variables in the environment that the library reads, once, when it is loaded, "
        "preloaded or imported. `python -m pyalloc options` shows the values of a process. What is unknown or "
        "malformed is one line on stderr and otherwise ignored. `PYALLOC_DEBUG=name` is a key of that list: "
        "`PYALLOC_DEBUG=gctrace=1,scavtrace=1`. `GOGC`, `GOMEMLIMIT` and `GODEBUG` hold where ours is absent.\n\n"
        + table(["name", "type", "default", "what it does"], rows))


def metrics_page() -> str:
    import pyalloc

    rows = [[f"`{one.name}`", one.kind + (", cumulative" if one.cumulative else ""), one.doc]
            for one in pyalloc.metrics().values()]
    return (
        "# Reference: metrics\n\nWhat `pyalloc.metrics()` and `python -m pyalloc metrics` show. The unit stands behind "
        "the colon. Names that begin with `/pyalloc/` are ours, the others Go's. 18446744073709551615 stands for no "
        "limit and no goal.\n\n" + table(["name", "kind", "what it is"], rows))


# ---- C


def prose(comment: str) -> str:
    lines = [re.sub(r"^\s*\* ?", "", line) for line in comment.strip().splitlines()]
    return "\n".join(lines).strip().replace("*", "\\*")


def c_entries(text: str) -> "list[str]":
    """Headings, prose and declarations of a header, in its order."""
    found, code, said = [], [], ""

    def flush() -> None:
        nonlocal code, said
        groups = re.split(r"\n\n+", "\n".join(code).strip("\n"))
        for declarations in filter(None, groups):
            names = dict.fromkeys(re.findall(
                r"\b(pa_\w+)\(|^\} (\w+);|^typedef struct \w+ (\w+);|^enum \{ (PA_\w+)", declarations, re.M))
            title = ", ".join(f"`{next(filter(None, one))}`" for one in names)
            found.append(f"### {title}\n\n" + (f"{said}\n\n" if said else "") + f"```c\n{declarations}\n```\n")
            said = ""
        if said:
            found.append(said + "\n")
        code, said = [], ""

    position = 0
    for match in re.finditer(r"^/\*(.*?)\*/[ \t]*\n", text, re.S | re.M):
        code += text[position:match.start()].splitlines()
        position = match.end()
        flush()
        comment = match.group(1)
        section = re.match(r"\s*-{3,}\s*(.*?)\s*-{3,}\s*(?:\n|$)", comment)
        if section:
            title = re.sub(r"\s*\(DESIGN: (.*)\)", r": \1", section.group(1))
            found.append(f"## {title}\n")
            rest = prose(comment[section.end():])
            if rest:
                found.append(rest + "\n")
        else:
            said = prose(comment)
    code += text[position:].splitlines()
    flush()
    return found


def c_page() -> str:
    text = (PACKAGE.parent / "csrc/include/pyalloc.h").read_text(encoding="utf-8")
    essay = prose(text[2:text.index("*/")])
    between = text[text.index("/* cffi: begin */") + len("/* cffi: begin */"):text.index("/* cffi: end */")]
    inline = (PACKAGE.parent / "csrc/include/pyalloc_inline.h").read_text(encoding="utf-8")
    calls = re.findall(r"^static inline \w+ \*?(pa_\w+_inline)\(", inline, re.M)
    parts = [
        "# Reference: C", "Every declaration of `pyalloc.h`, from the header's own text.",
        essay.partition("\n")[2].strip(), "\n".join(c_entries(between)), "## Inlined calls: pyalloc_inline.h",
        prose(inline[2:inline.index("*/")]).partition("\n")[2].strip(), ", ".join(f"`{name}`" for name in calls),
    ]
    return "\n\n".join(parts)


PAGES = {
    "python.md": (python_page, "the package's docstrings and stub"),
    "commands.md": (commands_page, "pyalloc/__main__.py"),
    "options.md": (options_page, "csrc/base/options.h"),
    "metrics.md": (metrics_page, "csrc/api/metrics.c"),
    "c.md": (c_page, "csrc/include/"),
}


def render() -> "dict[str, str]":
    made = {}
    for name, (page, origin) in PAGES.items():
        text = page()
        heading, _, rest = text.partition("\n\n")
        text = f"{heading}\n\n{NOTE.format(origin)}{rest}"
        made[name] = re.sub(r"\n{3,}", "\n\n", text).rstrip("\n") + "\n"
    return made


def main() -> None:
    made = render()
    if sys.argv[1:] == ["--check"]:
        wrong = [name for name, text in made.items()
                 if not (TARGET / name).exists() or (TARGET / name).read_text(encoding="utf-8") != text]
        wrong += [path.name for path in TARGET.glob("*.md") if path.name not in made]
        if wrong:
            sys.exit(f"docs/reference: {', '.join(wrong)}: not what {Path(__file__).name} makes; run it and commit")
        return
    TARGET.mkdir(exist_ok=True)
    for name, text in made.items():
        (TARGET / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
