"""The asymmetric stop holds in every interleaving with store buffers, and only with its barrier."""

import pytest

from explorer import Violation, explore
from stop_model import MUTATIONS, Model

STEPS = {"stores inside", "is inside", "sees its flag", "waited", "changes first", "changes second",
         "polls and goes on", "polls and stops", "leaves", "set", "see", "stopped", "clear", "a store arrives"}

TORN, STALE = "torn pair in a stopped world", "stale after a stop"
# What each wrong protocol runs into when only harm counts.
HARM = {
    "look_first": {TORN, STALE},
    "stopper_looks_first": {TORN, STALE},
    "leave_relaxed": {TORN},
    "wait_inside": {"deadlock"},
    "enter_after_wait": {TORN, STALE},
    "clear_relaxed": {STALE},
    "barrier_misses_one": {TORN, STALE},
    "flags_after_barrier": {TORN, STALE},
}


def test_membarrier():
    assert explore(Model(1), rename=False).steps_taken == STEPS | {"barrier"}


def test_membarrier_with_two_threads():
    graph = explore(Model(2, room=2), rename=False)
    assert graph.steps_taken == STEPS | {"barrier", "looks around"}
    assert graph.nstates > 10000


@pytest.mark.soak
def test_membarrier_with_two_threads_and_larger_buffers():
    explore(Model(2, room=3), rename=False)


def test_sequential_consistency_where_membarrier_is_missing():
    assert explore(Model(1, fence="seq_cst"), rename=False).steps_taken == STEPS | {"fence"}
    assert explore(Model(2, fence="seq_cst", room=2), rename=False).steps_taken == STEPS | {"fence", "looks around"}


def test_without_a_barrier_somebody_is_inside_a_stopped_world():
    with pytest.raises(Violation) as caught:
        explore(Model(1, fence="none"), rename=False)
    assert caught.value.kind == "inside a stopped world"
    # The classic: both store, both look, both go ahead; inside = 1 has not arrived.
    assert [line for line in caught.value.trace if line == "thread 0: a store arrives"] == []
    with pytest.raises(Violation) as caught:
        explore(Model(1, fence="none", strict=False), rename=False)
    assert caught.value.kind in (TORN, STALE)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_wrong_protocols_do_harm(mutation):
    with pytest.raises(Violation) as caught:
        explore(Model(1, mutation=mutation, strict=False), rename=False)
    assert caught.value.kind in HARM[mutation], str(caught.value)
    assert caught.value.trace
