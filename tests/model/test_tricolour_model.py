"""The hybrid barrier loses nothing while frames are scanned once; each weaker one needs what Go paid for it."""

import pytest

from explorer import Violation, explore
from tricolour_model import POLICIES, Model

STEPS = {"load root", "load", "drop", "allocate", "store", "the cycle begins", "scan root", "scan object",
         "the cycle ends"}

# What each policy must do, and why.
SAFE = {
    "hybrid": "Go 1.8: frames are scanned once, one by one",
    "hybrid, both before the write": "what pa_store does",
    "hybrid, new value only while the frame is grey":
        "the proposal's condition; a white object in a black frame has another protector, whose deletion shades it",
    "insertion, rescan": "Go 1.5 and 1.6: frames are black when marking ends, at the price of a long stop",
    "deletion, frames scanned together": "a snapshot at the beginning: all frames in one stop",
}
UNSAFE = {
    "hybrid, allocating white": "nothing leads to it but a frame that was scanned",
    "insertion": "loaded into a scanned frame, then deleted from the heap",
    "deletion": "from a frame not yet scanned into a black object, then dropped",
    "deletion, rescan": "the black object is not scanned again",
    "none": "",
    "none, rescan": "",
}


@pytest.mark.parametrize("policy", SAFE)
def test_safe(policy):
    graph = explore(Model(policy, atomic_stores=True))
    together = POLICIES[policy].frames_together
    assert graph.steps_taken == (STEPS if together else STEPS | {"scan frame"})
    assert graph.nstates > 3000


@pytest.mark.parametrize("policy", UNSAFE)
@pytest.mark.parametrize("objects, registers", [(2, (2, 1)), (3, (2,))])
def test_unsafe(policy, objects, registers):
    with pytest.raises(Violation) as caught:
        explore(Model(policy, objects, registers, atomic_stores=True))
    assert caught.value.kind == "lost object", str(caught.value)
    assert caught.value.trace[-1].startswith("then ")


@pytest.mark.soak
@pytest.mark.parametrize("policy", list(SAFE)[:3])
def test_safe_when_stores_overlap(policy):
    assert "store writes" in explore(Model(policy)).steps_taken


@pytest.mark.soak
@pytest.mark.parametrize("policy", SAFE)
def test_safe_with_three_objects(policy):
    explore(Model(policy, objects=3, registers=(2,), atomic_stores=True))


def test_every_policy_is_judged():
    assert {*SAFE, *UNSAFE} == set(POLICIES)
