"""base/poisson: distances are exponential, weights the reciprocal of the chance, both against Python's math."""

import math

import pytest

from whitebox import ffi, lib

ONE = 1024      # PA_WEIGHT_ONE


def numbers(count, seed=1):
    state = ffi.new("uint64_t *", seed)
    return [lib.pa_xrandom_next(state) for _ in range(count)]


def test_random_numbers_are_splitmix64s():
    assert numbers(3, 1234567) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("rate", [2, 1000, 512 * 1024, 2**40])
def test_distances_are_logarithms(rate):
    for random in [0, 1, 2**11, 2**63, 2**64 - 1, *numbers(2000)]:
        wanted = -math.log(((random >> 11) * 2 + 1) / 2**54) * rate
        assert lib.pa_xpoisson_distance(random, rate) == pytest.approx(math.floor(wanted), rel=1e-12, abs=1)


def test_a_rate_of_one_is_every_byte():
    assert {lib.pa_xpoisson_distance(random, 1) for random in numbers(100)} == {0}
    assert lib.pa_xpoisson_weight(1, 1) == lib.pa_xpoisson_weight(10**9, 1) == ONE


@pytest.mark.parametrize("rate", [2, 1000, 512 * 1024, 2**40])
@pytest.mark.parametrize("nbytes", [1, 8, 100, 4096, 2**20, 2**32, 2**46])
def test_weights_are_reciprocals_of_chances(nbytes, rate):
    wanted = ONE / -math.expm1(-nbytes / rate)
    assert lib.pa_xpoisson_weight(nbytes, rate) == pytest.approx(wanted, rel=1e-9, abs=0.5000001)


def test_distances_have_the_exponential_distribution():
    """Mean, and the share beyond each multiple of the rate; 200,000 draws of a fixed seed, five standard errors."""
    rate, count = 4096, 200_000
    drawn = [lib.pa_xpoisson_distance(random, rate) / rate for random in numbers(count, 42)]
    assert abs(sum(drawn) / count - 1) < 5 / math.sqrt(count) + 1 / rate
    for beyond in (0.1, 0.5, 1, 2, 4):
        chance = math.exp(-beyond)
        error = math.sqrt(chance * (1 - chance) / count)
        assert abs(sum(one > beyond for one in drawn) / count - chance) < 5 * error + 1 / rate
