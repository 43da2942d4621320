"""Which bin holds empty spans of how many pages: exact up to 16 pages, then eight bins a doubling."""

import pytest

from whitebox import lib


def oracle(npages):
    if npages <= 16:
        return npages - 1
    exponent = npages.bit_length() - 1
    return 16 + (exponent - 4) * 8 + (npages - (1 << exponent)) // (1 << (exponent - 3))


def test_limits():
    assert (lib.pa_xbin_max_pages(), lib.pa_xbin_count()) == (512, 64)


def test_every_length_against_an_oracle():
    for npages in range(1, 513):
        assert lib.pa_xbin_of(npages) == oracle(npages) < lib.pa_xbin_count(), npages


def test_bins_ascend_and_are_narrow():
    """Taking from the bin of n pages wastes less than an eighth: the first and last length of a bin are that close."""
    lengths = {}
    for npages in range(1, 513):
        lengths.setdefault(lib.pa_xbin_of(npages), []).append(npages)
    assert list(lengths) == sorted(lengths)
    for in_bin in lengths.values():
        assert in_bin == list(range(in_bin[0], in_bin[-1] + 1))
        assert in_bin[-1] < in_bin[0] * 9 / 8


@pytest.mark.parametrize(
    "npages, expected",
    [
        (1, 0),
        (16, 15),
        (17, 16),
        (18, 17),
        (31, 23),
        (32, 24),
        (35, 24),
        (36, 25),
        (63, 31),
        (64, 32),
        (511, 55),
        (512, 56),
    ],
)
def test_boundaries(npages, expected):
    assert lib.pa_xbin_of(npages) == expected
