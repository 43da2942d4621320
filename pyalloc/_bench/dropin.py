"""``python -m pyalloc bench --dropin``: bars of the drop-in malloc, on whole programs and on the kernels.

Programs run under each allocator in turn, started by ``starter.c``; their output must be that of glibc's
run.  The kernels and recorded programs of ``bench`` are measured in the same rounds, and all of them make
one geometric mean; ``dropin_kernels`` has clauses of its own.  Not measured: servers, and the RSS of
programs as small as ``true`` (ru_maxrss never falls below the starter's own, about 1.2 MiB;
tests/preload/test_small_programs.py measures it another way).
A clause that cannot be measured here is skipped, and said to be.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from pyalloc._bench import allocators, catalog, dropin_kernels, report, runner, stats
from pyalloc._bench.allocators import OURS, Allocator, BenchError

TRUE_TIMES = 200
STARTUP, KERNELS = "startup", "kernels"
TIMEOUT_S = 120


class Program(NamedTuple):
    name: str
    command: Sequence[str]
    hint: str


class Row(NamedTuple):
    clause: str
    summary: Optional[stats.Summary]
    bound: Optional[float]  # None: reported only

    @property
    def met(self) -> str:
        if self.summary is None:
            return "skipped"
        if self.bound is None:
            return "reported"
        return "yes" if self.summary.median <= self.bound else "NO"


_C_PART = (
    "struct s%d { int a[%d]; };\nint f%d(struct s%d *s, int n)\n{ int t = 0;\n"
    "  for (int i = 0; i < n; i++) t += s->a[i %% %d] * n;\n"
    "  switch (n) { case 1: return t; case 7: return t ^ n; } return t / (n | 1); }\n"
)
_TEMPLATES = (
    "#include <map>\n#include <string>\n#include <vector>\n#include <algorithm>\n"
    "template <int N> int g()\n{ std::map<std::string, std::vector<int>> m; m[\"k\"].push_back(N);\n"
    "  return g<N - 1>() + m.size(); }\n"
    "template <> int g<0>() { return 0; }\nint main() { return g<60>(); }\n"
)
_PERL = (
    'my %h; $h{($_ * 7919) % 300007} = "v$_" for 1..250000; my $n = 0;'
    ' for (sort keys %h) { $n++ if $h{$_} =~ /1\\d*3$/ } print "$n\\n";'
)
_PYTHON = (
    "import json\nd = {str(i): [i, {'k': str(i)}] for i in range(60000)}\n"
    "for _ in range(3): d = json.loads(json.dumps(d))\nprint(len(d))\n"
)
_SQL = (
    "create table t(a, b);"
    " with recursive c(i) as (select 1 union all select i + 1 from c where i < 300000)"
    " insert into t select i * 7919 % 300007, 'v' || i from c;"
    " create index x on t(b, a); select count(*), max(b) from t;"
)
_NODE = "let m = {}; for (let i = 0; i < 300000; i++) m['k' + i] = [i];" \
    "console.log(JSON.parse(JSON.stringify(m)).k7[0])"


def _history(commits: int) -> bytes:
    """A repository as git's fast-import reads it: files that change line by line."""
    parts = []
    for number in range(commits):
        name, lines = f"file{number % 40}.c", [f"int f{i}(void) {{ return {i * (1 + number // 40 * (i % 7 == 0))}; }}\n"
                                               for i in range(200)]
        body = "".join(lines).encode()
        parts.append(b"commit refs/heads/main\ncommitter A <a@b> %d +0000\ndata 2\nc\nM 100644 inline %s\ndata %d\n%s\n"
                     % (1_700_000_000 + number, name.encode(), len(body), body))
    return b"".join(parts)


def repository(folder: Path) -> Path:
    """A git repository, the same each time; nothing is made where there is no git."""
    where = folder / "repository"
    if shutil.which("git") is not None:
        subprocess.run(["git", "init", "-q", "-b", "main", str(where)], check=True, capture_output=True)
        subprocess.run(["git", "-C", str(where), "fast-import", "--quiet"], input=_history(1200), check=True,
                       capture_output=True)
    return where


