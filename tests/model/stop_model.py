"""Explicit-state model of entering, leaving and stopping the world (world/stw; DESIGN "Threads and stops").

Each thread has two words: `inside`, written by it alone, and `flag`, written by the stopper alone.  A thread enters
by inside = 1 and then looks at its flag; the stopper sets the flags and then looks at inside.  Whoever looks must see
the other's store, and stores wait in a buffer while later loads go ahead: that is the whole difficulty.  Instead of a
fence at every entry, the stopper makes all other threads execute one, by membarrier.

Memory: up to `room` stores go to the buffer of their thread and reach memory one by one, in any order but for stores
to the same word and for a store-release, which waits for all stores before it.  A fence, or membarrier for its
target, empties the buffer.  Loads see the own buffer first; acquire loads are in order, as all loads here.

Inside, a thread changes a pair of words one after the other, so they are equal when it is not inside; the stopper
looks at them while the world is stopped, and writes a word that who is inside later must see.

Thread 0 has the pair; others only come and go.

`fence` is how store and load are kept in order: "membarrier", "seq_cst" (each entry and the stopper), or "none": the
stopper alone fences, the plausible mistake.  `MUTATIONS` are other wrong protocols.
"""

from __future__ import annotations

from typing import Iterator, List, NamedTuple, Optional, Tuple

from explorer import Violation

MUTATIONS = {
    "look_first": "a thread looks at its flag before it stores inside",
    "stopper_looks_first": "the stopper looks at inside before membarrier",
    "leave_relaxed": "leaving is a relaxed store",
    "wait_inside": "a thread that sees its flag waits without taking inside back",
    "enter_after_wait": "a thread that waited goes inside without looking again",
    "clear_relaxed": "the stopper clears the flags by a relaxed store",
    "barrier_misses_one": "membarrier does not reach the last thread",
    "flags_after_barrier": "the stopper sets the last flag after membarrier",
}

INSIDE = ("first", "second", "busy")

Store = Tuple[str, int, bool]       # word, value, release


class State(NamedTuple):
    memory: Tuple[Tuple[str, int], ...]
    buffers: Tuple[Tuple[Store, ...], ...]     # threads, then the stopper
    pcs: Tuple[str, ...]
    written: int                               # ghost: what the stopper wrote last


class Work:
    """A step under way, for one agent."""

    def __init__(self, state: State, agent: int, room: int):
        self.room = room
        self.memory, self.buffers = dict(state.memory), list(state.buffers)
        self.pcs, self.written, self.agent = list(state.pcs), state.written, agent

    def store(self, word: str, value: int, release: bool = False) -> bool:
        if len(self.buffers[self.agent]) == self.room:
            return False                # waits: some store drains first
        self.buffers[self.agent] += ((word, value, release),)
        return True

    def load(self, word: str) -> int:
        for stored, value, _ in reversed(self.buffers[self.agent]):
            if stored == word:
                return value
        return self.memory[word]

    def drain(self, agent: int) -> None:
        for word, value, _ in self.buffers[agent]:
            self.memory[word] = value
        self.buffers[agent] = ()

    def frozen(self, pc: Optional[str] = None) -> State:
        if pc is not None:
            self.pcs[self.agent] = pc
        return State(tuple(sorted(self.memory.items())), tuple(self.buffers), tuple(self.pcs), self.written)


