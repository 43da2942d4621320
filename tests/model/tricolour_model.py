"""Explicit-state model of write barriers: which of them keep every reachable object, and which lose one.

A few objects of one slot each, one root slot that is written through the barrier (a handle), mutators with one or two
registers each (a frame), one collector.  The collector greys the root slot, scans each mutator's frame once, at a
moment of its own choosing, while the other runs, and blackens grey objects one by one; when nothing is grey and all
frames were scanned it ends the cycle.  Mutators load, store, copy, drop and allocate all the time.  At the end
everything reachable must be marked: check raises "lost object" for the first state in which it is not.

A store is two steps, as a barrier in C is: the first reads the old value and shades, the second shades the new value,
and writes.  So two stores to one slot may overlap.  `atomic_stores` makes it one step.

The policies are `POLICIES`; all allocate black unless said.  rescan: the frames are scanned again in the final stop,
and marking goes on inside of it.

Objects that nothing reachable or grey leads to are free: they are the ones to allocate.  So that names of objects do
not blow the space up, canonical numbers them in the order in which a walk from the roots meets them.
"""

from __future__ import annotations

from typing import Dict, Iterator, List, NamedTuple, Tuple

from explorer import Violation

WHITE, GREY, BLACK = 0, 1, 2
NIL = 0


class Policy(NamedTuple):
    shade_old: bool = False
    shade_new: bool = False
    new_only_while_grey: bool = False   # shade the new value only before the own frame was scanned
    new_at_once: bool = False           # both in the first step, before the write; else the new one in the second
    frames_together: bool = False       # all frames are scanned in one stop at the start
    rescan: bool = False
    allocate_white: bool = False


POLICIES: Dict[str, Policy] = {
    "hybrid": Policy(shade_old=True, shade_new=True),
    "hybrid, both before the write": Policy(shade_old=True, shade_new=True, new_at_once=True),
    "hybrid, new value only while the frame is grey": Policy(True, True, new_only_while_grey=True),
    "hybrid, allocating white": Policy(True, True, allocate_white=True),
    "insertion": Policy(shade_new=True),
    "insertion, rescan": Policy(shade_new=True, rescan=True),
    "deletion": Policy(shade_old=True),
    "deletion, frames scanned together": Policy(shade_old=True, frames_together=True),
    "deletion, rescan": Policy(shade_old=True, rescan=True),
    "none": Policy(),
    "none, rescan": Policy(rescan=True),
}


class State(NamedTuple):
    phase: str                                 # "setup", "mark", "done"
    slots: Tuple[int, ...]                     # object number - 1 -> object or NIL
    colours: Tuple[int, ...]
    root: int
    root_scanned: bool
    frames: Tuple[Tuple[int, ...], ...]
    scanned: Tuple[bool, ...]
    pending: Tuple[Tuple[int, int], ...]       # a store under way: (place, new value); place 0 the root, -1 none


IDLE = (-1, NIL)


