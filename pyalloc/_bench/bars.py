"""The performance bars that the allocator must meet, as data, and their verdicts.

A clause compares one field of one or more tests with one peer, or with the best of several: the peer
whose median over all rounds is the lowest is chosen first, then the ratios are paired with that one.  Over
several tests the geometric mean is formed within each round.  The verdict is on the median; the quartiles
stand beside it, so that a reader sees how sure it is.  A clause whose peer is absent is skipped, and said
to be.
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from pyalloc._bench import catalog, stats
from pyalloc._bench.allocators import OURS
from pyalloc._bench.catalog import KIB, MIB, Workload
from pyalloc._bench.runner import FIELDS, Results

ROUNDS = 9
SMALL = (16, 32, 64, 128, 256, 512, 1024)
MIDDLE = (8 * KIB, 16 * KIB, 32 * KIB, 64 * KIB)
LARGE = (64 * KIB, 256 * KIB, MIB, 4 * MIB)
THREADS = 2
SLACK_MIB = 3

PASS, FAIL, SKIPPED = "pass", "FAIL", "skipped"


class Clause(NamedTuple):
    bar: int
    text: str
    tests: Tuple[str, ...]
    field: str  # "time", "rss", or a field of the sample that is judged without a peer
    limit: float
    peers: Tuple[str, ...] = ()  # empty: any peer


class Verdict(NamedTuple):
    clause: Clause
    status: str
    against: str
    summary: Optional[stats.Summary]

    def as_dict(self) -> Dict[str, object]:
        return {
            "bar": self.clause.bar,
            "text": self.clause.text,
            "tests": list(self.clause.tests),
            "field": self.clause.field,
            "limit": self.clause.limit,
            "against": self.against,
            "status": self.status,
            "measured": None if self.summary is None else self.summary.as_dict(),
        }


def tests() -> List[Workload]:
    """What has to be run for all clauses."""
    wanted = ("batch-random", "xthread-64", "xthread-mixed", "large-mixed")
    found = [catalog.pair(size, 8_000_000) for size in SMALL]
    found += [catalog.pair(size, 2_000_000) for size in MIDDLE[:-1]]
    found += [catalog.pair(MIDDLE[-1], 600_000), catalog.pair(MIB, 300_000)]
    by_size = {64 * KIB: 200_000, 256 * KIB: 50_000, MIB: 15_000, 4 * MIB: 3_000}
    found += [catalog.large(size, by_size[size]) for size in LARGE]
    found += catalog.by_name(wanted)
    options = {"size": 64 * KIB, "size-max": 4 * MIB, "live": 8, "threads": THREADS}
    found.append(Workload("large-threads", "large", options, 6_000, "the same with active threads"))
    return found + catalog.traces()


def clauses() -> List[Clause]:
    """Bars 1 to 4 of the allocator, one line each."""
    traces = tuple(test.name for test in catalog.traces())
    made = []
    for size in SMALL:
        name = (f"pair-{catalog.human(size)}",)
        made.append(Clause(1, f"malloc+free {size} B", name, "time", 1.00, ("mimalloc", "tcmalloc")))
        made.append(Clause(1, f"malloc+free {size} B", name, "time", 0.70, ("glibc",)))
    for size in MIDDLE:
        name = (f"pair-{catalog.human(size)}",)
        made.append(Clause(1, f"malloc+free {size // KIB} KiB", name, "time", 1.25, ("tcmalloc",)))
    made.append(Clause(1, "malloc+free 1 MiB", ("pair-1m",), "time", 1.10, ("glibc",)))
    made.append(Clause(2, "random free of 10,000 mixed", ("batch-random",), "time", 0.90, ("mimalloc",)))
    made.append(Clause(2, "free by another thread, 64 B", ("xthread-64",), "time", 0.60, ("mimalloc",)))
    made.append(Clause(2, "free by another thread, mixed", ("xthread-mixed",), "time", 0.60, ("tcmalloc",)))
    for size in LARGE:
        name = (f"large-{catalog.human(size)}",)
        made.append(Clause(3, f"malloc/touch/free {size // KIB} KiB", name, "time", 1.05))
        made.append(Clause(3, f"page faults, {size // KIB} KiB loop", name, "minor_faults", 0))
    made.append(Clause(3, "malloc/touch/free mixed, 8 alive", ("large-mixed",), "time", 1.05))
    made.append(Clause(3, "page faults, mixed loop", ("large-mixed",), "minor_faults", 0))
    made.append(
        Clause(3, "KiB kept after free_os_memory()", ("large-mixed",), "rss_kept_kib", SLACK_MIB * 1024)
    )
    made.append(
        Clause(
            3,
            f"the same with {THREADS} other active threads",
            ("large-threads",),
            "rss_kept_kib",
            (SLACK_MIB + THREADS) * 1024,
        )
    )
    made.append(Clause(4, "trace replays, time", traces, "time", 0.82, ("glibc",)))
    made.append(Clause(4, "trace replays, time", traces, "time", 1.00, ("mimalloc",)))
    made.append(Clause(4, "trace replays, peak RSS", traces, "rss", 1.08, ("glibc",)))
    made.append(Clause(4, "trace replays, peak RSS", traces, "rss", 0.60, ("mimalloc",)))
    made.append(Clause(4, "trace replays, peak RSS", traces, "rss", 0.90, ("mimalloc-nothp",)))
    return made


def best_peer(results: Results, names: Sequence[str], field: str, candidates: Sequence[str]) -> Optional[str]:
    """The candidate with the lowest geometric mean of its medians; None when none was measured."""
    scores = []
    for peer in candidates:
        medians = [results.summary(name, peer, field) for name in names]
        values = [one.median for one in medians if one is not None and one.median > 0]
        if len(values) == len(names):
            scores.append((stats.geometric_mean(values), peer))
    return min(scores)[1] if scores else None


def _own_values(results: Results, clause: Clause) -> List[float]:
    found = []
    for sample in results.samples(clause.tests[0], OURS):
        if sample is None:
            continue
        if clause.field != "rss_kept_kib":
            found.append(float(sample[clause.field]))
        elif "rss_released_kib" in sample:  # only where the library has pa_free_os_memory
            found.append(float(sample["rss_released_kib"] - sample["rss_start_kib"]))
    return found


def judge(results: Results, clause: Clause) -> Verdict:
    if clause.field not in FIELDS:
        values, against = _own_values(results, clause), "-"
    else:
        field = FIELDS[clause.field]
        candidates = [peer for peer in (clause.peers or results.peers) if peer in results.peers]
        chosen = best_peer(results, clause.tests, field, candidates)
        if chosen is None or (clause.peers and len(candidates) < len(clause.peers)):
            return Verdict(clause, SKIPPED, "/".join(clause.peers) or "any peer", None)
        rows = []
        for name in clause.tests:
            pairs = zip(results.values(name, OURS, field), results.values(name, chosen, field))
            rows.append([a / b if a is not None and b else None for a, b in pairs])
        values, against = stats.geometric_mean_per_round(rows), chosen
    if not values:
        return Verdict(clause, SKIPPED, against, None)
    summary = stats.summarize(values)
    return Verdict(clause, PASS if summary.median <= clause.limit else FAIL, against, summary)
