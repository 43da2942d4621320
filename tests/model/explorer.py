"""A small explicit-state model checker: visits every state of a model once, breadth first.

A model has `initial()`, `steps(state)` (label, whether the step begins an operation, thread, next state),
`check(state)` (raises Violation), `at_rest(state)` (no operation is under way), `goals` (name: predicate on
states) and `canonical(state)` (a representative of the states that differ in names only). States are
hashable.

Besides what the model checks in states and steps, explore finds deadlocks (an operation is under way and no
step goes on with one), and goals that cannot be reached from everywhere: a backward search from the states
that have the goal must meet every state.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Dict, FrozenSet, List, NamedTuple, Set, Tuple


class Violation(Exception):
    """The model broke: a short name of how, details, and the steps that led there."""

    def __init__(self, kind: str, detail: str = "", trace: Tuple[str, ...] = ()):
        super().__init__(kind, detail, trace)
        self.kind, self.detail, self.trace = kind, detail, trace

    def __str__(self) -> str:
        return "\n".join([f"{self.kind}: {self.detail}", *self.trace])


class Graph(NamedTuple):
    nstates: int
    nsteps: int
    steps_taken: FrozenSet[str]     # labels without the numbers at their end


def never_reach(before: List[List[int]], goal: List[int]) -> int:
    """The first state from which no state of goal can be reached, or -1; before: predecessors by state."""
    reached = bytearray(len(before))
    pending = list(goal)
    for n in pending:
        reached[n] = 1
    while pending:
        for m in before[pending.pop()]:
            if not reached[m]:
                reached[m] = 1
                pending.append(m)
    return reached.find(0)


def explore(model: Any, rename: bool = True, max_states: int = 2_000_000) -> Graph:
    """Visits all states or raises Violation; its trace is a shortest one.

    With rename, threads in a trace are numbered anew in every state: read it with their steps in mind.
    """
    start = model.initial()
    number: Dict[Any, int] = {start: 0}     # canonical or as a step made it
    came: List[Tuple[int, str]] = [(-1, "")]        # a state's first predecessor and the step, for traces
    before: List[List[int]] = [[]]                  # all predecessors
    steps_taken: Set[str] = set()
    having: Dict[str, List[int]] = {goal: [] for goal in model.goals}
    queue = deque([start])
    nsteps = 0

    def trace(n: int, *last: str) -> Tuple[str, ...]:
        labels = list(last)
        while n > 0:
            n, label = came[n]
            labels.append(label)
        return tuple(reversed(labels))

    while queue:
        state = queue.popleft()
        n = number[state]
        try:
            model.check(state)
            for goal, has_it in model.goals.items():
                if has_it(state):
                    having[goal].append(n)
            goes_on = False
            for label, begins, thread, following in model.steps(state):
                nsteps += 1
                goes_on = goes_on or not begins
                steps_taken.add(label.rstrip(" 0123456789"))
                m = number.get(following)
                if m is None:
                    given = following
                    if rename:
                        following = model.canonical(given)
                        m = number.get(following)
                    if m is None:
                        m = number[following] = len(came)
                        if m >= max_states:
                            raise RuntimeError(f"more than {max_states} states")
                        came.append((n, f"thread {thread}: {label}"))
                        before.append([])
                        queue.append(following)
                    number[given] = m       # its canonical form need not be found again
                before[m].append(n)
            if not goes_on and not model.at_rest(state):
                raise Violation("deadlock", str(state))
        except Violation as violation:
            raise Violation(violation.kind, violation.detail, trace(n, f"then {violation.detail}")) from None
    for goal, states in having.items():
        stuck = never_reach(before, states)
        if stuck >= 0:
            raise Violation(f"never again: {goal}", "", trace(stuck))
    return Graph(len(came), nsteps, frozenset(steps_taken))