def programs(folder: Path) -> List[Program]:
    """The programs, with their inputs written to *folder*."""
    (folder / "in.c").write_text("".join(_C_PART % (i, i % 9 + 1, i, i, i % 9 + 1) for i in range(900)))
    (folder / "in.cc").write_text(_TEMPLATES)
    (folder / "in.py").write_text(_PYTHON)
    (folder / "in.txt").write_text("".join(f"{i * 7919 % 600011} line {i}\n" for i in range(600_000)))
    return [
        Program("gcc", ["gcc", "-O2", "-S", "-o", "-", str(folder / "in.c")], "apt-get install gcc"),
        Program("g++", ["g++", "-O1", "-S", "-o", "-", str(folder / "in.cc")], "apt-get install g++"),
        Program("sqlite3", ["sqlite3", ":memory:", _SQL], "apt-get install sqlite3"),
        Program("perl", ["perl", "-e", _PERL], "apt-get install perl"),
        Program("python", [sys.executable, "-S", str(folder / "in.py")], "install CPython"),
        Program("sort", ["sort", "--parallel=1", str(folder / "in.txt")], "apt-get install coreutils"),
        Program("git", ["git", "-C", str(repository(folder)), "log", "-p", "--stat", "-M", "main"],
                "apt-get install git"),
        Program("node", ["node", "-e", _NODE], "apt-get install nodejs"),
    ]


def build(folder: Path, name: str, source: str, *flags: str) -> Path:
    target = folder / name
    (folder / (name + ".c")).write_text(source)
    compiler = os.environ.get("CC", "cc").split()
    try:
        done = subprocess.run([*compiler, "-O2", *flags, str(target) + ".c", "-o", str(target)],
                              capture_output=True, text=True)
    except OSError as error:
        raise BenchError(f"--dropin needs a C compiler (apt-get install gcc): {error}") from error
    if done.returncode != 0:
        raise BenchError(f"cannot compile {name}: {done.stderr}")
    return target


