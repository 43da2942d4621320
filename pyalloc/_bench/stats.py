"""The arithmetic of comparisons: paired ratios, medians, quartiles, geometric means.

Why paired: on a shared machine the speed of everything drifts.  Two measurements taken within one round
saw the same drift, so their ratio is steadier than the ratio of two medians.
"""

from __future__ import annotations

import math
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence


class Summary(NamedTuple):
    """Median and quartiles of *n* values."""

    median: float
    q1: float
    q3: float
    n: int

    @property
    def iqr(self) -> float:
        return self.q3 - self.q1

    def as_dict(self) -> Dict[str, float]:
        return {"median": self.median, "q1": self.q1, "q3": self.q3, "iqr": self.iqr, "n": self.n}


def quantile(ordered: Sequence[float], q: float) -> float:
    """The q-quantile of sorted values, interpolated linearly (type 7 of Hyndman and Fan, numpy's default)."""
    if not ordered:
        raise ValueError("no values")
    at = q * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def summarize(values: Iterable[float]) -> Summary:
    """Median and quartiles; ValueError when there are no values."""
    ordered = sorted(values)
    return Summary(quantile(ordered, 0.5), quantile(ordered, 0.25), quantile(ordered, 0.75), len(ordered))


def paired_ratios(ours: Sequence[Optional[float]], theirs: Sequence[Optional[float]]) -> List[float]:
    """ours / theirs for each round in which both were measured; rounds without either are left out."""
    return [a / b for a, b in zip(ours, theirs) if a is not None and b is not None and b > 0]


def geometric_mean(values: Iterable[float]) -> float:
    """The geometric mean of positive values; ValueError when there are none."""
    logs = [math.log(value) for value in values]
    if not logs:
        raise ValueError("no values")
    return math.exp(math.fsum(logs) / len(logs))


def geometric_mean_per_round(rows: Sequence[Sequence[Optional[float]]]) -> List[float]:
    """One geometric mean per round over several tests' ratios; rounds that lack a test are left out."""
    return [
        geometric_mean([v for v in column if v is not None]) for column in zip(*rows) if None not in column
    ]