class Model:
    goals = {"the cycle is over": lambda state: state.phase == "done"}

    def __init__(self, policy: str, objects: int = 2, registers: Tuple[int, ...] = (2, 1), atomic_stores: bool = False):
        self.policy, self.nobjects, self.nmutators = POLICIES[policy], objects, len(registers)
        self.registers = registers
        self.atomic_stores = atomic_stores

    def initial(self) -> State:
        n, m = self.nobjects, self.nmutators
        frames = tuple((NIL,) * r for r in self.registers)
        return State("setup", (NIL,) * n, (WHITE,) * n, NIL, False, frames, (False,) * m, (IDLE,) * m)

    def at_rest(self, state: State) -> bool:
        return state.phase == "done"

    # ---- Reaching

    @staticmethod
    def roots(state: State) -> List[int]:
        found = [state.root]
        for frame, (place, value) in zip(state.frames, state.pending):
            found += [*frame, max(place, NIL), value]
        return found

    @staticmethod
    def walk(state: State, pending: List[int]) -> List[int]:
        """Objects in the order met; each has one slot."""
        order: List[int] = []
        for o in pending:
            while o != NIL and o not in order:
                order.append(o)
                o = state.slots[o - 1]
        return order

    def check(self, state: State) -> None:
        if state.phase == "done":
            for o in self.walk(state, self.roots(state)):
                if state.colours[o - 1] == WHITE:
                    raise Violation("lost object", str(state))

    def canonical(self, state: State) -> State:
        if state.phase == "done":
            return state
        frames = tuple((f[1], f[0]) if len(f) == 2 and f[0] == NIL else f for f in state.frames)
        state = state._replace(frames=frames)
        order = self.walk(state, self.roots(state))
        grey = [o + 1 for o, colour in enumerate(state.colours) if colour == GREY]
        order += [o for o in self.walk(state, grey) if o not in order]
        rename = {NIL: NIL, -1: -1, **{o: i for i, o in enumerate(order, 1)}}
        rest = self.nobjects - len(order)
        return State(
            state.phase,
            tuple(rename[state.slots[o - 1]] for o in order) + (NIL,) * rest,
            tuple(state.colours[o - 1] for o in order) + (WHITE,) * rest,
            rename[state.root], state.root_scanned,
            tuple(tuple(rename[o] for o in frame) for frame in state.frames), state.scanned,
            tuple((rename[place], rename[value]) for place, value in state.pending))

    # ---- Steps

    def steps(self, state: State) -> Iterator[Tuple[str, bool, int, State]]:
        if state.phase == "done":
            return
        for m in range(self.nmutators):
            for label, following in self.mutate(state, m):
                yield label, state.pending[m] == IDLE, m, following
        if state.phase == "setup":
            following = state._replace(phase="mark")
            if self.policy.frames_together:
                for m in range(self.nmutators):
                    following = self.scan_frame(following, m)
            if state.pending == (IDLE,) * self.nmutators:
                yield "the cycle begins", False, self.nmutators, following
            return
        for label, following in self.collect(state):
            yield label, False, self.nmutators, following

    @staticmethod
    def shade(state: State, o: int) -> State:
        if o == NIL or state.phase != "mark" or state.colours[o - 1] != WHITE:
            return state
        return state._replace(colours=state.colours[:o - 1] + (GREY,) + state.colours[o:])

    def scan_frame(self, state: State, m: int) -> State:
        for o in state.frames[m]:
            state = self.shade(state, o)
        return state._replace(scanned=state.scanned[:m] + (True,) + state.scanned[m + 1:])

    def set_register(self, state: State, m: int, r: int, o: int) -> State:
        frame = state.frames[m][:r] + (o,) + state.frames[m][r + 1:]
        return state._replace(frames=state.frames[:m] + (frame,) + state.frames[m + 1:])

    def mutate(self, state: State, m: int) -> Iterator[Tuple[str, State]]:
        if state.pending[m] != IDLE:
            yield "store writes", self.store_writes(state, m)
            return
        frame = state.frames[m]
        for r, held in enumerate(frame):
            found = {state.root: "load root"}
            found.update({state.slots[o - 1]: "load" for o in frame if o != NIL})
            for value, label in found.items():
                if value != NIL and value != held:
                    yield label, self.set_register(state, m, r, value)
            if held != NIL:
                yield "drop", self.set_register(state, m, r, NIL)
            else:
                yield from self.allocate(state, m, r)
        for place in {NIL, *frame}:
            for value in {NIL, *frame}:
                begun = self.store_begins(state, m, place, value)
                yield "store", self.store_writes(begun, m) if self.atomic_stores else begun

    def allocate(self, state: State, m: int, r: int) -> Iterator[Tuple[str, State]]:
        grey = [o + 1 for o, colour in enumerate(state.colours) if colour == GREY]
        used = set(self.walk(state, self.roots(state) + grey))
        for o in range(1, self.nobjects + 1):
            if o not in used:
                black = state.phase == "mark" and not self.policy.allocate_white
                made = state._replace(
                    slots=state.slots[:o - 1] + (NIL,) + state.slots[o:],
                    colours=state.colours[:o - 1] + (BLACK if black else WHITE,) + state.colours[o:])
                yield "allocate", self.set_register(made, m, r, o)
                return

    def store_begins(self, state: State, m: int, place: int, value: int) -> State:
        old = state.slots[place - 1] if place else state.root
        if self.policy.shade_old:
            state = self.shade(state, old)
        if self.policy.shade_new and self.policy.new_at_once:
            state = self.shade(state, value)
        return state._replace(pending=state.pending[:m] + ((place, value),) + state.pending[m + 1:])

    def store_writes(self, state: State, m: int) -> State:
        place, value = state.pending[m]
        if self.policy.shade_new and not (self.policy.new_only_while_grey and state.scanned[m]):
            state = self.shade(state, value)
        if place:
            state = state._replace(slots=state.slots[:place - 1] + (value,) + state.slots[place:])
        else:
            state = state._replace(root=value)
        return state._replace(pending=state.pending[:m] + (IDLE,) + state.pending[m + 1:])

    def collect(self, state: State) -> Iterator[Tuple[str, State]]:
        if not state.root_scanned:
            yield "scan root", self.shade(state, state.root)._replace(root_scanned=True)
        for m, scanned in enumerate(state.scanned):
            if not scanned and state.pending[m] == IDLE:    # a thread stops at polls, never inside of a barrier
                yield "scan frame", self.scan_frame(state, m)
        grey = [o + 1 for o, colour in enumerate(state.colours) if colour == GREY]
        for o in grey:
            yield "scan object", self.scan(state, o)
        if not grey and state.root_scanned and all(state.scanned) and state.pending == (IDLE,) * self.nmutators:
            yield "the cycle ends", self.finish(state)

    def scan(self, state: State, o: int) -> State:
        state = self.shade(state, state.slots[o - 1])
        if state.colours[o - 1] == BLACK:   # it was its own child
            return state
        return state._replace(colours=state.colours[:o - 1] + (BLACK,) + state.colours[o:])

    def finish(self, state: State) -> State:
        if self.policy.rescan:
            for m in range(self.nmutators):
                state = self.scan_frame(state, m)
            while GREY in state.colours:
                state = self.scan(state, state.colours.index(GREY) + 1)
        return state._replace(phase="done")
