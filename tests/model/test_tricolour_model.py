"""The hybrid barrier loses nothing while frames are scanned once; each weaker one needs what Go paid for it."""

import pytest

from explorer import Violation, explore
from tricolour_model import POLICIES, Model

STEPS = {"load root", "load", "drop", "allocate", "store", "the cycle begins", "scan root", "scan frame",
         "scan object", "the cycle ends"}

SAFE = ["hybrid", "hybrid, both before the write", "insertion, rescan", "deletion, frames scanned together"]
# Stores that overlap make it unsound although each of them alone is right.
RACE_ONLY = ["hybrid, new value only while the frame is grey"]
UNSAFE = ["hybrid, allocating white", "insertion", "deletion", "none", "none, rescan"]


@pytest.mark.parametrize("policy", SAFE)
def test_safe(policy):
    graph = explore(Model(policy, objects=2))
    assert graph.steps_taken - {"scan frame"} == (STEPS | {"store writes"}) - {"scan frame"}
    assert explore(Model(policy, objects=3, mutators=1)).nstates > 1000


@pytest.mark.parametrize("policy", UNSAFE)
def test_unsafe(policy):
    with pytest.raises(Violation) as caught:
        explore(Model(policy, atomic_stores=True))
    assert caught.value.kind == "lost object", str(caught.value)
    assert caught.value.trace


def test_rest():
    assert set(POLICIES) >= {*SAFE, *RACE_ONLY, *UNSAFE}
