"""The arithmetic behind every ratio that the benchmark prints."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyalloc._bench import report, stats

POSITIVE = st.floats(min_value=1e-6, max_value=1e6)


@pytest.mark.parametrize(
    "values, q1, median, q3",
    [
        ([3.0], 3, 3, 3),
        ([1.0, 2.0], 1.25, 1.5, 1.75),
        ([5.0, 1.0, 3.0], 2, 3, 4),
        ([4.0, 1.0, 3.0, 2.0], 1.75, 2.5, 3.25),
        ([9, 1, 8, 2, 7, 3, 6, 4, 5], 3, 5, 7),
    ],
)
def test_quartiles_interpolate_linearly(values, q1, median, q3):
    got = stats.summarize(values)
    assert (got.q1, got.median, got.q3, got.n) == pytest.approx((q1, median, q3, len(values)))
    assert got.iqr == pytest.approx(q3 - q1)


def test_no_values_is_an_error():
    with pytest.raises(ValueError):
        stats.summarize([])
    with pytest.raises(ValueError):
        stats.geometric_mean([])


def test_one_round_has_no_spread_to_show():
    assert report.ratio_text(stats.summarize([0.5])) == "0.50"
    assert report.ratio_text(stats.summarize([0.4, 0.5, 0.6])) == "0.50 ±10%"
    assert report.ratio_text(stats.summarize([0.0, 0.0])) == "0.00" and report.ratio_text(None) == "-"


def test_ratios_are_paired_within_a_round():
    ours, theirs = [1.0, 20.0, None, 4.0], [2.0, 40.0, 1.0, None]
    assert stats.paired_ratios(ours, theirs) == [0.5, 0.5]
    # the ratio of medians would be 4/2 = 2 here: pairing is what makes a drifting machine harmless
    assert stats.summarize(stats.paired_ratios(ours, theirs)).median == 0.5
    assert stats.paired_ratios([1.0], [0.0]) == []


def test_geometric_mean():
    assert stats.geometric_mean([2.0, 8.0]) == pytest.approx(4)
    assert stats.geometric_mean([0.5, 2.0]) == pytest.approx(1)


def test_geometric_mean_per_round_leaves_out_incomplete_rounds():
    rows = [[1.0, 2.0, 3.0], [4.0, 8.0, None]]
    assert stats.geometric_mean_per_round(rows) == pytest.approx([2.0, 4.0])


@given(st.lists(POSITIVE, min_size=1, max_size=30))
def test_summary_is_ordered_and_within_the_values(values):
    got = stats.summarize(values)
    assert min(values) <= got.q1 <= got.median <= got.q3 <= max(values)


@given(st.lists(POSITIVE, min_size=1, max_size=30))
def test_swapping_sides_inverts_the_geometric_mean(values):
    inverse = stats.geometric_mean([1 / v for v in values])
    assert math.isclose(stats.geometric_mean(values) * inverse, 1, rel_tol=1e-9)