def start(
    starter: Path, one: Allocator, command: Sequence[str], output: Path, times: int = 1,
    extra: Optional[Mapping[str, str]] = None
) -> Tuple[int, int]:
    """(nanoseconds, peak KiB) of *command* under *one*; its output goes to *output*."""
    environment = {**runner.child_environment(one), "PYTHONMALLOC": "malloc", "PYTHONHASHSEED": "0", **(extra or {})}
    environment.pop("LD_PRELOAD", None)
    words = [str(starter), str(times), one.library or "-", str(output), *command]
    # In a process group of its own, so that a timeout ends what it started as well.
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          errors="replace", start_new_session=True) as child:
        try:
            out, err = child.communicate(timeout=TIMEOUT_S * max(1, times // 100))
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{one.name}: {command[0]} did not end within {error.timeout:.0f} s") from error
        finally:
            if child.returncode is None:
                os.killpg(child.pid, signal.SIGKILL)
    fields = out.split()
    if child.returncode != 0 or len(fields) != 3 or fields[2] != "0" or "cannot be preloaded" in err:
        raise BenchError(f"{one.name}: {command[0]} failed: {out.strip()} {err.strip()}")
    return int(fields[0]), int(fields[1])


def check_preload(starter: Path, one: Allocator, program: Program, folder: Path) -> None:
    """Error unless the dynamic linker says that the program got the allocator (a static one would run on its own)."""
    if one.library is None:
        return
    log = folder / "linker"
    start(starter, one, program.command, folder / "out",
          extra={"LD_DEBUG": "files", "LD_DEBUG_OUTPUT": str(log)})
    said = [path for path in folder.glob("linker.*")]
    loaded = any(f"calling init: {one.library}" in path.read_text(errors="replace") for path in said)
    for path in said:
        path.unlink()
    if not loaded:
        raise BenchError(f"{one.name}: {program.name} runs without it (statically linked, or set-user-id?)")


def check_output(program: str, allocator: str, expected: bytes, got: bytes) -> None:
    if expected != got:
        raise BenchError(f"{program}: the output under {allocator} differs from that under glibc")


Samples = Dict[str, Dict[str, List[Tuple[float, float]]]]  # program -> allocator -> (time, RSS) by round


def ratios(samples: Samples, peer: str, field: int) -> List[float]:
    """Ours / *peer* by round: the geometric mean over the programs."""
    rows = [stats.paired_ratios([s[field] for s in by[OURS]], [s[field] for s in by[peer]])
            for by in samples.values()]
    return stats.geometric_mean_per_round(rows)


def _row(text: str, values: Sequence[float], bound: Optional[float]) -> Row:
    return Row(text, stats.summarize(values) if values else None, bound)


def _best(samples: Samples, peers: Sequence[str]) -> str:
    """The peer with the lowest geometric mean of its medians."""
    def mean(peer: str) -> float:
        return stats.geometric_mean(stats.summarize([s[0] for s in by[peer]]).median for by in samples.values())

    return min(peers, key=mean)


def _worst(samples: Samples, peers: Sequence[str]) -> Tuple[str, List[float]]:
    """The test in which we are slowest against the median peer, and the ratios. mimalloc counts once there."""
    middle_peers = [peer for peer in peers if peer != "mimalloc-nothp"]
    worst: List[Tuple[float, str, List[float]]] = []
    for name, by in samples.items():
        middle = [stats.summarize(column).median for column in zip(*([s[0] for s in by[p]] for p in middle_peers))]
        found = stats.paired_ratios([s[0] for s in by[OURS]], middle)
        worst.append((stats.summarize(found).median, name, found))
    _, name, found = max(worst)
    return name, found


def rows_of(samples: Samples, what: str) -> List[Row]:
    """Time and peak RSS of these tests, all peers."""
    if not samples:
        return []
    peers = [name for name in next(iter(samples.values())) if name != OURS]
    best = _best(samples, peers)
    name, worst = _worst(samples, peers)
    nothp = ratios(samples, "mimalloc-nothp", 1) if "mimalloc-nothp" in peers else []
    return [
        _row(f"{what}: time / best single peer ({best} of {', '.join(peers)})", ratios(samples, best, 0), 0.97),
        _row(f"{what}: time / glibc", ratios(samples, "glibc", 0), 0.80),
        _row(f"{what}, the worst ({name}): time / median peer", worst, 1.15),
        _row(f"{what}: peak RSS / glibc", ratios(samples, "glibc", 1), 1.08),
        _row(f"{what}: peak RSS / mimalloc-nothp", nothp, 0.85),
    ]


def startup_rows(by: Mapping[str, Sequence[Tuple[float, float]]]) -> List[Row]:
    ours = [s[0] for s in by[OURS]]
    rows = []
    for peer, bound in (("empty", 1.05), ("mimalloc", 1.0)):
        rows.append(_row(f"start-up of true: time / {peer}",
                         stats.paired_ratios(ours, [s[0] for s in by.get(peer, [])]), bound))
    return rows


def cells(rows: Sequence[Row]) -> List[List[report.Cell]]:
    made = []
    for row in rows:
        s = row.summary
        bound = "-" if row.bound is None else f"{row.bound:g}"
        words = [row.clause, "-" if s is None else f"{s.median:.3f}", bound, row.met,
                 "-" if s is None else f"{s.q1:.3f} - {s.q3:.3f}"]
        made.append([report.Cell(word) for word in words])
    return made


def _kernel_tests(wanted: Sequence[str], known: Sequence[str]) -> List[catalog.Workload]:
    """Kernels, traces and the drop-in's own workloads that *wanted* names, or all."""
    there = [*catalog.all_tests(), *catalog.dropin()]
    names = {test.name for test in there}
    unknown = [word for word in wanted if word not in names and word not in known]
    if unknown:
        listed = ", ".join([*known, *sorted(names)])
        raise BenchError(f"--only: no such clause or program: {', '.join(unknown)} (there are: {listed})")
    return there if not wanted or KERNELS in wanted else [test for test in there if test.name in wanted]


def measure_programs(chosen: Sequence[Program], found: Sequence[Allocator], starter: Path, folder: Path, number: int,
                     samples: Samples) -> None:
    """One round of the programs, added to *samples*."""
    for at, program in enumerate(chosen):
        outputs: Dict[str, bytes] = {}
        for one in runner.rotated(found, number + at):
            samples[program.name][one.name].append(start(starter, one, program.command, folder / "out"))
            outputs[one.name] = (folder / "out").read_bytes()
        for other, got in outputs.items():
            check_output(program.name, other, outputs["glibc"], got)


def run(rounds: int, only: Optional[Sequence[str]], target: Optional[str], peers: Optional[str] = None) -> int:
    """Measures, prints; 0 all met, 1 a clause is not met."""
    found, missing = allocators.find()
    found = allocators.select(found, peers)
    if not any(one.name == "glibc" for one in found):
        raise BenchError("--peers: glibc must be among them; the programs' output is compared with its run")
    wanted = [word for item in only or [] for word in item.split(",")]
    notes = [f"{name} is not installed, skipped; to get it: {hint}" for name, hint in missing.items()]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyalloc-dropin-")))
        listed = programs(folder)
        tests = _kernel_tests(wanted, [STARTUP, KERNELS, *(p.name for p in listed)])
        starter = build(folder, "starter", Path(__file__).with_name("starter.c").read_text())
        empty = Allocator("empty", str(build(folder, "empty.so", "", "-shared", "-fPIC")))
        samples: Samples = {}
        startup: Dict[str, List[Tuple[float, float]]] = {}
        chosen = [p for p in listed if not wanted or p.name in wanted]
        for program in [p for p in chosen if shutil.which(p.command[0]) is None]:
            notes.append(f"{program.name} is not installed, skipped; to get it: {program.hint}")
            chosen.remove(program)
        for program in chosen:
            for one in found:
                check_preload(starter, one, program, folder)
            samples[program.name] = {one.name: [] for one in found}
        jobs = runner.prepare(stack, runner.kernels_path(), tests, 1.0) if tests else []
        results = runner.Results(tests, found)
        for number in range(rounds):
            print(f"round {number + 1} of {rounds} ...", file=sys.stderr, flush=True)
            measure_programs(chosen, found, starter, folder, number, samples)
            runner.run_round(runner.kernels_path(), jobs, results, number)
            if not wanted or STARTUP in wanted:
                for one in runner.rotated([*found, empty], number):
                    figures = start(starter, one, ["true"], folder / "out", TRUE_TIMES)
                    startup.setdefault(one.name, []).append(figures)
    own_clauses = {test.name for test in catalog.dropin()}
    together = {**samples, **dropin_kernels.samples(results, [t.name for t in tests if t.name not in own_clauses])}
    rows = rows_of(together, "all tests") if len(together) > len(samples) else []
    rows += rows_of(samples, "programs") + (startup_rows(startup) if startup else [])
    rows += [_row(*clause) for clause in dropin_kernels.clauses(results)]
    for note in notes:
        print(note, file=sys.stderr)
    if target != "-":
        report.print_table("Drop-in", ["clause", "figure", "bound", "met?", "quartiles"], cells(rows), 1)
    if target:
        value: Dict[str, Any] = {"samples": samples, "startup": startup, "kernels": runner.as_json(results), "rows": [
            {"clause": r.clause, "bound": r.bound, "met": r.met,
             "measured": None if r.summary is None else r.summary.as_dict()} for r in rows]}
        report.emit_json(target, value)
    return 1 if any(r.met == "NO" for r in rows) else 0
