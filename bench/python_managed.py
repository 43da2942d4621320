"""Managed objects from Python against instances of a class with __slots__: speed, memory, pauses.

    python bench/python_managed.py [--rounds N] [--nodes N] [--seconds S] [--only create,memory,pause] [--json]

Ratios come first; below 1 is better than CPython.  Speed: a round times the two sides of a pair one after the other
in alternating order, a pair's figure is the median of the rounds' ratios.  Memory: resident set of a fresh process
before and after it builds a binary tree, with different keys.  Pauses: a thread loops and records the time of each
iteration while another calls collect() every 0.1 s on a heap of --nodes objects, in turn with rounds in which it does
not; the same with gc.collect() on the slots version.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import threading
import time
import timeit

import pyalloc

#: Seconds that one side of one round aims at.
SLICE_S = 0.02
ITERATION_STEPS = 20


class Node(pyalloc.Struct):
    left: pyalloc.Ref
    right: pyalloc.Ref
    key: pyalloc.int64


class Pair(pyalloc.Struct):
    left: pyalloc.Ref
    right: pyalloc.Ref


class SlotsNode:
    __slots__ = ("left", "right", "key")

    def __init__(self, left=None, right=None, key=0):
        self.left = left
        self.right = right
        self.key = key


class SlotsPair:
    __slots__ = ("left", "right")

    def __init__(self, left=None, right=None):
        self.left = left
        self.right = right


# ---- Speed


def pairs():
    """(name, ours, peer, bar or None)."""
    yield "create Node(left=a, right=b)", "Pair(left=a, right=b)", "SlotsPair(left=sa, right=sb)", 1.0
    yield "create, by position", "Pair(a, b)", "SlotsPair(sa, sb)", None
    yield "create with a key", "Node(left=a, right=b, key=5)", "SlotsNode(left=sa, right=sb, key=5)", None
    yield "get a reference", "node.left", "snode.left", None
    yield "get None", "node.right", "snode.right", None
    yield "get an integer", "node.key", "snode.key", None
    yield "set a reference", "node.left = a", "snode.left = sa", None
    yield "set an integer", "node.key = 7", "snode.key = 7", None


def names():
    a, sa = Pair(), SlotsPair()
    return {"Node": Node, "Pair": Pair, "SlotsNode": SlotsNode, "SlotsPair": SlotsPair, "a": a, "b": Pair(), "sa": sa,
            "sb": SlotsPair(), "node": Node(left=a, key=12345), "snode": SlotsNode(left=sa, key=12345)}


def nanoseconds(timer, count):
    return timer.timeit(count) / count * 1e9


def measure_speed(rounds):
    space, rows = names(), []
    for name, ours, peer, bar in pairs():
        timers = [timeit.Timer(statement, globals=space) for statement in (ours, peer)]
        counts = [max(1, int(SLICE_S * 1e9 / nanoseconds(timer, 2000))) for timer in timers]
        found = []
        for number in range(rounds):
            order = (0, 1) if number % 2 == 0 else (1, 0)
            times = {side: nanoseconds(timers[side], counts[side]) for side in order}
            found.append((times[0], times[1]))
        ratios = [ours_ns / peer_ns for ours_ns, peer_ns in found]
        rows.append({"name": name, "ratio": statistics.median(ratios), "bar": bar,
                     "ours_ns": statistics.median(ours for ours, _ in found),
                     "slots_ns": statistics.median(peer for _, peer in found)})
    return rows


# ---- Trees


def build(cls, low, high):
    """A balanced tree of the keys low..high-1; only a path of references is alive meanwhile."""
    if low >= high:
        return None
    middle = (low + high) // 2
    return cls(left=build(cls, low, middle), right=build(cls, middle + 1, high), key=middle)


def resident_bytes(field="VmRSS"):
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    raise SystemExit(f"no {field} in /proc/self/status")


def child(kind, nodes):
    """In a process of its own: builds, prints what it took."""
    gc.disable()
    before = resident_bytes()
    start = time.perf_counter()
    tree = build(Node if kind == "managed" else SlotsNode, 1000, 1000 + nodes)
    seconds = time.perf_counter() - start
    print(json.dumps({"bytes": resident_bytes() - before, "peak_bytes": resident_bytes("VmHWM") - before,
                      "seconds": seconds, "key": tree.key}))


def measure_memory(nodes):
    sides = {}
    for kind in ("managed", "slots"):
        command = [sys.executable, __file__, "--child", kind, "--nodes", str(nodes)]
        sides[kind] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    ours, peer = sides["managed"], sides["slots"]
    return {"ratio": ours["bytes"] / peer["bytes"], "peak_ratio": ours["peak_bytes"] / peer["peak_bytes"], "bar": 0.35,
            "bytes_per_node": ours["bytes"] / nodes, "slots_bytes_per_node": peer["bytes"] / nodes,
            "build_ratio": ours["seconds"] / peer["seconds"], "nodes": nodes}


# ---- Pauses


def iterations(stop, out):
    """Times of ITERATION_STEPS of plain Python each, as a program would notice them."""
    clock, value = time.perf_counter_ns, 0
    last = clock()
    while not stop.is_set():
        for _ in range(ITERATION_STEPS):
            value += 1
        now = clock()
        out.append(now - last)
        last = now


def loop_while(work, seconds):
    """Iteration times, sorted, and how long the calls of work took."""
    stop, out, took = threading.Event(), [], []
    thread = threading.Thread(target=iterations, args=(stop, out))
    thread.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.1)
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    stop.set()
    thread.join()
    return sorted(out), took


def alternate(work, rounds, seconds):
    """Rounds without and with work in turn; medians of the rounds' figures, since one stray preemption is a maximum."""
    sides = {"without": [], "with": []}
    took = []
    for number in range(2 * rounds):
        side = ("without", "with")[number % 2]
        out, calls = loop_while(work if side == "with" else int, seconds / rounds)
        sides[side].append((out[int(len(out) * 0.999)] / 1e6, out[-1] / 1e6))
        took += calls if side == "with" else []
    row = {"calls": len(took), "call_ms": statistics.median(took) * 1e3}
    for side, figures in sides.items():
        row[side] = {"p999_ms": statistics.median(p for p, _ in figures),
                     "max_ms": statistics.median(m for _, m in figures), "worst_ms": max(m for _, m in figures)}
    row["growth_ms"] = max(row["with"][name] - row["without"][name] for name in ("p999_ms", "max_ms"))
    return row