class Model:
    goals = {
        "the world is stopped": lambda state: state.pcs[-1] == "stopped",
        "all at rest": lambda state: set(state.pcs) == {"idle"} and not any(state.buffers),
    }

    def __init__(self, threads: int, fence: str = "membarrier", mutation: Optional[str] = None, strict: bool = True,
                 room: int = 3):
        assert fence in ("membarrier", "seq_cst", "none") and (mutation is None or mutation in MUTATIONS)
        self.nthreads, self.fence, self.mutation, self.strict, self.room = threads, fence, mutation, strict, room

    def initial(self) -> State:
        words = [f"{name}{t}" for name in ("inside", "flag") for t in range(self.nthreads)]
        words += ["first", "second", "written"]
        return State(tuple(sorted((word, 0) for word in words)), ((),) * (self.nthreads + 1),
                     ("idle",) * (self.nthreads + 1), 0)

    def canonical(self, state: State) -> State:
        return state

    def at_rest(self, state: State) -> bool:
        return self.goals["all at rest"](state)

    def check(self, state: State) -> None:
        if self.strict and state.pcs[-1] == "stopped" and set(state.pcs) & set(INSIDE):
            raise Violation("inside a stopped world", str(state.pcs))

    def steps(self, state: State) -> Iterator[Tuple[str, bool, int, State]]:
        for agent, buffer in enumerate(state.buffers):
            for i, (word, value, release) in enumerate(buffer):
                if (release and i) or any(earlier == word for earlier, _, _ in buffer[:i]):
                    continue
                work = Work(state, agent, self.room)
                work.memory[word] = value
                work.buffers[agent] = buffer[:i] + buffer[i + 1:]
                yield "a store arrives", False, agent, work.frozen()
        for t in range(self.nthreads):
            for label, following in self.thread_steps(state, t):
                yield label, state.pcs[t] == "idle", t, following
        for label, following in self.stopper_steps(state):
            yield label, state.pcs[-1] == "idle", self.nthreads, following

    # A thread.

    def thread_steps(self, state: State, t: int) -> List[Tuple[str, State]]:
        w, pc = Work(state, t, self.room), state.pcs[t]
        inside, flag = f"inside{t}", f"flag{t}"
        if pc == "idle" or pc == "enter":
            if self.mutation == "look_first":
                return [("looks first", w.frozen("wait" if w.load(flag) else "enter_late"))]
            return [("stores inside", w.frozen("look"))] if w.store(inside, 1) else []
        if pc == "enter_late":
            return [("stores inside late", w.frozen("first"))] if w.store(inside, 1) else []
        if pc == "look":
            if self.fence == "seq_cst":
                w.drain(t)
            if not w.load(flag):
                return [("is inside", w.frozen("first"))]
            if self.mutation == "wait_inside":
                return [("waits inside", w.frozen("wait"))]
            return [("sees its flag", w.frozen("wait"))] if w.store(inside, 0, True) else []
        if pc == "wait":
            if w.load(flag):
                return []
            return [("waited", w.frozen("enter_late" if self.mutation == "enter_after_wait" else "enter"))]
        if pc == "first":
            if w.load("written") != w.written:
                raise Violation("stale after a stop", f"thread {t}")
            if t > 0:
                return [("looks around", w.frozen("busy"))]
            return [("changes first", w.frozen("second"))] if w.store("first", 1 - w.load("first")) else []
        if pc == "second":
            return [("changes second", w.frozen("busy"))] if w.store("second", 1 - w.load("second")) else []
        assert pc == "busy"
        found = []
        if not w.load(flag):
            found.append(("polls and goes on", w.frozen("first")))
        else:
            polling = Work(state, t, self.room)
            if polling.store(inside, 0, True):
                found.append(("polls and stops", polling.frozen("wait")))
        if w.store(inside, 0, self.mutation != "leave_relaxed"):
            found.append(("leaves", w.frozen("idle")))
        return found

    # The stopper: set 0.. -> barrier 0.. -> see 0.. -> stopped -> clear 0.. -> idle.

    def plan(self) -> List[str]:
        threads = range(self.nthreads)
        sets, sees = [f"set {t}" for t in threads], [f"see {t}" for t in threads]
        barriers = ["fence"] if self.fence != "membarrier" else [f"barrier {t}" for t in threads]
        if self.mutation == "barrier_misses_one":
            barriers[-1] = "fence"
        if self.mutation == "stopper_looks_first":
            barriers, sees = sees, barriers
        if self.mutation == "flags_after_barrier":
            return [*sets[:-1], *barriers, sets[-1], "fence", *sees, "stopped", *(f"clear {t}" for t in threads)]
        return [*sets, *barriers, *sees, "stopped", *(f"clear {t}" for t in threads)]

    def stopper_steps(self, state: State) -> List[Tuple[str, State]]:
        w, pc, plan = Work(state, self.nthreads, self.room), state.pcs[-1], self.plan()
        if pc == "idle":
            pc = plan[0]
        at = plan.index(pc)
        then = plan[at + 1] if at + 1 < len(plan) else "idle"
        verb, _, t = pc.partition(" ")
        if verb == "set" and not w.store(f"flag{t}", 1):
            return []
        if verb in ("fence", "barrier"):
            w.drain(self.nthreads)
            if t:
                w.drain(int(t))
        if verb == "see" and w.load(f"inside{t}"):
            return []
        if verb == "stopped":
            if w.load("first") != w.load("second"):
                raise Violation("torn pair in a stopped world")
            if not w.store("written", 1 - w.load("written")):
                return []
            w.written = 1 - w.written
        if verb == "clear" and not w.store(f"flag{t}", 0, self.mutation != "clear_relaxed"):
            return []
        return [(verb, w.frozen(then))]
