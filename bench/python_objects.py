"""Python's own objects on pyalloc: JSON, dicts and lists that come and go, and RSS after objects were dropped.

    python bench/python_objects.py [--rounds N] [--scale S] [--only json,churn,drop] [--cpu-time] [--json]
    python bench/python_objects.py --instructions       counted by callgrind: steady on a busy machine

Ours are `pyalloc run --python-objects` (preloaded, pymalloc off) and `hook` (pyalloc.python.install()).  Peers:
pymalloc, which is Python's default; glibc, jemalloc, tcmalloc and mimalloc with pymalloc off, those that give memory
back by option with that option on.

Times: every round runs each setting in a fresh process, in turns; figures are medians of the rounds' ratios, with
quartiles.  Bounds: 1.02 x pymalloc, 1.0 x the best peer (the one with the lowest median).
RSS: processes of their own, all at once, since only memory is looked at; 10 s after 90 % were dropped in random order,
10 s after all were, and 10 s after gc.collect(), which empties CPython's free lists.  Bound: the lowest peer's.
Exit code 1 when a bound is not met (with --instructions: never).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import statistics
import subprocess
import sys
import time
from typing import Any, NamedTuple, Optional, Sequence

OURS = ("pyalloc", "hook")
WORKLOADS = ("json", "churn", "drop")
IDLE_SECONDS = 10
FEW, MANY = 1, 3        # repetitions that --instructions compares


# ---- The child: one workload, its figures as JSON


def json_job(scale: float, repeat: int) -> None:
    records = [{"id": i, "name": f"name {i}", "tags": ["a", "b", str(i % 97)], "value": i * 0.37,
                "nested": {"left": [i, i + 1], "right": None, "flag": i % 2 == 0}} for i in range(int(12_000 * scale))]
    text = json.dumps(records)
    for _ in range(repeat * 4):
        assert len(json.dumps(json.loads(text))) == len(text)


def churn_job(scale: float, repeat: int) -> None:
    size = max(10, int(30_000 * scale))
    window: list[Any] = [None] * size
    place = 1
    for i in range(int(250_000 * scale) * repeat):
        place = (place * 1_103_515_245 + 12_345) % 2_147_483_648
        window[place % size] = {"id": i, "name": str(i), "items": [i] * (i % 13), "pair": (i, place)}
        items = window[i % size]
        if items:
            items["items"].append(i)


class Slots:
    __slots__ = ("key", "text")

    def __init__(self, key: int) -> None:
        self.key, self.text = key + 1000, "x" * (key % 60)


def some_object(i: int) -> Any:
    return ({"k": i, "v": str(i)}, [i, str(i), None], (str(i), i + 0.5, "y" * (i % 100)), Slots(i))[i % 4]


def resident_bytes() -> dict[str, int]:
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        found = dict(re.findall(r"^(\w+): +(\d+) kB", file.read(), re.M))
    return {"rss": int(found["Rss"]) << 10, "lazy_free": int(found["LazyFree"]) << 10}


def drop_job(scale: float, repeat: int, idle_seconds: float = 0) -> dict[str, int]:
    """Builds objects, drops 90 % of them in random order, then the rest; repeat times. RSS of the last, when idle."""
    figures: dict[str, int] = {}
    count = int(400_000 * scale)
    for turn in range(repeat):
        objects = [some_object(i) for i in range(count)]
        if turn == repeat - 1:
            figures["full"] = resident_bytes()["rss"]
        place = 1
        for _ in range(count * 3):      # at random with repetition: e ** -3 are never met, and a twentieth is spared
            place = (place * 1_103_515_245 + 12_345) % 2_147_483_648
            if place % count % 20 != 7:
                objects[place % count] = None
        if idle_seconds and turn == repeat - 1:
            time.sleep(idle_seconds)
            figures["after_most"] = resident_bytes()["rss"]
            figures["lazy_free"] = resident_bytes()["lazy_free"]
        figures["left"] = sum(one is not None for one in objects) * 1000 // count
        del objects
    if idle_seconds:
        time.sleep(idle_seconds)
        figures["after_all"] = resident_bytes()["rss"]
        gc.collect()        # empties CPython's free lists: thousands of tuples that are spread over all the memory
        time.sleep(idle_seconds)
        figures["after_collect"] = resident_bytes()["rss"]
    return figures


def check_setting(expect: str) -> None:
    """Ends with an error when the allocator is not the one that was asked for."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        maps = file.read()
    if expect == "hook":
        import pyalloc
        import pyalloc.python

        pyalloc.python.install()
        assert pyalloc.owns(id(object()))
    elif expect and expect not in maps:
        raise SystemExit(f"{expect} is not loaded")


