"""The claim protocol holds in every interleaving, and the checker that says so can fail.

The tests of the C code meet the same protocol through yield points; here it is explored whole.
"""

import pytest

from explorer import Violation, explore
from remote_free_model import MUTATIONS, Model
from remote_free_state import Thread, canonical

STEPS = {
    # what an idle thread can begin
    "malloc pops", "malloc misses", "malloc makes the partial span current", "malloc gets a new span",
    "malloc asks mcentral", "free", "own tick", "mcentral tick", "exit", "attach",
    # steps on the way
    "malloc_collected", "abandon_owner", "abandon_cas", "take_back", "collect", "collect_exchange",
    "collect_merge", "free_local", "push_load", "push_cas", "claim_owner", "own_collected", "orphan_begin",
    "orphan_owner", "orphan_collected", "orphan_end", "exit_collected", "exited", "put_lock", "put_owner",
    "put_link", "take_lock", "take_unlink", "taken", "tick_lock", "tick_unlink", "ticked", "to_mheap",
}

# What each wrong protocol runs into when the words of the span are not checked, only harm.
HARM = {
    "abandon_cas_first": "touched in mheap",
    "abandon_by_store": "block lost",
    "abandon_no_take_back": "never again: span back in mheap",
    "claim_when_owner_is_0": "two holders",
    "claim_sets_no_owner": None,        # no harm but cost: the holder's own frees go through remote
    "claim_ignored": "never again: span back in mheap",
    "push_keeps_bit": "two holders",
    "collect_by_load_and_store": "block in two places",
    "touch_after_push": "touched in mheap",
    "live_lowered_by_freer": "live is wrong",
    "link_before_owner_cleared": "touched in mheap",
    "list_with_bit": "two holders",
    "list_keeps_owner": "plain fields touched by a stranger",
    "tick_without_unlinking": "two holders",
    "exit_keeps_spans": "plain fields touched by a stranger",
    "exit_abandons_empty": "never again: span back in mheap",
    "heap_ignores_remote": "returned to mheap while in use",
}


@pytest.mark.parametrize("threads, blocks", [(1, 1), (1, 3), (2, 1), (2, 2), (2, 3), (3, 1), (3, 2), (3, 3)])
def test_protocol_holds(threads, blocks):
    graph = explore(Model(threads, blocks))
    assert graph.nstates > 10 * threads * blocks
    if threads >= 2 and blocks >= 2:
        assert graph.steps_taken == STEPS, "a step that is never taken proves nothing"


def test_protocol_holds_when_pop_sets_the_owner_before_it_collects():
    graph = explore(Model(3, 2, pop_sets_owner_first=True))
    assert graph.steps_taken == STEPS | {"take_owner"}


def test_protocol_holds_without_renaming():
    """Renaming threads and blocks only saves states: the plain space is larger and as sound."""
    renamed, plain = explore(Model(2, 2)), explore(Model(2, 2), rename=False)
    assert renamed.nstates < plain.nstates <= 2 * 2 * renamed.nstates
    assert renamed.steps_taken == plain.steps_taken


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_wrong_protocol_is_caught(mutation):
    with pytest.raises(Violation) as caught:
        explore(Model(2, 2, mutation))
    assert caught.value.trace, "a violation comes with the steps that led to it"


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_wrong_protocol_does_harm(mutation):
    model = Model(2, 2, mutation, strict=False)
    if HARM[mutation] is None:
        explore(model)
        return
    with pytest.raises(Violation) as caught:
        explore(model)
    assert caught.value.kind == HARM[mutation], str(caught.value)


def test_canonical_renames_and_nothing_else():
    """A state with its threads and blocks swapped by hand has the same representative."""
    first = Model(2, 2).initial()._replace(
        in_mheap=False, owner=1, holder=1, carved=2, live=1, free=1, pool=0b100,
        threads=(Thread(role="current"), Thread(pc="push_load", has_p=False)))
    second = first._replace(
        owner=2, holder=2, free=2, pool=0b010, threads=(first.threads[1], first.threads[0]))
    assert first != second
    assert canonical(first) == canonical(second)
    assert canonical(canonical(first)) == canonical(first)


class TwoLocks:
    """A model that deadlocks: two threads take two locks in opposite order, unless in_order."""

    def __init__(self, in_order):
        self.plans = [(0, 1), (0, 1) if in_order else (1, 0)]

    def initial(self):
        return (0, 0)           # how many locks each thread holds

    def steps(self, state):
        for t, held in enumerate(state):
            other = self.plans[1 - t][: state[1 - t]]
            if held == 2:
                yield "release", False, t, state[:t] + (0,) + state[t + 1 :]
            elif self.plans[t][held] not in other:
                yield f"take {held}", held == 0, t, state[:t] + (held + 1,) + state[t + 1 :]

    def check(self, state):
        pass

    def at_rest(self, state):
        return state == (0, 0)

    goals = {"both": lambda state: 2 in state}


def test_explorer_finds_a_deadlock():
    assert explore(TwoLocks(in_order=True), rename=False).steps_taken == {"take", "release"}
    with pytest.raises(Violation) as caught:
        explore(TwoLocks(in_order=False), rename=False)
    assert caught.value.kind == "deadlock"
    assert len(caught.value.trace) == 3, "two steps and the finding"


def test_explorer_finds_a_goal_that_is_never_reached():
    model = TwoLocks(in_order=True)
    model.goals = {"three": lambda state: 3 in state}
    with pytest.raises(Violation) as caught:
        explore(model, rename=False)
    assert caught.value.kind == "never again: three"