def measure_pauses(nodes, rounds, seconds):
    gc.disable()
    tree = build(Node, 0, nodes)
    managed = alternate(pyalloc.collect, rounds, seconds)
    assert tree.key == nodes // 2
    del tree
    pyalloc.collect()
    tree = build(SlotsNode, 0, nodes)
    gc.collect()
    slots = alternate(gc.collect, rounds, seconds)
    assert tree.key == nodes // 2
    gc.enable()
    return {"collect": managed, "gc.collect": slots, "bar_ms": 1.0, "nodes": nodes}


# ---- Printing


def verdict(value, bar):
    return "" if bar is None else f"  bar {bar:.2f} {'met' if value <= bar else 'NOT MET'}"


def print_report(report):
    for row in report.get("create", ()):
        print(f"{row['ratio']:6.2f} x  {row['name']:30} {row['ours_ns']:8.1f} ns, slots {row['slots_ns']:8.1f} ns"
              f"{verdict(row['ratio'], row['bar'])}")
    if "memory" in report:
        m = report["memory"]
        print(f"{m['ratio']:6.3f} x memory of {m['nodes']:,} nodes        {m['bytes_per_node']:8.1f} B, "
              f"slots {m['slots_bytes_per_node']:8.1f} B a node{verdict(m['ratio'], m['bar'])}")
        print(f"{m['peak_ratio']:6.2f} x  peak memory while building;  {m['build_ratio']:.2f} x the time to build")
    if "pause" in report:
        p = report["pause"]
        for name in ("collect", "gc.collect"):
            side = p[name]
            text = "; ".join(f"{when} p99.9 {side[when]['p999_ms']:.3f}, max {side[when]['max_ms']:.3f}, worst "
                             f"{side[when]['worst_ms']:.3f}" for when in ("with", "without"))
            print(f"{side['growth_ms']:+9.3f} ms  a loop beside {name}() of {p['nodes']:,} nodes: {text}; "
                  f"{side['calls']} calls of {side['call_ms']:.0f} ms"
                  f"{verdict(side['growth_ms'], p['bar_ms'] if name == 'collect' else None)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--nodes", type=int, default=500_000)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", default="create,memory,pause")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", choices=("managed", "slots"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options.child, options.nodes)
    only, report = options.only.split(","), {}
    if "create" in only:
        report["create"] = measure_speed(options.rounds)
    if "memory" in only:
        report["memory"] = measure_memory(options.nodes)
    if "pause" in only:
        report["pause"] = measure_pauses(options.nodes, max(options.rounds // 2, 1), options.seconds)
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        print_report(report)


if __name__ == "__main__":
    main()