def child(options: argparse.Namespace) -> None:
    check_setting(options.expect)
    figures: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    if options.child == "json":
        json_job(options.scale, options.repeat)
    elif options.child == "churn":
        churn_job(options.scale, options.repeat)
    else:
        figures.update(drop_job(options.scale, options.repeat, options.idle))
    figures.update(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)
    print(json.dumps(figures))


# ---- The settings


class Setting(NamedTuple):
    name: str
    env: dict[str, str]
    expect: str = ""


#: What makes a peer give memory back, where it does not by default.
RELEASING = {"jemalloc": {"MALLOC_CONF": "background_thread:true"}, "tcmalloc": {"TCMALLOC_RELEASE_RATE": "10"}}


def settings() -> tuple[list[Setting], dict[str, str]]:
    """Ours first; and {absent peer: how to get it}."""
    from pyalloc import _run
    from pyalloc._bench import allocators

    unwanted = ("PYALLOC_", "PYTHON", "GO", "MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "MIMALLOC_", "TCMALLOC_")
    base = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    base["PYTHONHASHSEED"] = "0"
    if os.environ.get("PYTHONPATH"):
        base["PYTHONPATH"] = os.environ["PYTHONPATH"]
    found = [Setting("pyalloc", _run.environment(base, python_objects=True), "libpyalloc.so"),
             Setting("hook", base, "hook"), Setting("pymalloc", base)]
    peers, missing = allocators.find()
    for peer in peers:
        if peer.name == allocators.OURS:
            continue
        env = {**base, "PYTHONMALLOC": "malloc", **peer.env, **RELEASING.get(peer.name, {})}
        if peer.library:
            env["LD_PRELOAD"] = peer.library
        found.append(Setting(peer.name, env, os.path.basename(peer.library) if peer.library else ""))
    return found, missing


def command(setting: Setting, workload: str, scale: float, repeat: int, idle: float = 0) -> list[str]:
    return [sys.executable, os.path.abspath(__file__), "--child", workload, "--scale", str(scale),
            "--repeat", str(repeat), "--idle", str(idle), "--expect", setting.expect]


def run(setting: Setting, workload: str, scale: float) -> dict[str, float]:
    done = subprocess.run(command(setting, workload, scale, 2), env=setting.env, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{setting.name}: {workload} ended with {done.returncode}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


# ---- What is measured


def quartiles(values: Sequence[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"ratio": median, "q1": low, "q3": high}


def measure_times(found: Sequence[Setting], workload: str, rounds: int, scale: float,
                  clock: str) -> list[dict[str, Any]]:
    took: dict[str, list[float]] = {setting.name: [] for setting in found}
    for number in range(rounds):
        turn = number % len(found)
        for setting in [*found[turn:], *found[:turn]]:
            took[setting.name].append(run(setting, workload, scale)[clock])
    peers = [setting.name for setting in found if setting.name not in OURS]
    best = min(peers, key=lambda name: statistics.median(took[name]))
    rows = []
    for name in OURS:
        for peer in dict.fromkeys(("pymalloc", best, *peers)):
            bound = 1.0 if peer == best else 1.02 if peer == "pymalloc" else None
            figures = quartiles([a / b for a, b in zip(took[name], took[peer])])
            rows.append({"what": f"{workload}: time", "ours": name, "peer": peer, "best": peer == best, "bound": bound,
                         "met": None if bound is None else figures["ratio"] <= bound, **figures,
                         "ours_value": statistics.median(took[name]), "peer_value": statistics.median(took[peer])})
    return rows


def measure_rss(found: Sequence[Setting], rounds: int, scale: float, idle: float) -> list[dict[str, Any]]:
    got: dict[str, list[dict[str, float]]] = {setting.name: [] for setting in found}
    for _ in range(rounds):
        children = [(setting, subprocess.Popen(command(setting, "drop", scale, 1, idle), env=setting.env,
                                               stdout=subprocess.PIPE, text=True)) for setting in found]
        for setting, process in children:
            out, _ = process.communicate()
            if process.returncode != 0:
                raise SystemExit(f"{setting.name}: drop ended with {process.returncode}")
            got[setting.name].append(json.loads(out))
    rows = []
    for key, what in (("full", "drop: RSS before"), ("after_most", "drop: RSS after most were dropped"),
                      ("after_all", "drop: RSS after all were dropped"),
                      ("after_collect", "drop: RSS after gc.collect(), too")):
        mib = {name: statistics.median(one[key] for one in runs) / 2**20 for name, runs in got.items()}
        lowest = min((name for name in mib if name not in OURS), key=lambda name: mib[name])
        for name in OURS:
            for peer in sorted((peer for peer in mib if peer not in OURS), key=lambda peer: mib[peer]):
                ratios = quartiles([a[key] / b[key] for a, b in zip(got[name], got[peer])] * (2 if rounds == 1 else 1))
                bound = 1.0 if peer == lowest and key != "full" else None
                rows.append({"what": what, "ours": name, "peer": peer, "best": peer == lowest, "bound": bound,
                             "met": None if bound is None else ratios["ratio"] <= bound, **ratios,
                             "ours_value": mib[name], "peer_value": mib[peer]})
    return rows


def instructions(setting: Setting, workload: str, scale: float) -> float:
    """Millions of instructions a repetition, in all threads."""
    counts = []
    for repeat in (FEW, MANY):
        words = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
                 *command(setting, workload, scale, repeat)]
        done = subprocess.run(words, env=setting.env, capture_output=True, text=True)
        collected = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
        if done.returncode != 0 or collected is None:
            raise SystemExit(f"{setting.name}: callgrind failed: {done.stderr.strip()[-800:]}")
        counts.append(int(collected.group(1)))
    return (counts[1] - counts[0]) / (MANY - FEW) / 1e6


def measure_instructions(found: Sequence[Setting], workload: str, scale: float) -> list[dict[str, Any]]:
    took = {setting.name: instructions(setting, workload, scale) for setting in found}
    return [{"what": f"{workload}: instructions", "ours": name, "peer": peer, "best": False, "bound": None, "met": None,
             "ratio": took[name] / took[peer], "q1": None, "q3": None, "ours_value": took[name],
             "peer_value": took[peer]} for name in OURS for peer in took if peer not in OURS]


def show(rows: Sequence[dict[str, Any]]) -> None:
    print(f"{'what':34} {'ours':8} {'peer':15} {'ratio':>6}  {'q1-q3':13} {'bound':>5} {'ours':>9} {'peer':>9}")
    for row in rows:
        spread = "" if row["q1"] is None else f"{row['q1']:.3f}-{row['q3']:.3f}"
        bound = "" if row["bound"] is None else f"{row['bound']:.2f}"
        print(f"{row['what']:34} {row['ours']:8} {row['peer'] + ('*' if row['best'] else ''):15} {row['ratio']:6.3f}  "
              f"{spread:13} {bound:>5} {row['ours_value']:9.3f} {row['peer_value']:9.3f}"
              f"{'   NOT MET' if row['met'] is False else ''}")
    print("* the best peer.  Values: s, MiB, or millions of instructions")


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="of times (default %(default)s)")
    parser.add_argument("--rss-rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the work; 1.0 takes about a second a process")
    parser.add_argument("--only", default=",".join(WORKLOADS), help="workloads, joined by commas")
    parser.add_argument("--peers", help="of those that are found, joined by commas")
    parser.add_argument("--cpu-time", action="store_true", help="processor time of all threads instead of time")
    parser.add_argument("--instructions", action="store_true", help="count instructions instead (valgrind)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", choices=WORKLOADS, help=argparse.SUPPRESS)
    parser.add_argument("--repeat", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--idle", type=float, default=IDLE_SECONDS, help="seconds after a drop (default %(default)s)")
    parser.add_argument("--expect", default="", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    names = options.only.split(",")
    if set(names) - set(WORKLOADS) or options.scale <= 0 or options.rounds < 3 or options.rss_rounds < 1:
        parser.error(f"--only takes {', '.join(WORKLOADS)}; --rounds at least 3, --rss-rounds 1, --scale above 0")
    if options.child:
        child(options)
        return 0
    found, missing = settings()
    if options.peers is not None:
        wanted = options.peers.split(",")
        unknown = set(wanted) - {setting.name for setting in found}
        if unknown or not set(wanted) - set(OURS):
            parser.error(f"no such peer here: {', '.join(unknown) or options.peers}")
        found = [setting for setting in found if setting.name in (*OURS, "pymalloc", *wanted)]
    for name, hint in missing.items():
        print(f"{name} is absent, left out: {hint}", file=sys.stderr)
    rows: list[dict[str, Any]] = []
    for workload in names:
        if options.instructions:
            rows += measure_instructions(found, workload, options.scale / 4)
            continue
        rows += measure_times(found, workload, options.rounds, options.scale, "cpu" if options.cpu_time else "wall")
        if workload == "drop":
            rows += measure_rss(found, options.rss_rounds, options.scale, options.idle)
    if options.json:
        print(json.dumps({"rounds": options.rounds, "scale": options.scale, "python": sys.version.split()[0],
                          "rows": rows}, indent=1))
    else:
        show(rows)
    return 0 if all(row["met"] is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
