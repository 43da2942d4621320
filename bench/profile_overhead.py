"""What a heap profile costs programs: instructions by callgrind, or time in interleaved rounds.

    python bench/profile_overhead.py                    instructions: off, on, on / off; needs valgrind
    python bench/profile_overhead.py --timed 15         processor time: medians of paired ratios, with quartiles
    python bench/profile_overhead.py --baseline LIB     beside them another libpyalloc.so, without a profile

Programs: cc1 on generated C, sqlite3 filling and asking a table, CPython on JSON with its own allocator and with
malloc, and kernels that do nothing but allocate, which say what one allocation costs.  "on" is PYALLOC_PROFILE at the
default rate, or --rate; starting, and writing the file at exit, are part of it.  What is not installed is named and
left out.
"""

import argparse
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from pyalloc import _bench, preload

JOBS = Path(__file__).resolve().parent / "recorder" / "jobs"


def programs(folder, small):
    """(name, command, environment) of what can be run here; small: a size for callgrind."""
    kernels = Path(_bench.__file__).with_name("kernels")
    cc1 = shutil.which("gcc") and subprocess.run(["gcc", "-print-prog-name=cc1"], capture_output=True,
                                                 text=True).stdout.strip()
    if cc1 and os.access(cc1, os.X_OK):
        job = (JOBS / "large_c.py").read_text()
        source = subprocess.run([sys.executable, "-c", job.replace("N = 300", "N = 15") if small else job],
                                capture_output=True, check=True).stdout
        source = subprocess.run(["gcc", "-E", "-x", "c", "-"], input=source, stdout=subprocess.PIPE, check=True)
        (folder / "large.i").write_bytes(source.stdout)
        yield "cc1 -O1", [cc1, "-quiet", "-fpreprocessed", "-O1", folder / "large.i", "-o", folder / "large.s"], {}
    else:
        print("cc1 is absent: apt-get install gcc", file=sys.stderr)
    if shutil.which("sqlite3"):
        job = (JOBS / "sqlite_index.sql").read_text()
        (folder / "job.sql").write_text(job.replace("200000", "20000") if small else job)
        yield "sqlite3", ["sqlite3", "-init", folder / "job.sql", ":memory:", ".quit"], {}
    else:
        print("sqlite3 is absent: apt-get install sqlite3", file=sys.stderr)
    job = (JOBS / "python_json.py").read_text()
    (folder / "job.py").write_text(job.replace("range(4000)", "range(1500)") if small else job)
    python = [sys.executable, "-S", folder / "job.py"]
    yield "JSON in CPython", python, {"PYTHONHASHSEED": "0"}
    yield "JSON in CPython, PYTHONMALLOC=malloc", python, {"PYTHONHASHSEED": "0", "PYTHONMALLOC": "malloc"}
    factor = 1 if small else 200
    for words, ops in (("pair --size 64", 300_000), ("pair --size 8192", 100_000), ("batch --order random", 300_000),
                       ("xthread", 300_000), ("large", 1_000)):
        yield f"kernel {words}", [kernels, *words.split(), "--ops", str(ops * factor)], {}


def environment(library, extra, path=None, rate=None):
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYALLOC_")}
    env.update(extra, LD_PRELOAD=str(library))
    if path:
        env["PYALLOC_PROFILE"] = str(path)
        if rate:
            env["PYALLOC_PROFILE_RATE"] = rate
    return env


def instructions(command, env):
    done = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *map(str, command)],
                          env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    found = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    if done.returncode != 0 or not found:
        raise SystemExit(f"callgrind failed on {command[0]}: {done.stderr.strip()[-600:]}")
    return int(found[1])


def seconds(command, env):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(list(map(str, command)), env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def timed(command, sides, rounds):
    """Ratios of each side to the first, in rounds whose order turns."""
    found = {name: [] for name in sides}
    for i in range(rounds):
        order = list(sides) if i % 2 else list(reversed(sides))
        took = {name: seconds(command, sides[name]) for name in order}
        for name in sides:
            found[name].append(took[name] / took[next(iter(sides))])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--timed", type=int, metavar="ROUNDS", help="time instead of instructions")
    parser.add_argument("--library", default=preload.path(), help="the libpyalloc.so to measure")
    parser.add_argument("--baseline", metavar="LIB", help="another libpyalloc.so to compare with, profile off")
    parser.add_argument("--rate", help="bytes between two samples, as PYALLOC_PROFILE_RATE")
    parser.add_argument("--only", default="", help="programs whose name has this in it")
    options = parser.parse_args()
    if not options.timed and not shutil.which("valgrind"):
        raise SystemExit("counting instructions needs valgrind (apt-get install valgrind), or use --timed 15")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, command, extra in programs(folder, not options.timed):
            if options.only not in name:
                continue
            sides = {"off": environment(options.library, extra)}
            if options.baseline:
                sides["baseline"] = environment(options.baseline, extra)
            sides["on"] = environment(options.library, extra, folder / "out.pb.gz", options.rate)
            if options.timed:
                for side, ratios in timed(command, sides, options.timed).items():
                    if side != "off":
                        low, middle, high = statistics.quantiles(ratios, n=4)
                        print(f"{name}: {side} / off {middle:.4f} ({low:.4f}-{high:.4f})", flush=True)
                continue
            counts = {side: instructions(command, env) for side, env in sides.items()}
            shown = "  ".join(f"{side} {count:,}" for side, count in counts.items())
            print(f"{name}: {shown}  on / off {counts['on'] / counts['off']:.4f}", flush=True)


if __name__ == "__main__":
    main()
