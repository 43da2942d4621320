"""How fast Python makes and drops one raw buffer: pyalloc against bytearray and numpy.empty.

    python bench/python_buffer.py [--rounds N] [--json]

A round times the two sides of a pair one after the other, in alternating order; a pair's figure is the median of the
ratios of the rounds with the interquartile range.  The loops are timeit's, whose own cost (an empty loop) is not
subtracted: that favours neither side, and it flatters none.
"""

import argparse
import json
import statistics
import sys
import timeit

import pyalloc

KIB, MIB = 1 << 10, 1 << 20
#: Seconds that one side of one round aims at.
SLICE_S = 0.02


def pairs():
    """(name, ours, peer, bar or None); statements and their names in timeit's namespace."""
    sizes = [64 << (2 * i) for i in range(11)]  # 64 B ... 64 MiB
    yield "empty(64) / bytearray(64)", "empty(64)", "bytearray(64)", 0.5
    for nbytes in sizes:
        yield f"alloc({nbytes}) / bytearray({nbytes})", f"alloc({nbytes})", f"bytearray({nbytes})", 1.05
    try:
        import numpy  # noqa: F401
    except ImportError:
        print("numpy is absent, its pairs are left out: pip install numpy", file=sys.stderr)
        return
    for nbytes, bar in ((64, None), (64 * KIB, None), (MIB, 0.35)):
        yield f"empty({nbytes}) / numpy.empty({nbytes})", f"empty({nbytes})", f"numpy_empty({nbytes}, uint8)", bar


def namespace():
    names = {"empty": pyalloc.empty, "alloc": pyalloc.alloc, "bytearray": bytearray}
    try:
        import numpy
    except ImportError:
        return names
    return {**names, "numpy_empty": numpy.empty, "uint8": numpy.dtype("u1")}


def calibrate(timer):
    number = 1
    while True:
        seconds = timer.timeit(number)
        if seconds >= SLICE_S / 4:
            return max(1, round(number * SLICE_S / seconds))
        number *= 4


def measure(ours, peer, rounds):
    timers = [timeit.Timer(statement, globals=namespace()) for statement in (ours, peer)]
    numbers = [calibrate(timer) for timer in timers]
    costs = ([], [])
    for i in range(rounds):
        for side in ((0, 1), (1, 0))[i % 2]:
            costs[side].append(timers[side].timeit(numbers[side]) / numbers[side] * 1e9)
    ratios = [a / b for a, b in zip(*costs)]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {"ratio": median, "q1": low, "q3": high, "ours_ns": statistics.median(costs[0]),
            "peer_ns": statistics.median(costs[1])}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="pairs of timings for each figure (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if options.rounds < 3:
        parser.error("--rounds must be at least 3")
    results = []
    if not options.json:
        print(f"{'ratio':>6}  {'q1-q3':13} {'bar':>5}  {'ours ns':>12} {'peer ns':>12}  pair")
    for title, ours, peer, bar in pairs():
        figures = measure(ours, peer, options.rounds)
        met = None if bar is None else figures["ratio"] <= bar
        results.append({"pair": title, "bar": bar, "met": met, **figures})
        if not options.json:
            spread = f"{figures['q1']:.3f}-{figures['q3']:.3f}"
            print(f"{figures['ratio']:6.3f}  {spread:13} {'' if bar is None else bar:>5}  {figures['ours_ns']:12,.1f} "
                  f"{figures['peer_ns']:12,.1f}  {title}{'   MISSED' if met is False else ''}")
    if options.json:
        print(json.dumps({"rounds": options.rounds, "python": sys.version.split()[0], "pairs": results}, indent=2))


if __name__ == "__main__":
    main()
