#!/usr/bin/env python3
"""pyalloc's collector beside Go's and Boehm's: the same work in each, one run, ratios first, bars beside them.

    python bench/anchors/run.py                         everything; an hour and more on two processors
    python bench/anchors/run.py --scale 0.01            a minute and a half, to see that all works
    python bench/anchors/run.py --only trees,alloc-* --rounds 9
    python bench/anchors/run.py --lib pyalloc/libpyalloc.so --json out.json

Each round runs each test with each collector in a fresh process, in turn; ratios are paired within a round, and
the table shows their medians.  A collector that is not installed is skipped, with a line that says how to get it.
Exit code: 0, 1 when a bar is not met (--scale 1 only) or a program failed, 2 for what the caller can mend.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.append(str(Path(__file__).resolve().parents[2]))       # the tree's package, when none is installed

import catalog  # noqa: E402
import programs  # noqa: E402
from catalog import ALL, PYALLOC, Clause, Test  # noqa: E402
from programs import AnchorError, Collector  # noqa: E402

from pyalloc._bench import report, stats  # noqa: E402
from pyalloc._bench.report import Cell  # noqa: E402

ROUNDS, TIMEOUT_S = 5, 600.0
MET, NOT_MET, SKIPPED = "met", "NOT MET", "skipped"
Sample = Optional[Dict[str, Any]]
Samples = Dict[str, Dict[str, List[Sample]]]        # by test, by collector, by round


class Verdict(NamedTuple):
    clause: Clause
    status: str
    measured: Optional[stats.Summary]

    def as_dict(self) -> Dict[str, Any]:
        c = self.clause
        return {"bar": c.bar, "text": c.text, "test": c.test, "figure": c.figure, "bound": c.bound,
                "against": c.against or c.against_test or None, "status": self.status,
                "measured": None if self.measured is None else self.measured.as_dict()}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def select(wanted: Optional[str]) -> List[Test]:
    """Tests by name or pattern; a word that is neither means the names that begin with it and a dash."""
    known = catalog.tests()
    if not wanted:
        return known
    chosen = set()
    for word in wanted.split(","):
        names = [t.name for t in known if fnmatch.fnmatch(t.name, word)]
        names = names or [t.name for t in known if t.name.startswith(word + "-")]
        if not names:
            raise AnchorError(f"no test {word!r}; there are " + ", ".join(t.name for t in known))
        chosen.update(names)
    return [test for test in known if test.name in chosen]


def run_rounds(found: Mapping[str, Collector], tests: Sequence[Test], rounds: int, scale: float,
               timeout_s: float) -> Samples:
    samples: Samples = {test.name: {name: [] for name in ALL if name in found and name in test.collectors}
                        for test in tests}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds} ...")
        for test in tests:
            names = list(samples[test.name])
            turn = number % len(names) if names else 0          # nobody is always the first
            for name in names[turn:] + names[:turn]:
                row = samples[test.name][name]
                if any(one is None for one in row):             # once failed, failed
                    row.append(None)
                    continue
                try:
                    row.append(programs.measure(found[name], test, scale, timeout_s))
                except AnchorError as error:
                    say(f"{test.name}, {name}: {error}")
                    row.append(None)
    return samples


def values(samples: Samples, test: str, collector: str, figure: str) -> List[Optional[float]]:
    rows = samples.get(test, {}).get(collector, [])
    found = [None if one is None else one.get(figure) for one in rows]
    return [None if value is None or not math.isfinite(value) else float(value) for value in found]


def summary(numbers: Sequence[Optional[float]]) -> Optional[stats.Summary]:
    present = [value for value in numbers if value is not None]
    return stats.summarize(present) if present else None


def ratio(samples: Samples, test: str, peer: str, figure: str) -> Optional[stats.Summary]:
    return summary(stats.paired_ratios(values(samples, test, PYALLOC, figure), values(samples, test, peer, figure)))


def judge(samples: Samples, clause: Clause) -> Verdict:
    if clause.against:
        measured = ratio(samples, clause.test, clause.against, clause.figure)
    elif clause.against_test:
        measured = summary(stats.paired_ratios(values(samples, clause.test, PYALLOC, clause.figure),
                                               values(samples, clause.against_test, PYALLOC, clause.figure)))
    else:
        measured = summary(values(samples, clause.test, PYALLOC, clause.figure))
    if measured is None:
        return Verdict(clause, SKIPPED, None)
    return Verdict(clause, MET if clause.low <= measured.median <= clause.high else NOT_MET, measured)


def amount(value: Optional[float]) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def print_figures(samples: Samples, tests: Sequence[Test]) -> None:
    """Ratios first, then the figures that they come from."""
    peers = [name for name in ALL[1:] if any(name in samples[test.name] for test in tests)]
    rows = []
    for test in tests:
        for at, figure in enumerate((*test.figures, "peak_rss_mib")):
            medians = {name: summary(values(samples, test.name, name, figure)) for name in ALL}
            if not any(medians.values()):
                continue
            ratios = [ratio(samples, test.name, peer, figure) for peer in peers]
            rows.append([Cell("" if at else test.name), Cell(figure),
                         *(Cell("-" if one is None else f"{one.median:.2f}", "bold") for one in ratios),
                         *(Cell(amount(None if medians[name] is None else medians[name].median))  # type: ignore
                           for name in (PYALLOC, *peers))])
    report.print_table("Medians; the first columns are pyalloc / peer, paired within each round",
                       ["test", "figure", *(f"/ {peer}" for peer in peers), PYALLOC, *peers], rows, left=2)


def print_verdicts(verdicts: Sequence[Verdict]) -> None:
    colours = {MET: "green", NOT_MET: "bold red", SKIPPED: "yellow"}
    rows = []
    for one in verdicts:
        clause, measured = one.clause, one.measured
        spread = "-" if measured is None else f"{amount(measured.q1)} .. {amount(measured.q3)}"
        against = f"/ {clause.against or clause.against_test}" if clause.against or clause.against_test else ""
        rows.append([Cell(str(clause.bar)), Cell(clause.text), Cell(against), Cell(one.status, colours[one.status]),
                     Cell(amount(measured.median if measured else None)), Cell(clause.bound), Cell(spread),
                     Cell(str(measured.n if measured else 0))])
    report.print_table("Bars", ["bar", "what", "of", "verdict", "median", "bound", "quartiles", "n"], rows, left=4)


def parse(words: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", metavar="TESTS", help="names or patterns, separated by commas")
    parser.add_argument("--collectors", metavar="NAMES", help="of " + ", ".join(ALL) + "; default: all")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}")
    parser.add_argument("--scale", type=float, default=1.0, help="1: the work of the bars; 0.01: a hundredth")
    parser.add_argument("--lib", type=Path, metavar="PATH", help="libpyalloc.so; default: the installed package's")
    parser.add_argument("--build", type=Path, metavar="FOLDER", help="keep the programs here")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="S", help="of one program")
    parser.add_argument("--json", metavar="PATH", help="all samples and verdicts; - for stdout instead of tables")
    parser.add_argument("--list", action="store_true", help="name the tests")
    options = parser.parse_args(words)
    if options.rounds < 1 or not 0 < options.scale <= 1:
        parser.error("rounds from 1, scale above 0 and up to 1")
    return options


def work(options: argparse.Namespace, folder: Path) -> int:
    tests = select(options.only)
    if options.list:
        report.print_table("Tests", ["name", "about"], [[Cell(t.name), Cell(t.about)] for t in tests], 2)
        return 0
    wanted = ALL if not options.collectors else tuple(options.collectors.split(","))
    if set(wanted) - set(ALL):
        raise AnchorError("collectors are " + ", ".join(ALL))
    found, missing = programs.build_all(folder, options.lib, wanted)
    for name, why in missing.items():
        say(f"{name} is skipped: {why}")
    tests = [test for test in tests if any(name in found for name in test.collectors)]
    if not tests:
        raise AnchorError("nothing to run")
    started = time.monotonic()
    samples = run_rounds(found, tests, options.rounds, options.scale, options.timeout)
    verdicts = [judge(samples, clause) for clause in catalog.clauses() if clause.test in samples]
    if options.json:
        value = {"schema": 1, "machine": report.machine(), "seconds": time.monotonic() - started,
                 "rounds": options.rounds, "scale": options.scale, "missing": missing,
                 "collectors": {name: one.version for name, one in found.items()},
                 "tests": {test.name: {"about": test.about, "arguments": test.scaled(options.scale),
                                       "samples": samples[test.name]} for test in tests},
                 "bars": [one.as_dict() for one in verdicts]}
        text = json.dumps(value, indent=1)
        if options.json == "-":
            print(text)
        else:
            Path(options.json).write_text(text + "\n", encoding="utf-8")
    if options.json != "-":
        print_figures(samples, tests)
        if verdicts:
            print_verdicts(verdicts)
        if options.scale != 1:
            print(f"scale {options.scale:g}: the bars are for scale 1")
    failed = any(None in row for rows in samples.values() for row in rows.values())
    return 1 if failed or (options.scale == 1 and any(one.status == NOT_MET for one in verdicts)) else 0


def main(words: Optional[Sequence[str]] = None) -> int:
    options = parse(words)
    try:
        if options.build is not None:
            options.build.mkdir(parents=True, exist_ok=True)
            return work(options, options.build.resolve())
        with tempfile.TemporaryDirectory(prefix="pyalloc-anchors-") as folder:
            return work(options, Path(folder))
    except (AnchorError, OSError) as error:
        say(f"anchors: {error}")
        return 2
    except KeyboardInterrupt:
        say("anchors: interrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main())
