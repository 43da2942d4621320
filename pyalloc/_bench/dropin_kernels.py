"""What the drop-in bars take from the kernels: figures beside those of whole programs, and clauses of their own.

Clauses: resident memory 5 s after a burst that leaves survivors, growth by doubling, scaling from one thread to two,
and how often locks that threads share are taken by 64 threads.  The workloads are in ``catalog.dropin``.
"""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

from pyalloc._bench.allocators import OURS
from pyalloc._bench.runner import Results

#: A clause: text, one value a round (none: skipped), bound (None: reported only).
Clause = Tuple[str, List[float], Optional[float]]

SCALING = 0.97
LOCKS_SMALL = ("locks-sizemix", "locks-threadtest", "locks-larson", "locks-large")


def samples(results: Results, names: Sequence[str]) -> Dict[str, Dict[str, List[Tuple[float, float]]]]:
    """(ns an operation, peak KiB) by test and allocator, as ``dropin`` has them for programs."""
    found = {}
    for name in names:
        times = {one.name: results.values(name, one.name, "ns_per_op") for one in results.allocators}
        peaks = {one.name: results.values(name, one.name, "peak_rss_kib") for one in results.allocators}
        found[name] = {who: [(t, p) for t, p in zip(times[who], peaks[who]) if t is not None and p is not None]
                       for who in times}
    return found


def _own(results: Results, test: str, field: str, per: Optional[str] = None) -> List[float]:
    """Our values of a field, or of its ratio to another."""
    found = []
    for sample in results.samples(test, OURS):
        if sample is not None and field in sample:
            found.append(float(sample[field]) / (float(sample[per]) if per else 1.0))
    return found


def _survivors(results: Results) -> List[Clause]:
    names = {test.name for test in results.tests}
    rows: List[Clause] = []
    for test, text in (("survivors-phase", "the first tenth survives"),
                       ("survivors-20000", "a random tenth of 20,000-byte blocks survives")):
        if test in names:
            percent = _own(results, test, "rss_over_live_percent")
            rows.append((f"5 s after a burst, {text}: RSS / live bytes", [value / 100 for value in percent], 1.3))
    if "survivors-random" in names:
        by_peer = {peer: results.ratios("survivors-random", peer, "held_kib") for peer in results.peers}
        # The best peer is the one against which we look worst.
        best = max(by_peer, key=lambda peer: sorted(by_peer[peer])[len(by_peer[peer]) // 2], default=None)
        rows.append((f"the same, a random tenth of small blocks: RSS / best peer ({best})",
                     by_peer[best] if best else [], 1.05))
    return rows


def _speedups(results: Results, who: str) -> List[float]:
    one, two = results.values("churn-1t", who, "ns_per_op"), results.values("churn-2t", who, "ns_per_op")
    return [a / b for a, b in zip(one, two) if a is not None and b]


def _scaling(results: Results) -> List[Clause]:
    if not {"churn-1t", "churn-2t"} <= {test.name for test in results.tests}:
        return []
    middle = {peer: sorted(_speedups(results, peer))[len(_speedups(results, peer)) // 2] for peer in results.peers}
    best = max(middle, key=lambda peer: middle[peer], default=None)
    values = [theirs / ours for theirs, ours in zip(_speedups(results, best), _speedups(results, OURS))] if best else []
    return [(f"speed-up from one thread to two: best peer ({best}) / ours", values, 1 / SCALING)]


def _locks(results: Results) -> List[Clause]:
    names = {test.name for test in results.tests}
    rows: List[Clause] = [(f"{test}: shared locks taken / 1,000 operations",
                           [1000 * value for value in _own(results, test, "shared_locks", "ops")], 5)
                          for test in LOCKS_SMALL if test in names]
    if "locks-huge" in names:
        rows.append(("locks-huge: shared locks taken / operation",
                     _own(results, "locks-huge", "shared_locks", "ops"), 2))
    for test in (*LOCKS_SMALL, "locks-huge"):
        if test in names:
            means, longest = _holds(results, test)
            rows.append((f"{test}: a shared lock is held, mean ns", means, None))
            rows.append((f"{test}: the longest hold, ns (preemption included)", longest, None))
    return rows


def _holds(results: Results, test: str) -> Tuple[List[float], List[float]]:
    """Mean and longest hold of the page heap's and the size classes' locks by round, ns; these runs measure them."""
    means, longest = [], []
    for sample in results.samples(test, OURS):
        held = [kind for kind in ("MHEAP", "MCENTRAL") if sample is not None and f"lock_{kind}_taken" in sample]
        if sample is not None and held:
            taken = sum(sample[f"lock_{kind}_taken"] for kind in held)
            means.append(sum(sample[f"lock_{kind}_hold_ns"] for kind in held) / taken)
            longest.append(float(max(sample[f"lock_{kind}_hold_max_ns"] for kind in held)))
    return means, longest


def _growth(results: Results) -> List[Clause]:
    if "growth-256m" not in {test.name for test in results.tests} or "glibc" not in results.peers:
        return []
    return [("doubling to 256 MiB: time / glibc", results.ratios("growth-256m", "glibc", "ns_per_op"), 1.1),
            ("doubling to 256 MiB: peak RSS / glibc", results.ratios("growth-256m", "glibc", "peak_rss_kib"), 1.1)]


def clauses(results: Results) -> List[Clause]:
    return [*_survivors(results), *_scaling(results), *_locks(results), *_growth(results)]
