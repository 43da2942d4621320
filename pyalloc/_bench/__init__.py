"""``python -m pyalloc bench``: pyalloc against glibc malloc and the peers that are installed, in one run.

How a figure comes about: a C program (``kernels``) that calls plain malloc and free is started afresh for
every measurement, with the allocator under test in ``LD_PRELOAD``, and checks itself that the preload took
effect.  All allocators take turns within each round, in an order that rotates, so that whatever
disturbs the machine disturbs them alike.  Ratios are formed within a round (ours / peer), and what is
shown is the median of the rounds with the interquartile range; below 1 is better for pyalloc.

========================  =====================================================================
module                    what
========================  =====================================================================
``catalog``               the tests: C kernels with parameters, and recorded programs
``allocators``            which allocators exist on this machine, and how to get the others
``runner``                one measurement; interleaved rounds
``stats``                 medians, quartiles, paired ratios, geometric means
``report``, ``chart``     tables, JSON; PNG
``bars``                  the performance bars of the project, pass or fail
``dropin``                whole programs under each allocator, and their bars
``dropin_kernels``        what those bars take from the kernels
``instructions``          instructions per malloc+free pair, by callgrind
``trace``, ``record``     traces of real programs: format, recording
========================  =====================================================================
"""

from __future__ import annotations

import argparse

__all__ = ["add_arguments", "main"]

DEFAULT_ROUNDS = 5
DEFAULT_TIME_LIMIT = 95.0


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be greater than 0")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench`` to *parser*."""
    what = parser.add_argument_group("what to run")
    what.add_argument(
        "--only",
        action="append",
        metavar="PATTERN",
        help="tests whose name matches (shell pattern or substring; repeatable)",
    )
    what.add_argument(
        "--peers", metavar="NAME,...", help="compare with these only (default: all that are found)"
    )
    what.add_argument("--list", action="store_true", help="list tests and allocators, run nothing")
    what.add_argument(
        "--bars",
        action="store_true",
        help="run the performance bars (9 rounds unless --rounds says otherwise), print pass or fail; takes minutes",
    )
    what.add_argument(
        "--dropin",
        action="store_true",
        help="run whole programs under each allocator and judge the drop-in bars (minutes)",
    )
    what.add_argument(
        "--instructions",
        action="store_true",
        help="count instructions per malloc+free pair with valgrind's callgrind",
    )
    how = parser.add_argument_group("how long")
    how.add_argument(
        "--rounds", type=_positive_int, metavar="N", help=f"rounds at most (default {DEFAULT_ROUNDS}; bars 9)"
    )
    how.add_argument(
        "--time-limit",
        type=_positive_float,
        metavar="SECONDS",
        help=f"start nothing after this, but end the first round (default {DEFAULT_TIME_LIMIT:g}; bars none)",
    )
    how.add_argument(
        "--quick", action="store_true", help="a rough picture in about 20 seconds: less work, 3 rounds"
    )
    how.add_argument("--scale", type=_positive_float, metavar="X", help="multiply the work of each test")
    how.add_argument(
        "--cpu-time",
        action="store_true",
        help="compare processor time instead of elapsed time: steadier while other programs run",
    )
    out = parser.add_argument_group("output")
    out.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="PATH",
        help="JSON to PATH, or to stdout instead of the tables",
    )
    out.add_argument("--png", metavar="PATH", help="bar charts to PATH (needs matplotlib)")


def main(args: argparse.Namespace) -> int:
    """Runs ``bench``; the exit code: 0 done (with ``--bars``: all passed), 1 a bar failed, 2 an error."""
    from pyalloc._bench import command

    return command.run(args)
