"""The execution trace under threads: storms, races of start and stop, overwriting, fork; plain and sanitized."""

import pytest

from cprograms import must_pass


@pytest.mark.parametrize("variant", ["plain", "asserts", "asan", "tsan"])
def test_start_and_stop_in_a_storm(built, variant):
    assert must_pass([built(variant) / "tracing", "storm", "rounds=20" if variant == "tsan" else "rounds=40"]) == (
        "storm ok\n")


@pytest.mark.parametrize("variant", ["plain", "asserts", "tsan"])
def test_no_torn_events(built, variant):
    assert must_pass([built(variant) / "tracing", "torn"]) == "torn ok\n"


def test_assists_appear(built):
    assert must_pass([built("plain") / "tracing", "assists"]) == "assists ok\n"
