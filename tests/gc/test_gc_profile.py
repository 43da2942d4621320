"""Managed objects in the heap profile: estimates in every mode, and starts and stops in a storm of cycles."""

import pytest

from cprograms import must_pass
from gc_programs import MODES


@pytest.mark.parametrize("mode", MODES)
def test_sums_are_unbiased(built, mode):
    assert must_pass([built("plain") / "profile", "sums", f"mode={MODES[mode]}"]) == "sums ok\n"


@pytest.mark.parametrize("variant", ["plain", "asserts", "asan", "tsan"])
def test_start_and_stop_in_a_storm(built, variant):
    assert must_pass([built(variant) / "profile", "storm"]) == "storm ok\n"


def test_sums_with_all_asserts(built):
    assert must_pass([built("asserts") / "profile", "sums"]) == "sums ok\n"
