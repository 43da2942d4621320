"""Python operations on managed objects while the collector is held: run by test_gc_python.py, one process a mode.

    python operations.py CASE MODE

The process has a libpyalloc.so with asserts, yield points and hold.c preloaded, and a _core with asserts.  Every
wait has a deadline: a thread that keeps the GIL where it waits stops the main thread, and faulthandler ends the
process.
"""

import ctypes
import faulthandler
import random
import sys
import threading

import pyalloc
from pyalloc import Ref, Struct, int64, managed_bytes, ref_array, weakref

SECONDS = 30
LIBRARY = ctypes.CDLL("libpyalloc.so")
CONCURRENT = ("concurrent-1.5", "concurrent-1.6", "concurrent")


class Node(Struct):
    left: Ref
    right: Ref
    key: int64


class Held:
    """Somebody is held at a point until the block is left."""

    def __init__(self, point):
        self.point = point.encode()

    def __enter__(self):
        LIBRARY.hold_at(self.point)
        return self

    def wait(self):
        assert LIBRARY.hold_wait(self.point, 0, True, SECONDS), f"nobody came to {self.point}"

    def __exit__(self, *_):
        LIBRARY.hold_release(self.point)


def met(point):
    return LIBRARY.hold_met(point.encode())


def wait_for_more(point, count):
    assert LIBRARY.hold_wait(point.encode(), count, False, SECONDS), f"nobody came to {point}"


class Thread(threading.Thread):
    """Keeps the exception for who joins."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self.work, self.error = work, None
        self.start()

    def run(self):
        try:
            self.work()
        except BaseException as error:
            self.error = error

    def finish(self):
        self.join(SECONDS)
        assert not self.is_alive(), "still waiting"
        if self.error:
            raise self.error


def run_a_while():
    """Needs the GIL again and again."""
    total = 0
    for i in range(20000):
        total += i
    return total


def operations():
    """name -> an operation that has to be inside; made outside of stops."""
    node, array = Node(left=Node(key=1)), ref_array(5000)
    weak = weakref(node)

    def fill():
        array.fill(node)
        assert array[4999] == node

    def slices():
        array[1000:4000] = array[:3000]
        array[::2] = array[1::2]
        array[:3] = (node, None, node)

    def collected():
        pyalloc.add_cleanup(Node(), int)

    return {
        "create": lambda: Node(left=node, key=3), "read": lambda: node.left,
        "write": lambda: setattr(node, "right", node), "array": lambda: ref_array(10),
        "array of": lambda: ref_array([node] * 3000), "bytes": lambda: managed_bytes(100),
        "large bytes": lambda: managed_bytes(100_000), "huge": lambda: ref_array(300_000),
        "fill": fill, "slices": slices,
        "weak": lambda: weakref(node), "call weak": lambda: weak().left, "cleanup": collected,
        "is_alive": lambda: pyalloc.is_alive(weak), "sizeof": node.__sizeof__, "collect": pyalloc.collect,
    }


def stopped(mode):
    """The world stays stopped: who wants inside waits without the GIL, and references die all the same."""
    for name, operation in operations().items():
        dying = [Node(key=i) for i in range(300)] + [weakref(Node()) for _ in range(20)]
        with Held("GC_STOPPED_FIRST") as stop:
            collecting = Thread(pyalloc.collect)
            stop.wait()
            before = met("ENTER_WAITS")
            waiting = Thread(operation)
            if name != "collect":
                wait_for_more("ENTER_WAITS", before)
            dying.clear()
            run_a_while()
            assert waiting.is_alive(), f"{name} went on while the world was stopped"
        collecting.finish()
        waiting.finish()
        assert pyalloc.heap_check() is None
    print("ok")


def paying(mode):
    """Who owes marking marks without the GIL, and so waits who is ahead of the collector."""
    pyalloc.set_gc_percent(50)
    kept = ref_array([Node(key=i) for i in range(20000)])
    makers = {"create": lambda: Node(left=kept), "array": lambda: ref_array(50), "bytes": lambda: managed_bytes(3000),
              "large": lambda: ref_array(20_000)}
    for name, make in makers.items():
        pyalloc.collect()
        enough = threading.Event()

        def work():
            while not enough.is_set():
                make()

        with Held("GC_MARKING") as marking:
            allocating = Thread(work)
            marking.wait()
            with Held("ASSIST_MARK") as paid:
                paid.wait()
                run_a_while()
            before = met("ASSIST_WAIT")
            wait_for_more("ASSIST_WAIT", before)
            run_a_while()
            enough.set()
        allocating.finish()
        assert [kept[i].key for i in range(0, 20000, 999)] == list(range(0, 20000, 999)), name
    print("ok")


def stress(mode):
    """Threads allocate, link, copy, drop and clean up while others collect; checkmark looks after every cycle."""
    LIBRARY.pa_gc_set_checkmark(True)
    pyalloc.set_gc_percent(10)
    sys.setswitchinterval(1e-4)
    table, done, cleaned = ref_array(64, Node), threading.Event(), []

    def mutate(seed):
        rng, mine = random.Random(seed), []
        for step in range(1500):
            node = Node(left=table[rng.randrange(64)], key=step)
            table[rng.randrange(64)] = node
            mine.append(node if step % 3 else weakref(node))
            if step % 50 == 0:
                table[0:32] = table[32:64]
                pyalloc.add_cleanup(node, cleaned.append, step)
            if step % 97 == 0:
                node.right = managed_bytes(rng.randrange(40_000))
                mine.append(memoryview(node.right))
            if len(mine) > 40:
                del mine[:rng.randrange(40)]

    def collect():
        while not done.is_set():
            pyalloc.collect()

    collecting = Thread(collect)
    mutating = [Thread(lambda seed=seed: mutate(seed)) for seed in range(3)]
    for thread in mutating:
        thread.finish()
    done.set()
    collecting.finish()
    table.fill(None)
    pyalloc.collect()
    pyalloc.collect()
    assert len(cleaned) == 3 * 30, cleaned
    pyalloc.heap_check()
    print("ok")


if __name__ == "__main__":
    faulthandler.dump_traceback_later(2 * SECONDS, exit=True)
    pyalloc.set_gc_mode(sys.argv[2])
    {"stopped": stopped, "paying": paying, "stress": stress}[sys.argv[1]](sys.argv[2])
