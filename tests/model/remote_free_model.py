"""Explicit-state model of frees by threads that do not own the span (heap/remote.h, mcache.c, mcentral.c).

One span of a few blocks, two or three threads, every interleaving of single atomic operations. Threads
allocate, free any allocated block, collect, tick mcentral, exit, free after their exit (served by the
orphan P, under its lock), and come back as a new thread that was given the same P. Nothing bounds the
number of operations: the state space is finite, so the explorer visits all of it.

What a step is: one load, store, exchange or compare-and-swap of a shared word (`owner`, `remote`), or
taking a lock. Plain fields (`free`, `live`, `tail`, links on the free list) change together in one step,
because only the holder may touch them and each such step checks that; so does every look at a span check
that the span is not back in mheap.

The words of the span and the ghosts beside them, which no thread reads, are in remote_free_state.py.

Checked in every state (`check`): a block is in exactly one place; `live` counts the blocks that are not
free; the span is owned, abandoned, listed or in mheap, and its words say so. Checked in every step: at most
one holder; plain fields are touched by the holder only; a span goes to mheap only when nobody can touch it
again. Checked on the whole graph (explorer.py): no deadlock, and from every state the threads can come to
rest, and the span can get back to mheap.

What the model leaves out: memory order (steps are sequentially consistent; remote.c argues the orders),
more than one span, and bins (a span kept empty by a thread is, for the protocol, one that went to mheap and
came back).

A P goes to the next thread with the same number. That loses nothing: as long as no span names a P that no
thread has, Ps are interchangeable.

`MUTATIONS` are wrong protocols; the tests show that each of them is caught, by the checks on the words and
also, with `strict=False`, without those: then only by harm that follows, such as a lost block.
"""

from __future__ import annotations

from typing import Callable, Iterator, Optional, Tuple

from explorer import Violation
from remote_free_state import CURRENT, NONE, ORPHAN, PARTIAL, State, Thread, Work, blocks_of, canonical

MUTATIONS = {
    "abandon_cas_first": "abandon sets bit 0 first and clears owner afterwards",
    "abandon_by_store": "abandon stores bit 0 instead of comparing and swapping",
    "abandon_no_take_back": "abandon gives the span up although its compare-and-swap failed",
    "claim_when_owner_is_0": "a freer that read owner = 0 claims without having cleared bit 0",
    "claim_sets_no_owner": "a claimer does not make itself the owner",
    "claim_ignored": "a push clears bit 0 and nobody claims",
    "push_keeps_bit": "a push leaves bit 0 as it was",
    "collect_by_load_and_store": "collect loads the list and stores 0 instead of exchanging",
    "touch_after_push": "a freer reads the span again after a push that claimed nothing",
    "live_lowered_by_freer": "a freer lowers live itself after its push",
    "link_before_owner_cleared": "listing links under the lock and clears owner afterwards",
    "list_with_bit": "listing sets bit 0, as if the span were abandoned too",
    "list_keeps_owner": "listing leaves owner as it was",
    "tick_without_unlinking": "a tick collects a listed span without the lock",
    "exit_keeps_spans": "a thread exits and its P, still named as owner, goes to another thread",
    "exit_abandons_empty": "thread exit abandons a span without live blocks",
    "heap_ignores_remote": "a span goes to mheap when its remote list holds all the blocks that are not free",
}


