"""The words of one span and of the threads around it: the states of remote_free_model.py.

The words are modelled as they are, down to the links through the blocks, so that a compare-and-swap can be
fooled by an equal head (ABA) if the protocol allows it. Blocks are numbered from 1; 0 is NULL.

Beside them stand two ghosts, which no thread reads: `holder`, the thread that has the right to the plain
fields (it changes where the protocol says that ownership changes), and `pool`, the blocks that the program
holds.

Names of threads and of carved blocks mean nothing, so `canonical` renames them, and the explorer visits few
of the states that differ in names only.
"""

from __future__ import annotations

from typing import List, NamedTuple, Tuple

from explorer import Violation

NONE, CURRENT, PARTIAL = "none", "current", "partial"


class Thread(NamedTuple):
    pc: str = "idle"            # the next step
    then: str = ""              # where a collect, an abandon or a return to mheap goes on
    has_p: bool = True
    role: str = NONE            # what the span is to this thread's mcache
    block: int = 0              # being freed, not yet on a list
    seen: Tuple[int, int] = (0, 0)  # remote as last read: head, bit 0
    owner_seen: bool = False    # a mutation's: owner was 0 when read
    chain: int = 0              # collected, not yet on the free list


class State(NamedTuple):
    """Starts with the span in mheap and every thread idle."""

    links: Tuple[int, ...]      # first word of each block
    threads: Tuple[Thread, ...]
    owner: int = 0              # 0 = none, 1.. = the P of thread 0.., ORPHAN = the orphan P
    head: int = 0               # remote: first block
    bit: int = 0                # remote: bit 0
    free: int = 0
    live: int = 0
    carved: int = 0
    listed: bool = False
    lock: int = 0               # mcentral's: 0 or thread + 1
    orphan_lock: int = 0
    in_mheap: bool = True
    holder: int = 0             # ghost: 0 or thread + 1
    pool: int = 0               # ghost: bit set of the blocks that the program holds


ORPHAN = -1


class Work:
    """A state being changed by one step of thread t."""

    __slots__ = State._fields + ("t",)

    def __init__(self, state: State, t: int):
        for name, value in zip(State._fields, state):
            setattr(self, name, value)
        self.t = t

    def frozen(self) -> State:
        return State(*[getattr(self, name) for name in State._fields])

    @property
    def me(self) -> Thread:
        return self.threads[self.t]

    def set(self, **fields: object) -> None:
        me = self.threads[self.t]._replace(**fields)
        self.threads = self.threads[: self.t] + (me,) + self.threads[self.t + 1 :]

    def p(self) -> int:
        """What this thread writes into owner."""
        return self.t + 1 if self.me.has_p else ORPHAN

    def link(self, block: int, to: int) -> None:
        self.links = self.links[: block - 1] + (to,) + self.links[block:]

    def rest(self) -> None:
        """The operation is over."""
        self.threads = self.threads[: self.t] + (
            Thread(has_p=self.me.has_p, role=self.me.role),
        ) + self.threads[self.t + 1 :]

    # Rights.

    def touch(self) -> None:
        """Any access to the span's words."""
        if self.in_mheap:
            raise Violation("touched in mheap", f"thread {self.t} at {self.me.pc}")

    def own(self) -> None:
        """An access to the plain fields."""
        self.touch()
        if self.holder != self.t + 1:
            raise Violation("plain fields touched by a stranger", f"thread {self.t} at {self.me.pc}")

    def hold(self) -> None:
        if self.holder:
            raise Violation("two holders", f"thread {self.t} at {self.me.pc}, thread {self.holder - 1} holds")
        self.holder = self.t + 1

    def drop(self) -> None:
        if self.holder != self.t + 1:
            raise Violation("given up by a stranger", f"thread {self.t} at {self.me.pc}")
        self.holder = 0


def blocks_of(links: Tuple[int, ...], first: int, what: str) -> List[int]:
    out: List[int] = []
    while first:
        if first in out:
            raise Violation("list with a loop", what)
        out.append(first)
        first = links[first - 1]
    return out


def canonical(s: State) -> State:
    """The same state with threads and carved blocks renamed, to one of few representatives."""
    n = len(s.threads)
    order = sorted(range(n), key=lambda t: (
        s.threads[t], s.owner == t + 1, s.holder == t + 1, s.lock == t + 1, s.orphan_lock == t + 1))
    threads = tuple([s.threads[t] for t in order])
    # Blocks in the order in which a fixed walk meets them; those not met are the program's, or not carved.
    new_block = [0] * (len(s.links) + 1)
    met = 0
    firsts = [s.free, s.head]
    for thread in threads:
        firsts += (thread.chain, thread.block, thread.seen[0])
    for block in firsts:
        while block and not new_block[block]:
            met += 1
            new_block[block] = met
            block = s.links[block - 1]
    for block in range(1, s.carved + 1):
        if not new_block[block]:
            met += 1
            new_block[block] = met
    if order == list(range(n)) and new_block[1 : met + 1] == list(range(1, met + 1)):
        return s
    new_thread = [0] * (n + 1) + [ORPHAN]       # [ORPHAN] is the last
    for i, t in enumerate(order):
        new_thread[t + 1] = i + 1
    links = [0] * len(s.links)
    pool = 0
    for block in range(1, s.carved + 1):
        links[new_block[block] - 1] = new_block[s.links[block - 1]]
        if s.pool >> block & 1:
            pool |= 1 << new_block[block]
    threads = tuple([
        thread._replace(block=new_block[thread.block], chain=new_block[thread.chain],
                        seen=(new_block[thread.seen[0]], thread.seen[1]))
        if thread.block or thread.chain else thread for thread in threads])
    return s._replace(
        owner=new_thread[s.owner], holder=new_thread[s.holder], lock=new_thread[s.lock],
        orphan_lock=new_thread[s.orphan_lock], head=new_block[s.head], free=new_block[s.free],
        links=tuple(links), pool=pool, threads=threads)