class Model:
    def __init__(self, threads: int, blocks: int, mutation: Optional[str] = None, strict: bool = True,
                 pop_sets_owner_first: bool = False):
        assert mutation is None or mutation in MUTATIONS, mutation
        self.nthreads, self.nblocks, self.mutation = threads, blocks, mutation
        self.strict = strict
        self.pop_sets_owner_first = pop_sets_owner_first    # the design's order; mcentral.c collects first

    def initial(self) -> State:
        """The span is in mheap, every thread idle."""
        return State(links=(0,) * self.nblocks, threads=(Thread(),) * self.nthreads)

    # ---- Steps ----

    def steps(self, state: State) -> Iterator[Tuple[str, bool, int, State]]:
        """Every step that some thread can take: label, whether it begins an operation, thread, next state."""
        for t in range(self.nthreads):
            pc = state.threads[t].pc
            if pc == "idle":
                for label, act in self.choices(state, t):
                    work = Work(state, t)
                    act(work)
                    yield label, True, t, work.frozen()
                continue
            work = Work(state, t)
            if getattr(self, pc)(work) is not False:     # False: waits for a lock
                yield pc, False, t, work.frozen()

    def choices(self, state: State, t: int) -> Iterator[Tuple[str, Callable[[Work], None]]]:
        me = state.threads[t]
        for block in range(1, self.nblocks + 1):
            if state.pool >> block & 1:
                yield f"free {block}", lambda work, block=block: self.begin_free(work, block)
        if not me.has_p:
            yield "attach", lambda work: work.set(has_p=True)
            return
        if me.role == CURRENT:
            if state.free:
                yield "malloc pops", self.pop
            else:
                yield "malloc misses", self.go("collect", "malloc_collected")
        elif me.role == PARTIAL:
            yield "malloc makes the partial span current", lambda work: work.set(role=CURRENT)
        elif state.in_mheap:
            yield "malloc gets a new span", self.new_span
        elif state.listed:
            yield "malloc asks mcentral", self.go("take_lock")
        if me.role != NONE and state.head:
            yield "own tick", self.go("collect", "own_collected")
        if state.listed:
            lockless = self.mutation == "tick_without_unlinking"
            yield "mcentral tick", self.go("tick_unlink" if lockless else "tick_lock")
        yield "exit", self.begin_exit

    @staticmethod
    def go(pc: str, then: str = "") -> Callable[[Work], None]:
        return lambda work: work.set(pc=pc, then=then)

    # Malloc.

    def pop(self, w: Work) -> None:
        w.own()
        block = w.free
        w.free = w.links[block - 1]
        w.link(block, 0)                # the program's data: whatever
        w.live += 1
        w.pool |= 1 << block

    def new_span(self, w: Work) -> None:
        w.in_mheap = False
        w.hold()
        w.owner = w.p()
        w.set(role=CURRENT)

    def malloc_collected(self, w: Work) -> None:
        w.own()
        if w.free:
            w.rest()
        elif w.carved < self.nblocks:
            w.carved += 1
            w.free = w.carved
            w.rest()
        else:
            w.set(pc=self.first_abandon_step(), then="rest")

    # Abandon: w.me.then is where a success goes on; a failure has collected and goes back.

    def first_abandon_step(self) -> str:
        return "abandon_cas" if self.mutation == "abandon_cas_first" else "abandon_owner"

    def abandon_owner(self, w: Work) -> None:
        w.touch()
        w.owner = 0
        if self.mutation == "abandon_cas_first":
            self.abandoned(w)
        else:
            w.set(pc="abandon_cas")

    def abandon_cas(self, w: Work) -> None:
        w.touch()
        if (w.head, w.bit) == (0, 0) or self.mutation == "abandon_by_store":
            w.head, w.bit = 0, 1
            w.drop()
            if self.mutation == "abandon_cas_first":
                w.set(pc="abandon_owner")
            else:
                self.abandoned(w)
        elif self.mutation == "abandon_no_take_back":
            w.drop()
            self.abandoned(w)
        else:
            w.set(pc="take_back")

    def abandoned(self, w: Work) -> None:
        w.set(role=NONE, has_p=w.me.has_p and w.me.then != "exited")
        w.rest()

    def take_back(self, w: Work) -> None:
        w.own()
        w.owner = w.p()
        w.set(pc="collect", then="exit_collected" if w.me.then == "exited" else "malloc_collected")

    # Collect.

    def collect(self, w: Work) -> None:
        w.own()
        w.set(pc="collect_exchange" if w.head else w.me.then)

    def collect_exchange(self, w: Work) -> None:
        w.own()
        if w.bit:
            raise Violation("bit 0 set while owned")
        w.set(chain=w.head, pc="collect_merge")
        if self.mutation == "collect_by_load_and_store":
            w.set(pc="collect_store")
        else:
            w.head = 0

    def collect_store(self, w: Work) -> None:
        w.head = 0
        w.set(pc="collect_merge")

    def collect_merge(self, w: Work) -> None:
        w.own()
        chain = blocks_of(w.links, w.me.chain, "collected")
        w.link(chain[-1], w.free)
        w.free = chain[0]
        if self.mutation != "live_lowered_by_freer":
            w.live -= len(chain)
        w.set(chain=0, pc=w.me.then)

    # Free.

    def begin_free(self, w: Work, block: int) -> None:
        w.touch()
        w.pool &= ~(1 << block)
        mine = w.me.has_p and w.owner == w.p()
        w.set(block=block, owner_seen=self.mutation == "claim_when_owner_is_0" and w.owner == 0,
              pc="free_local" if mine else "push_load")

    def free_local(self, w: Work) -> None:
        w.own()
        w.link(w.me.block, w.free)
        w.free = w.me.block
        w.live -= 1
        emptied = w.live == 0 and w.me.role == PARTIAL
        w.rest()
        if emptied:
            w.set(pc="to_mheap", then="rest")

    def push_load(self, w: Work) -> None:
        w.touch()
        w.link(w.me.block, w.head)
        w.set(seen=(w.head, w.bit), pc="push_cas")

    def push_cas(self, w: Work) -> None:
        w.touch()
        if (w.head, w.bit) != w.me.seen:
            self.push_load(w)           # the failed compare-and-swap is the next load
            return
        w.head = w.me.block
        claims = w.bit == 1 and self.mutation != "claim_ignored" or w.me.owner_seen
        if self.mutation != "push_keeps_bit":
            w.bit = 0
        w.set(block=0, seen=(0, 0), owner_seen=False)
        if claims:
            w.hold()
            w.set(pc="claim_owner" if w.me.has_p else "orphan_begin")
        elif self.mutation in ("touch_after_push", "live_lowered_by_freer"):
            w.set(pc="after_push")
        else:
            w.rest()

    def after_push(self, w: Work) -> None:
        w.touch()
        if self.mutation == "live_lowered_by_freer":
            w.live -= 1
        w.rest()

    def claim_owner(self, w: Work) -> None:
        w.own()
        if self.mutation != "claim_sets_no_owner":
            w.owner = w.p()
        w.set(role=PARTIAL, pc="collect", then="own_collected")

    def own_collected(self, w: Work) -> None:
        w.own()
        remote = len(blocks_of(w.links, w.head, "remote")) if self.mutation == "heap_ignores_remote" else 0
        if w.live == remote and w.me.role == PARTIAL:
            w.set(pc="to_mheap", then="rest")
        else:
            w.rest()

    # A caller without a P.

    def orphan_begin(self, w: Work) -> Optional[bool]:
        if w.orphan_lock:
            return False
        w.orphan_lock = w.t + 1
        w.set(pc="orphan_owner")
        return None

    def orphan_owner(self, w: Work) -> None:
        w.own()
        w.owner = w.p()
        w.set(pc="collect", then="orphan_collected")

    def orphan_collected(self, w: Work) -> None:
        w.own()
        w.set(pc="to_mheap" if w.live == 0 else "put_lock", then="orphan_end")

    def orphan_end(self, w: Work) -> None:
        w.orphan_lock = 0
        w.rest()

    # Exit.

    def begin_exit(self, w: Work) -> None:
        if w.me.role == NONE:
            w.set(has_p=False)
        elif self.mutation == "exit_keeps_spans":
            w.drop()
            w.set(has_p=False, role=NONE)
        else:
            w.set(pc="collect", then="exit_collected")

    def exit_collected(self, w: Work) -> None:
        w.own()
        full = w.free == 0 and w.carved == self.nblocks
        if full or (w.live == 0 and self.mutation == "exit_abandons_empty"):
            w.set(pc=self.first_abandon_step(), then="exited")
        else:
            w.set(pc="to_mheap" if w.live == 0 else "put_lock", then="exited")

    def exited(self, w: Work) -> None:
        w.set(has_p=False, role=NONE)
        w.rest()

    # Mcentral.

    def put_lock(self, w: Work) -> Optional[bool]:
        if w.lock:
            return False
        w.lock = w.t + 1
        owner_kept = self.mutation in ("link_before_owner_cleared", "list_keeps_owner")
        w.set(pc="put_link" if owner_kept else "put_owner")
        return None

    def put_owner(self, w: Work) -> None:
        w.touch()
        w.owner = 0
        w.set(pc=w.me.then if self.mutation == "link_before_owner_cleared" else "put_link")

    def put_link(self, w: Work) -> None:
        w.own()
        w.listed = True
        if self.mutation == "list_with_bit":
            w.bit = 1
        w.drop()
        w.lock = 0
        w.set(pc="put_owner" if self.mutation == "link_before_owner_cleared" else w.me.then)

    def take_lock(self, w: Work) -> Optional[bool]:
        if w.lock:
            return False
        w.lock = w.t + 1
        w.set(pc="take_unlink")
        return None

    def take_unlink(self, w: Work) -> None:
        if not w.listed:
            w.lock = 0
            w.rest()
            return
        w.touch()
        w.listed = False
        w.hold()
        w.set(pc="take_owner" if self.pop_sets_owner_first else "collect", then="taken")

    def take_owner(self, w: Work) -> None:
        w.own()
        w.owner = w.p()
        w.set(pc="collect")

    def taken(self, w: Work) -> None:
        w.own()
        w.owner = w.p()
        w.lock = 0
        w.set(role=CURRENT)
        w.rest()

    def tick_lock(self, w: Work) -> Optional[bool]:
        if w.lock:
            return False
        w.lock = w.t + 1
        w.set(pc="tick_unlink")
        return None

    def tick_unlink(self, w: Work) -> None:
        if not w.listed:
            w.lock = 0
            w.rest()
            return
        w.touch()
        if self.mutation != "tick_without_unlinking":
            w.listed = False
        w.hold()
        w.set(pc="collect", then="ticked")

    def ticked(self, w: Work) -> None:
        w.own()
        if w.live == 0:
            w.lock = 0
            w.listed = False
            w.set(pc="to_mheap", then="rest")
        else:
            w.listed = True
            w.drop()
            w.lock = 0
            w.rest()

    # Mheap.

    def to_mheap(self, w: Work) -> None:
        w.own()
        if w.pool or w.listed or w.bit or w.head or any(thread.block or thread.chain for thread in w.threads):
            raise Violation("returned to mheap while in use", f"thread {w.t}")
        w.drop()
        w.in_mheap = True
        w.owner = w.free = w.live = w.carved = 0
        w.links = (0,) * self.nblocks
        then = w.me.then
        w.set(role=NONE)
        if then == "rest":
            w.rest()
        else:
            w.set(pc=then)

    # ---- Invariants ----

    def check(self, s: State) -> None:
        free = blocks_of(s.links, s.free, "free list")
        remote = blocks_of(s.links, s.head, "remote list")
        moving = [thread.block for thread in s.threads if thread.block]
        for thread in s.threads:
            moving += blocks_of(s.links, thread.chain, "collected")
        pool = [block for block in range(1, self.nblocks + 1) if s.pool >> block & 1]
        uncarved = list(range(s.carved + 1, self.nblocks + 1))
        places = sorted(free + remote + moving + pool + uncarved)
        if places != list(range(1, self.nblocks + 1)):
            kind = "block in two places" if len(set(places)) < len(places) else "block lost"
            raise Violation(
                kind, f"free {free} remote {remote} moving {moving} held {pool} uncarved {uncarved}")
        if s.in_mheap:
            if s.holder or s.listed or s.pool or remote:
                raise Violation("in use while in mheap")
            return
        if s.live != len(pool) + len(moving) + len(remote):
            raise Violation("live is wrong", f"{s.live}")
        if self.strict:
            self.check_words(s, bool(free or uncarved), bool(remote))

    def check_words(self, s: State, has_free: bool, has_remote: bool) -> None:
        """The span is owned, abandoned or listed, and its words say so."""
        if s.holder == 0:
            abandoned = (s.owner, s.bit, s.listed) == (0, 1, False) and not has_remote
            listed = (s.owner, s.bit, s.listed) == (0, 0, True)
            if not (abandoned or listed):
                raise Violation(
                    "span stranded", f"owner {s.owner} remote {s.head} bit {s.bit} listed {s.listed}")
            if abandoned and s.live != self.nblocks:
                raise Violation("free block stranded", "the abandoned span is not full")
            if listed and not has_free:
                raise Violation("full span listed")
        else:
            holder = s.threads[s.holder - 1]
            if s.bit:
                raise Violation("bit 0 set while owned")
            if s.owner not in (0, s.holder, ORPHAN) or (s.owner == ORPHAN and holder.has_p):
                raise Violation("owner names a stranger", f"owner {s.owner}, holder thread {s.holder - 1}")
            if holder.pc == "idle" and (s.owner != s.holder or holder.role == NONE or s.listed):
                raise Violation("span stranded", f"its holder is idle, owner {s.owner} role {holder.role}")
        for t, thread in enumerate(s.threads):
            if thread.pc == "idle" and thread.role != NONE and s.holder != t + 1:
                raise Violation("two holders", f"thread {t} keeps a span that it does not hold")

    # ---- What else explorer.explore asks for ----

    @staticmethod
    def at_rest(s: State) -> bool:
        return all(thread.pc == "idle" for thread in s.threads)

    goals = {"at rest": at_rest.__func__, "span back in mheap": lambda s: s.in_mheap}
    canonical = staticmethod(canonical)
